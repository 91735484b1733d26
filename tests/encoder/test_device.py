"""The choice between CPU and GPU, and between precisions."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mirror import MirrorEncoder, MirrorError
from mirror.config import Accelerator, Precision
from mirror.config.compose import compose
from mirror.encoder.device import choose_device, place
from tests.conftest import SENTENCES


@pytest.mark.parametrize(
    ("gpu", "wanted", "device"),
    [
        (True, "auto", "cuda"),
        (True, "gpu", "cuda"),
        (True, "cpu", "cpu"),
        (False, "auto", "cpu"),
        (False, "cpu", "cpu"),
    ],
)
def test_device(gpu: bool, wanted: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert choose_device(Accelerator(wanted)) == device


def test_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MirrorError, match="accelerator=gpu finds no GPU: use accelerator=cpu"):
        choose_device(Accelerator.gpu)


@pytest.mark.parametrize("pooling", ["mean", "first_last", "layers"])
def test_bf16_rounds_the_backbone_alone(pooling: str, tiny_bert: Path) -> None:
    encoder = MirrorEncoder.load(tiny_bert, pooling)
    exact = encoder.encode(SENTENCES[:20])
    place(encoder, Accelerator.cpu, Precision.fp32)
    np.testing.assert_array_equal(encoder.encode(SENTENCES[:20]), exact)
    place(encoder, Accelerator.cpu, Precision.bf16)
    rounded = encoder.encode(SENTENCES[:20])
    assert rounded.dtype == np.float32
    assert {weights.dtype for weights in encoder.backbone.parameters()} == {torch.bfloat16}
    assert all(weights.dtype == torch.float32 for weights in encoder.pooling.parameters())
    cosines = (rounded * exact).sum(1) / np.linalg.norm(rounded, axis=1) / np.linalg.norm(exact, axis=1)
    assert 0.999 < cosines.min() < 1 - 1e-7


def test_bf16_where_it_is_slow(
    tiny_bert: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for native in (True, False):
        monkeypatch.setattr("torch.cpu.get_capabilities", lambda native=native: {"amx_bf16": native})
        caplog.clear()
        place(MirrorEncoder.load(tiny_bert), Accelerator.cpu, Precision.bf16)
        assert ("precision=bf16 is slow here" in caplog.text) == (not native)


@pytest.mark.parametrize("command", ["encode", "evaluate", "search"])
def test_no_fp16(command: str) -> None:
    given = {"encode": ["encoder=a", "input=b", "output=c"], "evaluate": ["encoder=a"], "search": ["query=a"]}[command]
    with pytest.raises(MirrorError, match=r"precision=fp16 is out of range: it must be auto, fp32 or bf16"):
        compose(command, [*given, "precision=fp16"])
    assert compose(command, given).precision is Precision.auto
