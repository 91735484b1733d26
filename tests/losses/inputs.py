"""What losses are tried on: random vectors, and an encoder with a few batches."""

from pathlib import Path

import torch
from torch import Tensor

from mirror import MirrorEncoder
from mirror.config import BatchConfig
from mirror.data.batches import BatchKey, MirroredPairs
from mirror.encoder.perturb import set_dropout
from tests.conftest import SENTENCES
from tests.helpers import pairs_of

TEMPERATURE = 0.1
REPEATED = [*SENTENCES[:18], *SENTENCES[:3], *SENTENCES[30:32]]
"""23, with duplicates: batches of 8, 8 and 7."""
STEPS = [BatchKey(epoch, step) for epoch in (0, 1) for step in (0, 1, 2)]


def vectors_of(n: int, dimension: int = 16, seed: int = 0) -> Tensor:
    return torch.randn(2, n, dimension, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def different(n: int) -> Tensor:
    """No two texts alike."""
    return torch.arange(n).expand(2, -1)


TEXTS = {
    "different": different(7),
    "duplicates": torch.tensor([[0, 1, 2, 1, 1, 3, 0]] * 2),
    "pairs": torch.tensor([[0, 1, 2, 1, 3, 4, 0], [5, 6, 7, 8, 9, 2, 10]]),  # given positives
}
"""Numbers of texts, (2, 7)."""


def loaded(model: Path, dropout: float = 0.0) -> MirrorEncoder:
    """An encoder whose vectors lie apart."""
    encoder = MirrorEncoder.load(model)
    with torch.no_grad():
        for weight in encoder.backbone.parameters():
            if weight.ndim > 1:
                weight.mul_(5)
    set_dropout(encoder.backbone, dropout)
    return encoder.train()


def batches(encoder: MirrorEncoder, rank: int = 0, world: int = 1) -> MirroredPairs:
    pairs = [(text, text) for text in REPEATED]
    return pairs_of(pairs, encoder, BatchConfig(size=8), rank=rank, world=world, apart=True)


class Known:
    """A teacher that makes a text's vector of its number."""

    name = "known"

    def __init__(self, seed: int) -> None:
        self.table = torch.randn(20, 5, generator=torch.Generator().manual_seed(seed))

    def vectors(self, texts: list[list[str]], device: torch.device) -> Tensor:
        return self.table[torch.tensor([[int(text) for text in view] for view in texts])]

    def with_layers(self, texts: list[list[str]], device: torch.device) -> list[Tensor]:
        return [self.vectors(texts, device)]


class Scorer:
    """A teacher that scores pairs of texts by their numbers."""

    name = "scorer"

    def __init__(self, seed: int) -> None:
        self.table = torch.rand(20, 20, generator=torch.Generator().manual_seed(seed))

    def scores(self, pairs: list[list[tuple[str, str]]], device: torch.device) -> Tensor:
        return torch.stack([torch.stack([self.table[int(one), int(other)] for one, other in row]) for row in pairs])


def cosine(a: Tensor, b: Tensor) -> Tensor:
    found: Tensor = a @ b / a.norm() / b.norm()
    return found
