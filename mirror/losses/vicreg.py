"""VICReg: the two views are near each other, each coordinate varies over the batch, and no two vary together."""

from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from mirror.config import Rule
from mirror.data.batches import MirroredBatch
from mirror.losses.base import Components, Loss, check_two_views
from mirror.losses.embedder import Embedder
from mirror.losses.gather import gather

EPSILON = 1e-4
"""Added to each coordinate's variance (paper, section 4.1)."""


class VICReg(Loss):
    """VICReg (Bardes et al. 2022, equations 1 to 6), a weighted sum of three terms.

    Args:
        invariance: weight of the mean squared difference of the two views.
        variance: weight of the hinge that keeps each coordinate's standard deviation above 1. Both views' hinges are
            summed, as in the paper and in solo-learn (``solo/losses/vicreg.py``).
        covariance: weight of the squared covariances of different coordinates, summed over both views.
    """

    def __init__(
        self,
        invariance: Annotated[float, Rule(lambda weight: weight >= 0, "0 or more")] = 25.0,
        variance: Annotated[float, Rule(lambda weight: weight >= 0, "0 or more")] = 25.0,
        covariance: Annotated[float, Rule(lambda weight: weight >= 0, "0 or more")] = 1.0,
    ) -> None:
        super().__init__()
        self.invariance, self.variance, self.covariance = invariance, variance, covariance

    def forward(self, embed: Embedder, batch: MirroredBatch) -> Components:
        """The loss, and its three terms before their weights.

        Raises:
            MirrorError: the batch has other than two views of each text.
        """
        check_two_views(batch)
        near, spread, apart = vicreg(embed(batch), batch.text_ids)
        loss = self.invariance * near + self.variance * spread + self.covariance * apart
        return {
            "loss": loss, "invariance": near.detach(), "variance": spread.detach(), "covariance": apart.detach(),
        }  # fmt: skip

    def describe(self) -> str:
        """The three weights."""
        return f"VICReg, invariance {self.invariance:g}, variance {self.variance:g}, covariance {self.covariance:g}"


def vicreg(vectors: Tensor, text_ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Invariance, variance and covariance over the texts of all devices.

    Args:
        vectors: (2, N, D), of the two views.
        text_ids: (2, N).

    Returns:
        Three scalars in float32, the same on every device.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        # Every device computes the loss of all texts; gather adds their gradients up, DDP takes the mean.
        everyone = gather(vectors.float(), text_ids).vectors  # (2, M, D)
        count, size = everyone.shape[1:]
        near = F.mse_loss(everyone[0], everyone[1])
        centred = everyone - everyone.mean(dim=1, keepdim=True)
        covariance = centred.mT @ centred / (count - 1)  # (2, D, D)
        variances = covariance.diagonal(dim1=1, dim2=2)  # (2, D)
        spread = F.relu(1 - (variances + EPSILON).sqrt()).mean(dim=1).sum()
        off_diagonal = covariance - torch.diag_embed(variances)
        return near, spread, off_diagonal.square().sum() / size
