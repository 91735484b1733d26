"""What the machine offers: device, precision, place among the processes."""

from dataclasses import dataclass

import torch
from pytorch_lightning.utilities import rank_zero_only

from mirror.config import Precision, TrainerConfig
from mirror.encoder.device import choose_device, multiplies_bf16
from mirror.errors import MirrorError


@dataclass
class Hardware:
    """Where and how a run computes."""

    device: str
    """``cpu`` or ``cuda``."""
    precision: Precision
    """Never ``auto``."""

    @property
    def name(self) -> str:
        """What a person calls the device."""
        return torch.cuda.get_device_name() if self.device == "cuda" else f"cpu ({torch.get_num_threads()} threads)"


def choose_hardware(config: TrainerConfig) -> Hardware:
    """Device and precision, checked against what is there.

    Raises:
        MirrorError: a GPU is asked for that is not there, or a precision that the device does not have.
    """
    device = choose_device(config.accelerator, "trainer.accelerator")
    if device == "cuda" and config.devices > torch.cuda.device_count():
        raise MirrorError(f"trainer.devices={config.devices}, but there are {torch.cuda.device_count()} GPUs.")
    return Hardware(device, choose_precision(config.precision, device))


def choose_precision(wanted: Precision, device: str) -> Precision:
    """bfloat16 where the hardware multiplies it natively, float32 elsewhere.

    Raises:
        MirrorError: fp16 on a CPU, where it is no faster and often not finite.
    """
    if wanted is Precision.fp16 and device == "cpu":
        raise MirrorError("trainer.precision=fp16 needs a GPU: use auto, bf16 or fp32.")
    if wanted is not Precision.auto:
        return wanted
    return Precision.bf16 if multiplies_bf16(device) else Precision.fp32


def is_rank_zero() -> bool:
    """Whether this process is the first; Lightning reads the rank from the launcher's environment."""
    return bool(getattr(rank_zero_only, "rank", 0) == 0)
