"""Attention pooling: a learnt query weighs the tokens of a text."""

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor, nn

from mirror.config import Rule
from mirror.encoder.packing import TokenBlock
from mirror.encoder.stages import Stage
from mirror.errors import MirrorError


class AttentionPooling(Stage):
    """sum_i softmax_i(q h_i) h_i over the tokens of a text, q being learnt (Lin et al. 2017, equation 5, one hop).

    It begins as the mean, with q = 0. Sentence-transformers has no such module: the folder loads with mirror alone.

    Args:
        hidden: size D of the backbone's states.
        heads: the states are cut into so many pieces, each with a query of its own.
    """

    def __init__(self, hidden: int, heads: Annotated[int, Rule(lambda heads: heads >= 1, "at least 1")] = 1) -> None:
        super().__init__()
        if hidden % heads:
            raise MirrorError(f"model.pooling.heads={heads} does not divide the model's {hidden} dimensions.")
        self.query = nn.Parameter(torch.zeros(heads, hidden // heads))

    def forward(self, vectors: Tensor, block: TokenBlock, layers: Sequence[Tensor]) -> Tensor:
        """(R, W, D) to (B, D)."""
        count, tokens = len(block.texts), vectors.flatten(0, 1).float()  # (R * W, D)
        pieces = tokens.unflatten(1, self.query.shape)  # (R * W, H, D / H)
        scores = (pieces * self.query.float()).sum(-1)  # (R * W, H)
        owner = block.text_index.flatten()
        owner = owner.where(owner >= 0, count)  # padding is one more text, the last
        places = owner[:, None].expand_as(scores)
        highest = scores.new_full((count + 1, scores.shape[1]), -torch.inf).scatter_reduce(0, places, scores, "amax")
        weights = (scores - highest.detach()[owner]).exp()  # (R * W, H)
        sums = tokens.new_zeros(count + 1, *self.query.shape).index_add(0, owner, pieces * weights[..., None])
        totals = weights.new_zeros(count + 1, weights.shape[1]).index_add(0, owner, weights)
        pooled: Tensor = sums[:count] / totals[:count, :, None]  # (B, H, D / H)
        return pooled.flatten(1)
