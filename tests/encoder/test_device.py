"""The choice between CPU and GPU."""

import pytest
import torch

from mirror import MirrorError
from mirror.config import Accelerator
from mirror.encoder.device import choose_device


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
