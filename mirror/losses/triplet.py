"""Triplets: each text is nearer to its positive than to another text, by a margin (SBERT, Reimers & Gurevych 2019)."""

from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from mirror.config import Rule
from mirror.data.batches import MirroredBatch
from mirror.losses.base import Components, Loss, check_two_views
from mirror.losses.embedder import Embedder
from mirror.losses.gather import gather_in_order, world_size

SMALLEST = 1e-12
"""Of a squared distance: the root of 0 has no gradient."""


class Triplet(Loss):
    """relu(d(a, p) - d(a, n) + margin), with Euclidean distances of unit vectors (SBERT, section 3).

    The anchor is a text's first view, the positive its second, the negative the second view of another text of the
    batch. A text whose like alone are in the batch has no triplet and counts as 0.

    Args:
        margin: 1 in SBERT, 5 in sentence-transformers' ``TripletLoss``, both on vectors of any length; distances of
            unit vectors end at 2.
        hardest: the negative is the one nearest to the anchor; otherwise a random one, which follows the step's seed.
        mask_duplicates: texts that equal the anchor or its positive are not negatives.
    """

    def __init__(
        self,
        margin: Annotated[float, Rule(lambda margin: 0 < margin <= 2, "above 0 and at most 2")] = 1.0,
        hardest: bool = True,
        mask_duplicates: bool = True,
    ) -> None:
        super().__init__()
        self.margin, self.hardest, self.mask_duplicates = margin, hardest, mask_duplicates

    def forward(self, embed: Embedder, batch: MirroredBatch) -> Components:
        """The loss, and the share of texts that are not yet apart by the margin.

        Raises:
            MirrorError: the batch has other than two views of each text.
        """
        check_two_views(batch)
        # Drawn before dropout draws; the devices take that of the batch's first text.
        draws = torch.randint(2**31, (1, batch.text_ids.shape[1]))
        vectors = embed(batch)  # (2, N, D)
        with torch.autocast(vectors.device.type, enabled=False):
            unit = F.normalize(vectors.float(), dim=-1)
            everyone = gather_in_order(unit, torch.cat([batch.text_ids, draws.to(unit.device)]))  # (2, M, D)
            total, others = everyone.vectors.shape[1], everyone.text_ids[1]
            with torch.no_grad():
                barred = torch.arange(total, device=unit.device)[None] == everyone.own[:, None]  # (N, M)
                if self.mask_duplicates:
                    for ids in batch.text_ids:
                        barred = barred | (others[None] == ids[:, None])
                if self.hardest:
                    nearness = unit[0] @ everyone.vectors[1].T
                else:
                    nearness = self._random(int(everyone.text_ids[2, 0]), total, unit.device)[everyone.own]
                chosen = nearness.masked_fill(barred, -torch.inf).argmax(dim=1)  # (N,)
            gap = _distance(unit[0], unit[1]) - _distance(unit[0], everyone.vectors[1][chosen])
            losses = F.relu(gap + self.margin).masked_fill(barred.all(dim=1), 0.0)
            share = world_size() / total
            return {"loss": losses.sum() * share, "active": (losses > 0).sum() * share}

    @staticmethod
    def _random(seed: int, total: int, device: torch.device) -> Tensor:
        """(M, M), the same on every device."""
        return torch.rand(total, total, generator=torch.Generator().manual_seed(seed)).to(device)

    def negatives(self, texts: int) -> int:
        """One."""
        return min(1, texts - 1)

    def describe(self) -> str:
        """Margin and choice of the negative."""
        return f"triplet, margin {self.margin}, {'hardest' if self.hardest else 'random'} negative"


def _distance(ours: Tensor, theirs: Tensor) -> Tensor:
    """(N,), of vectors (N, D)."""
    return (ours - theirs).square().sum(-1).clamp(min=SMALLEST).sqrt()
