"""What the runs of a sweep share: computed once, right for every run, and nothing of it in a single run."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mirror import MirrorEncoder
from mirror.data import texts
from mirror.encoder import backbone
from mirror.runs.sharing import KEPT, fingerprint, shared, sharing, start_sharing, stop_sharing
from mirror.training import run
from mirror.training.run import train
from tests.conftest import SENTENCES
from tests.helpers import metrics, small


@pytest.fixture
def sweep() -> Iterator[None]:
    start_sharing()
    yield
    stop_sharing()


def test_single_run_keeps_nothing() -> None:
    made: list[int] = []
    for _ in range(2):
        shared("kind", "key", lambda: made.append(1))
    assert len(made) == 2
    assert not sharing()


@pytest.mark.usefixtures("sweep")
def test_last_ones_are_kept() -> None:
    made: list[object] = []

    def ask(kind: str, key: int) -> object:
        def make() -> object:
            made.append((kind, key))
            return object()

        return shared(kind, key, make)

    first = ask("a", 0)
    assert ask("a", 0) is first
    assert ask("b", 0) is not first
    for key in range(1, KEPT):
        ask("a", key)
    assert ask("a", 0) is first  # now the last one used
    ask("a", KEPT)
    assert ask("a", 0) is first
    assert made.count(("a", 0)) == 1
    ask("a", 1)
    assert made.count(("a", 1)) == 2


@pytest.mark.parametrize(("a", "b"), [(["ab", "c"], ["a", "bc"]), (["a"], ["a", ""]), (["a", "b"], ["b", "a"])])
def test_fingerprint(a: list[str], b: list[str]) -> None:
    assert fingerprint(a) != fingerprint(b)
    assert fingerprint(a) == fingerprint(iter(a))


def runs(model: Path, eval_dir: Path, folder: Path) -> list[dict[str, Any]]:
    """What three runs that differ in seed, pooling and length find, with their encoders' vectors."""
    texts = folder / "texts.txt"
    folder.mkdir()
    texts.write_text("\n".join(SENTENCES), encoding="utf-8")
    found = []
    variants = ["seed=1"], ["seed=2", "model.pooling=mean"], ["seed=1", "batch.max_tokens=9"]
    for number, overrides in enumerate(variants):
        target = folder / str(number)
        target.mkdir()
        settings = [
            "eval=stsb",
            "eval.geometry_every=0",
            f"eval.data_dir='{eval_dir}'",
            f"data.path='{texts}'",
            *overrides,
        ]
        encoder = train(small(model, *settings), target)
        content = metrics(target)
        same = {key: content[key] for key in ("scores", "loss", "data")}
        found.append({**same, "vectors": encoder.encode(SENTENCES[:5])})
    return found


def test_runs_find_the_same_as_alone(
    tiny_bert: Path, eval_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the untouched model is loaded, and its test texts encoded, once for all."""
    alone = runs(tiny_bert, eval_dir, tmp_path / "alone")
    counts = {"load": 0, "read": 0, "encode_by": 0}

    def counted(name: str, function: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            counts[name] += 1
            return function(*arguments, **named)

        return call

    monkeypatch.setattr(backbone, "_load", counted("load", backbone._load))
    monkeypatch.setattr(run, "read_texts", counted("read", texts.read_texts))
    monkeypatch.setattr(MirrorEncoder, "encode_by", counted("encode_by", MirrorEncoder.encode_by))
    torch.manual_seed(3)
    start_sharing()
    try:
        together = runs(tiny_bert, eval_dir, tmp_path / "together")
    finally:
        stop_sharing()
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one.pop("vectors"), other.pop("vectors"))
        assert one == other
    # The untouched model once, each tuned one once, and five texts at the end of each run above.
    assert counts == {"load": 1, "read": 2, "encode_by": 1 + 3 + 3}
