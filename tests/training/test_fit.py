"""What a run writes while it trains, however seldom it looks; what a step is made of."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mirror import MirrorError
from mirror.losses.infonce import info_nce
from mirror.training.module import MirrorModule
from mirror.training.trainer import LOOK_EVERY, remove_checkpoints
from tests.helpers import curve, go, metrics

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


def test_checkpoints_alone_are_removed(tmp_path: Path) -> None:
    """Not what somebody else put beside them."""
    for name in ("own/step=3.ckpt", "own/epoch=0-step=9.ckpt", "own/.mirror-1/step=4.ckpt", "mixed/step=3.ckpt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "mixed" / "best.ckpt").touch()
    for folder in ("own", "mixed", "none"):
        remove_checkpoints(tmp_path / folder)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["best.ckpt", "mixed"]


def test_late_look_names_the_step_that_went_wrong(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def third_is_infinite(*arguments: Any, **settings: Any) -> Tensor:
        nonlocal calls
        calls += 1
        return info_nce(*arguments, **settings) * (float("inf") if calls == 3 else 1)

    monkeypatch.setattr("mirror.losses.infonce.info_nce", third_is_infinite)
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


class Waits(TorchDispatchMode):
    """Notes the steps in which the program asks for what a GPU would first have to compute: numbers, or shapes that
    follow from values."""

    ASKED = ("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::bincount", "aten::equal")

    def __init__(self, module: MirrorModule) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.module, self.steps = module, set[int]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().partition(".")[0]
        chosen = name == "aten::index" and any(part is not None and part.dtype is torch.bool for part in args[1])
        if chosen or name in self.ASKED:
            self.steps.add(self.module.global_step)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("overrides", [[], ["aug=drophead"], ["model.pooling=mean", "batch.micro=3"]], ids=str)
def test_nothing_is_asked_of_the_device_between_two_looks(
    overrides: list[str], tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither by the step nor by Lightning nor by the bar."""
    waits: list[Waits] = []

    def start(module: MirrorModule) -> None:
        waits.append(Waits(module))
        waits[0].__enter__()  # type: ignore[no-untyped-call]

    monkeypatch.setitem(LOOK_EVERY, "cpu", 4)
    monkeypatch.setattr(MirrorModule, "on_train_start", start)
    monkeypatch.setattr(MirrorModule, "on_train_end", lambda module: waits[0].__exit__(None, None, None))  # type: ignore[no-untyped-call]
    go(tiny_bert, tmp_path / "run", *TEN, "trainer.progress=true", *overrides)
    assert waits[0].steps == {4, 8, 10}
