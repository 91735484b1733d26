"""Barlow Twins: the two views' coordinates agree, and different coordinates do not repeat each other."""

from typing import Annotated

import torch
from torch import Tensor

from mirror.config import Rule
from mirror.data.batches import MirroredBatch
from mirror.losses.base import Components, Loss, check_two_views
from mirror.losses.embedder import Embedder
from mirror.losses.gather import gather

EPSILON = 1e-5
"""Added to each coordinate's variance, as batch normalisation does."""


class BarlowTwins(Loss):
    """Barlow Twins (Zbontar et al. 2021, equations 1 and 2).

    Args:
        redundancy: weight of the entries off the diagonal, λ in the paper.
        scale: factor of the whole loss, which grows with the size of the vectors; solo-learn has 0.024
            (``solo/losses/barlow.py``), the paper none.
    """

    def __init__(
        self,
        redundancy: Annotated[float, Rule(lambda weight: weight >= 0, "0 or more")] = 0.005,
        scale: Annotated[float, Rule(lambda factor: factor > 0, "above 0")] = 1.0,
    ) -> None:
        super().__init__()
        self.redundancy, self.scale = redundancy, scale

    def forward(self, embed: Embedder, batch: MirroredBatch) -> Components:
        """The loss, and its two sums before weight and scale.

        Raises:
            MirrorError: the batch has other than two views of each text.
        """
        check_two_views(batch)
        diagonal, rest = barlow_twins(embed(batch), batch.text_ids)
        loss = self.scale * (diagonal + self.redundancy * rest)
        return {"loss": loss, "diagonal": diagonal.detach(), "redundancy": rest.detach()}

    def describe(self) -> str:
        """Weight and scale."""
        return f"Barlow Twins, redundancy {self.redundancy:g}, scale {self.scale:g}"


def barlow_twins(vectors: Tensor, text_ids: Tensor) -> tuple[Tensor, Tensor]:
    """The sums of (1 - C_ii)² and of C_ij², i ≠ j; C is the correlation of the views' coordinates over all devices.

    Args:
        vectors: (2, N, D), of the two views.
        text_ids: (2, N).

    Returns:
        Two scalars in float32, the same on every device.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        # Every device computes the loss of all texts; gather adds their gradients up, DDP takes the mean.
        everyone = gather(vectors.float(), text_ids).vectors  # (2, M, D)
        variance, mean = torch.var_mean(everyone, dim=1, correction=0, keepdim=True)
        left, right = (everyone - mean) / (variance + EPSILON).sqrt()  # (M, D) each
        correlation = left.T @ right / len(left)  # (D, D)
        diagonal = correlation.diagonal()
        off_diagonal = correlation - torch.diag(diagonal)
        return (1 - diagonal).square().sum(), off_diagonal.square().sum()
