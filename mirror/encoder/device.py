"""The device that a model runs on."""

import torch

from mirror.config import Accelerator
from mirror.errors import MirrorError


def choose_device(accelerator: Accelerator, setting: str = "accelerator") -> str:
    """``cuda`` or ``cpu``; ``auto`` takes a GPU where there is one.

    Raises:
        MirrorError: a GPU is asked for that is not there.
    """
    cuda = torch.cuda.is_available()
    if accelerator is Accelerator.gpu and not cuda:
        raise MirrorError(f"{setting}=gpu finds no GPU: use {setting}=cpu, or install torch's CUDA build.")
    return "cuda" if cuda and accelerator is not Accelerator.cpu else "cpu"
