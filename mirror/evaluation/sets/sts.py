"""Semantic textual similarity: STS 2012-2016, STS-B, SICK-R, STS 2017 across languages, from a folder or the hub."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mirror.encoder import hub
from mirror.evaluation.sets.files import number, read_table, text
from mirror.evaluation.sets.pairs import PairSet


class OnHub(NamedTuple):
    """Where a set is on the hub."""

    path: str
    split: str = "test"
    config: str | None = None


HUB = {
    **{f"sts{year}": OnHub(f"mteb/sts{year}-sts") for year in range(12, 17)},
    "stsb-dev": OnHub("mteb/stsbenchmark-sts", "validation"),
    "stsb-test": OnHub("mteb/stsbenchmark-sts"),
    "sickr-test": OnHub("mteb/sickr-sts"),
    **{
        f"sts17-{languages}": OnHub("mteb/sts17-crosslingual-sts", config=languages)
        for languages in (
            "en-en", "es-es", "ar-ar", "ko-ko", "en-ar", "en-de", "en-tr", "es-en", "fr-en", "it-en", "nl-en",
        )
    },
}  # fmt: skip
"""The sets by name; a local folder has ``sts/<name>.tsv``. SemEval 2017 has two languages for each set."""
PAIRS = {
    "sts12": 3108, "sts13": 1500, "sts14": 3750, "sts15": 3000, "sts16": 1186, "stsb-dev": 1500, "stsb-test": 1379,
}  # fmt: skip
"""Of the sets as the field scores them; STS13 without the SMT part."""
SICK = {4906: "SICK by SemEval_set = TEST", 4927: "SICK as SentEval counts it", 9927: "all parts of SICK, as in MTEB"}
"""Three conventions share the name SICK-R; the number of pairs tells them apart."""
AVERAGED = ("sts12", "sts13", "sts14", "sts15", "sts16", "stsb-test", "sickr-test")
"""The seven sets whose mean the field calls the STS average."""
AVERAGE = "average of 7"
"""What that mean is called in tables and in ``metrics.json``."""
COLUMNS = ("score", "sentence1", "sentence2")

log = logging.getLogger(__name__)


def sts_average(figures: Mapping[str, float]) -> float | None:
    """The mean of the seven sets' figures, by set; None if one of them is missing."""
    if any(name not in figures for name in AVERAGED):
        return None
    return sum(figures[name] for name in AVERAGED) / len(AVERAGED)


def load(name: str, data_dir: Path | None) -> PairSet:
    """One set by its name in ``HUB``.

    Raises:
        UnavailableError: no folder is given and the hub cannot be reached.
        MirrorError: its file is missing or malformed.
    """
    found = read(data_dir / "sts" / f"{name}.tsv", name) if data_dir is not None else _from_hub(name)
    whole = PAIRS.get(name, len(found))
    if len(found) != whole:
        log.warning(
            "%s has %d pairs, not the %d that are published: compare with nothing else.", name, len(found), whole
        )
        found.note = f"{len(found):,} pairs, not the {whole:,} that are published"
    if name == "sickr-test":
        found.note = SICK.get(len(found), f"{len(found):,} pairs, which is no convention for SICK")
    return found


def read(path: Path, name: str) -> PairSet:
    """A file of sentence pairs with scores; the column ``subset`` makes parts, where it has one.

    Raises:
        MirrorError: it is missing or malformed.
    """
    return _pair_set(name, read_table(path, COLUMNS), path)


def _pair_set(name: str, rows: Sequence[dict[str, Any]], source: Path | str) -> PairSet:
    left, right, gold = [], [], []
    for line, row in enumerate(rows, start=2):
        left.append(text(row, "sentence1", source, line))
        right.append(text(row, "sentence2", source, line))
        gold.append(number(row, "score", source, line))
    # One part of STS-B is no protocol: the field never splits it.
    parts = [name] * len(rows) if name.startswith("stsb") else [row.get("subset") or name for row in rows]
    return PairSet(name, left, right, np.array(gold), parts)


def _from_hub(name: str) -> PairSet:
    path, split, config = HUB[name]
    remedy = "give eval.data_dir=…, or leave it out"
    rows = list(hub.load_dataset(path, config, split, f"The test set {path}", remedy))
    return _pair_set(name, rows, path)
