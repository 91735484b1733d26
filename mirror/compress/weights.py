"""``format=torch``: the same encoder with weights of half the size, or with shorter vectors."""

from collections.abc import Mapping
from pathlib import Path

import torch

from mirror.config import ExportConfig, Weights
from mirror.encoder.encoder import MirrorEncoder
from mirror.encoder.graph import refuse_graph

KINDS = {Weights.fp32: torch.float32, Weights.bf16: torch.bfloat16, Weights.fp16: torch.float16}


def check(config: ExportConfig, encoder: MirrorEncoder) -> None:
    """Refuse what has no weights for torch."""
    refuse_graph(encoder.backbone, "encoder")


def save(encoder: MirrorEncoder, config: ExportConfig, folder: Path, beside: Mapping[str, str]) -> None:
    """The backbone's weights are rounded; those behind it stay in float32."""
    encoder.backbone.to(KINDS[config.weights])
    encoder.save(folder, beside)


def note(config: ExportConfig) -> str:
    """Nothing that the card does not say already."""
    return ""
