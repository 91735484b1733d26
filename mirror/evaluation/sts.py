"""Semantic textual similarity: STS 2012-2016, STS-B, SICK-R, from a local folder or the hub."""

from pathlib import Path
from typing import Any

import numpy as np

from mirror import hub
from mirror.errors import MirrorError, UnavailableError
from mirror.evaluation.pairs import PairSet
from mirror.evaluation.tables import number, read_table, text

HUB = {
    "sts12": ("mteb/sts12-sts", "test"),
    "sts13": ("mteb/sts13-sts", "test"),
    "sts14": ("mteb/sts14-sts", "test"),
    "sts15": ("mteb/sts15-sts", "test"),
    "sts16": ("mteb/sts16-sts", "test"),
    "stsb-dev": ("mteb/stsbenchmark-sts", "validation"),
    "stsb-test": ("mteb/stsbenchmark-sts", "test"),
    "sickr-test": ("mteb/sickr-sts", "test"),
}
"""Data set and split of each set on the hub; a local folder has ``sts/<name>.tsv``."""
AVERAGED = ("sts12", "sts13", "sts14", "sts15", "sts16", "stsb-test", "sickr-test")
"""The seven sets whose mean the field calls the STS average."""
COLUMNS = ("score", "sentence1", "sentence2")


def load(name: str, data_dir: Path | None) -> PairSet:
    """One set by its name in ``HUB``.

    Raises:
        UnavailableError: no folder is given and the hub cannot be reached.
        MirrorError: its file is missing or malformed.
    """
    rows: list[dict[str, Any]]
    if data_dir is not None:
        path: Path | str = data_dir / "sts" / f"{name}.tsv"
        rows = list(read_table(Path(path), COLUMNS))
    else:
        path, split = HUB[name]
        rows = _from_hub(path, split)
    left, right, gold = [], [], []
    for line, row in enumerate(rows, start=2):
        left.append(text(row, "sentence1", path, line))
        right.append(text(row, "sentence2", path, line))
        gold.append(number(row, "score", path, line))
    # One part of STS-B is no protocol: the field never splits it.
    parts = [name] * len(rows) if name.startswith("stsb") else [row.get("subset") or name for row in rows]
    return PairSet(name, left, right, np.array(gold), parts)


def _from_hub(path: str, split: str) -> list[dict[str, Any]]:
    import datasets

    reachable = hub.go_offline_unless_reachable()
    try:
        return list(datasets.load_dataset(path, split=split))
    except Exception as error:
        if not reachable:
            raise UnavailableError(
                f"The test set {path} is on the hub, which cannot be reached: give eval.data_dir=… or eval=none."
            ) from error
        raise MirrorError(f"The test set {path} cannot be loaded: {' '.join(str(error).split())[:300]}") from error
