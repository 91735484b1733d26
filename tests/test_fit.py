"""What a run writes while it trains, however seldom it looks; what a step is made of."""

import logging
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from mirror import MirrorError
from mirror.losses import info_nce
from mirror.trainer import LOOK_EVERY
from tests.test_run import curve, go, metrics

TEN = ["data.size=160", "batch.size=16"]


def test_curve_is_the_same_however_seldom_one_looks(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU is asked for its losses every few steps; none is lost, the last ones included."""
    go(tiny_bert, tmp_path / "each", *TEN)
    monkeypatch.setitem(LOOK_EVERY, "cpu", 4)
    go(tiny_bert, tmp_path / "fourth", *TEN)
    assert len(curve(tmp_path / "each")) == 10
    assert curve(tmp_path / "fourth") == curve(tmp_path / "each")
    assert metrics(tmp_path / "fourth")["loss"] == metrics(tmp_path / "each")["loss"]


def test_late_look_names_the_step_that_went_wrong(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def third_is_infinite(*arguments: Any, **settings: Any) -> Tensor:
        nonlocal calls
        calls += 1
        return info_nce(*arguments, **settings) * (float("inf") if calls == 3 else 1)

    monkeypatch.setattr("mirror.module.info_nce", third_is_infinite)
    monkeypatch.setitem(LOOK_EVERY, "cpu", 4)
    with pytest.raises(MirrorError, match="loss is inf at step 3"):
        go(tiny_bert, tmp_path / "run", *TEN)
    assert calls == 4
    assert metrics(tmp_path / "run")["status"] == "failed"


@pytest.mark.parametrize(
    ("overrides", "expected", "words"),
    [
        ([], {"texts": 16, "negatives": 30, "texts_at_a_time": 16}, "batches of 16 texts, 30 negatives for each view"),
        (
            ["batch.micro=5"],
            {"texts": 16, "negatives": 30, "texts_at_a_time": 5},
            "30 negatives for each view, encoded",
        ),
        (["batch.size=200"], {"texts": 48, "negatives": 94, "texts_at_a_time": 48}, "batches of 48 texts"),
    ],
)
def test_effective_batch(
    overrides: list[str],
    expected: dict[str, int],
    words: str,
    tiny_bert: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO):
        go(tiny_bert, tmp_path / "run", *overrides)
    content = metrics(tmp_path / "run")["effective_batch"]
    assert content == {**expected, "devices": 1, "texts_per_device": expected["texts"]}
    assert words in caplog.text
