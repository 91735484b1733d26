"""What a run computes in where nothing is said."""

import os
import subprocess
import sys

import pytest

from mirror.config import Precision
from mirror.training.hardware import choose_precision
from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("reported", "chosen"),
    [
        ({}, Precision.fp32),
        ({"avx512_f": True, "avx512_bf16": False}, Precision.fp32),
        ({"avx512_bf16": True}, Precision.bf16),
        ({"amx_bf16": True}, Precision.bf16),
    ],
)
def test_auto_follows_the_cpu(reported: dict[str, bool], chosen: Precision, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: reported)
    assert choose_precision(Precision.auto, "cpu") is chosen
    assert choose_precision(Precision.fp32, "cpu") is Precision.fp32
    assert choose_precision(Precision.bf16, "cpu") is Precision.bf16


def test_other_processes_of_the_tests_can_be_told_too() -> None:
    """As ``make test BF16=1`` does."""
    told = "from mirror.training.hardware import *; print(choose_precision(Precision.auto, 'cpu').value)"
    path = os.pathsep.join([str(ROOT / "tests" / "bf16"), os.environ["PYTHONPATH"]])
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", told], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "bf16"
