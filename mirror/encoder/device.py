"""The device and the precision that a model runs in."""

import logging
from typing import Any, Protocol

import torch

from mirror.config import Accelerator, Precision
from mirror.errors import MirrorError

log = logging.getLogger(__name__)


class Placeable(Protocol):
    """What has a backbone and can be moved: a ``MirrorEncoder``."""

    backbone: Any

    def to(self, device: str) -> Any:
        """Move it."""


def choose_device(accelerator: Accelerator, setting: str = "accelerator") -> str:
    """``cuda`` or ``cpu``; ``auto`` takes a GPU where there is one.

    Raises:
        MirrorError: a GPU is asked for that is not there.
    """
    cuda = torch.cuda.is_available()
    if accelerator is Accelerator.gpu and not cuda:
        raise MirrorError(f"{setting}=gpu finds no GPU: use {setting}=cpu, or install torch's CUDA build.")
    return "cuda" if cuda and accelerator is not Accelerator.cpu else "cpu"


def multiplies_bf16(device: str) -> bool:
    """Whether the hardware multiplies bfloat16 natively; elsewhere it is many times slower than float32."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    known = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(known.get("amx_bf16") or known.get("avx512_bf16"))


def place(encoder: Placeable, accelerator: Accelerator, precision: Precision) -> None:
    """Move an encoder to its device; with ``bf16``, its backbone's weights are rounded too. Pooling stays in float32.

    Raises:
        MirrorError: a GPU is asked for that is not there.
    """
    device = choose_device(accelerator)
    encoder.to(device)
    if precision is Precision.bf16:
        if not multiplies_bf16(device):
            log.warning("precision=bf16 is slow here, whose hardware does not multiply bfloat16: use precision=fp32.")
        encoder.backbone.to(torch.bfloat16)
