"""Contrastive tension: two encoders with weights of their own read the same texts (Carlsson et al. 2021)."""

import copy
import math
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mirror.config import Rule
from mirror.data.batches import MirroredBatch
from mirror.losses.base import Components, Loss, check_two_views
from mirror.losses.embedder import Embedder
from mirror.losses.gather import InOrder, gather_in_order, world_size


class _TwoEncoders(Loss):
    """The run's encoder reads the first views, a copy that learns apart from it the second ones. The first is saved.

    The copy's dropout is that of the first; drophead and other perturbations reach the first one alone.
    """

    sides_apart = True
    equal_views = True

    def __init__(self, embedder: Embedder) -> None:
        super().__init__()
        self.second = copy.deepcopy(embedder)

    def _vectors(self, embed: Embedder, batch: MirroredBatch) -> tuple[Tensor, Tensor]:
        """The first encoder's vectors of the first views, and the second's of the second, (N, D) each."""
        check_two_views(batch)
        self.second.take_dropout(embed)
        return embed.side(batch, 0).float(), self.second.side(batch, 1).float()


class Tension(_TwoEncoders):
    """Binary cross entropy of dot products: 1 for the two vectors of a text, 0 for those of different texts.

    L = mean over the texts i of [-log s(a_i·b_i) - Σ_k log(1 - s(a_i·b_{i+k}))], k from 1 to ``negatives_each`` around
    the batch, whose order is drawn anew in each epoch; s is the logistic function (Carlsson et al. 2021, section 3;
    ``ContrastiveTension/Training.py``). There each batch of 16 pairs has 2 positive ones and 14 of texts that occur in
    it once; here each text of the batch is in one positive pair and in 7 others, so that no vector is used once alone.

    Args:
        embedder: is copied.
        negatives_each: negative pairs to each positive one; fewer in a batch of fewer texts.
        mask_duplicates: leave out negative pairs of equal texts.
    """

    def __init__(
        self,
        embedder: Embedder,
        negatives_each: Annotated[int, Rule(lambda count: count >= 1, "at least 1")] = 7,
        mask_duplicates: bool = True,
    ) -> None:
        super().__init__(embedder)
        self.negatives_each, self.mask_duplicates = negatives_each, mask_duplicates

    def forward(self, embed: Embedder, batch: MirroredBatch) -> Components:
        """The loss, and its part of the positive pairs.

        Raises:
            MirrorError: the batch has other than two views of each text.
        """
        ours, theirs = self._vectors(embed, batch)
        with torch.autocast(ours.device.type, enabled=False):
            everyone = gather_in_order(theirs[None], batch.text_ids)  # (1, M, D)
            total = everyone.vectors.shape[1]
            steps = torch.arange(min(self.negatives_each, total - 1) + 1, device=ours.device)  # (K + 1,), 0 is the text
            partners = (everyone.own[:, None] + steps) % total  # (N, K + 1)
            logits = (ours[:, None] * everyone.vectors[0][partners]).sum(-1)  # (N, K + 1)
            labels = (steps == 0).float().expand_as(logits)
            losses = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
            if self.mask_duplicates:
                losses = losses.masked_fill(_alike(batch, everyone).gather(1, partners), 0.0)
            share = world_size() / total
            return {"loss": losses.sum() * share, "positive": losses[:, 0].detach().sum() * share}

    def negatives(self, texts: int) -> int:
        """Those of each positive pair."""
        return min(self.negatives_each, texts - 1)

    def describe(self) -> str:
        """The ratio."""
        return f"contrastive tension, {self.negatives_each} negatives to a positive"


class TensionInBatch(_TwoEncoders):
    """Cross entropy over the cosines of all pairs of the batch, both ways, with a learnt scale.

    ``ContrastiveTensionLossInBatchNegatives`` of sentence-transformers.

    Args:
        embedder: is copied.
        scale: what the scale of the cosines starts from; its logarithm is learnt.
        mask_duplicates: texts that stand twice in a batch are not negatives of each other.
    """

    def __init__(
        self,
        embedder: Embedder,
        scale: Annotated[float, Rule(lambda scale: 0 < scale <= 1000, "above 0 and at most 1000")] = 20.0,
        mask_duplicates: bool = True,
    ) -> None:
        super().__init__(embedder)
        self.log_scale, self.mask_duplicates = nn.Parameter(torch.tensor(math.log(scale))), mask_duplicates
        self.start = scale

    def forward(self, embed: Embedder, batch: MirroredBatch) -> Components:
        """The loss, and the scale.

        Raises:
            MirrorError: the batch has other than two views of each text.
        """
        both = torch.stack(self._vectors(embed, batch))  # (2, N, D)
        with torch.autocast(both.device.type, enabled=False):
            unit, scale = F.normalize(both, dim=-1), self.log_scale.float().exp()
            everyone = gather_in_order(unit, batch.text_ids)  # (2, M, D)
            total, losses = everyone.vectors.shape[1], torch.zeros((), device=both.device)
            for side in (0, 1):
                logits = unit[side] @ everyone.vectors[1 - side].T * scale  # (N, M)
                if self.mask_duplicates:
                    logits = logits.masked_fill(_alike(batch, everyone), -torch.inf)
                losses = losses + F.cross_entropy(logits, everyone.own, reduction="sum")
            return {"loss": losses / (2 * total) * world_size(), "scale": scale.detach()}

    def negatives(self, texts: int) -> int:
        """The other texts' vectors by the other encoder."""
        return texts - 1

    def describe(self) -> str:
        """The scale's start."""
        return f"contrastive tension in the batch, scale learnt from {self.start:g}"


def _alike(batch: MirroredBatch, everyone: InOrder) -> Tensor:
    """(N, M): whether another text of the batch equals a row's text or its positive."""
    numbers = batch.text_ids[:, :, None, None] == everyone.text_ids.T[None, None]  # (2, N, M, 2)
    alike = numbers.any(dim=-1).any(dim=0)
    return alike.scatter(1, everyone.own[:, None], False)
