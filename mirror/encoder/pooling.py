"""Token vectors to text vectors; packed and padded blocks alike."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mirror.config import Pooling
from mirror.encoder.packing import TokenBlock

LAYERED = (Pooling.first_last, Pooling.last_two)
"""Poolings that need more than the last layer."""


def layer_weights(pooling: Pooling, layers: int) -> list[float]:
    """Weights of the layers' outputs in a layered pooling, first layer first; the embeddings take no part."""
    weights = [0.0] * layers
    for index in (0, -1) if pooling is Pooling.first_last else (-2, -1):
        weights[index] = 1.0
    return weights


def pool(states: Sequence[Tensor], block: TokenBlock, pooling: Pooling) -> Tensor:
    """Text vectors, (B, D), of a block.

    Args:
        states: outputs of the layers, each (R, W, D), the last one last; the last alone where not layered.
        block: says which token belongs to which text.
        pooling: how.
    """
    hidden = states[-1]  # (R, W, D)
    if pooling in LAYERED:
        weights = layer_weights(pooling, len(states))
        hidden = sum(w * state for w, state in zip(weights, states, strict=True) if w) / sum(weights)  # type: ignore[assignment]
    if pooling is Pooling.mean_padded:
        return hidden.mean(dim=1)
    flat = hidden.flatten(0, 1)  # (R * W, D)
    if pooling is Pooling.cls:
        return flat[block.cls_index]
    # Padding is one more text, the last: to pick the real tokens out, the program would wait for a GPU to count them.
    count, flat = len(block.texts), flat.float()
    owner = block.text_index.flatten()
    owner = owner.where(owner >= 0, count)
    if pooling is Pooling.max:
        lowest = flat.new_full((count + 1, flat.shape[1]), -torch.inf)
        return lowest.scatter_reduce(0, owner[:, None].expand_as(flat), flat, "amax")[:count]
    sums = flat.new_zeros(count + 1, flat.shape[1]).index_add(0, owner, flat)[:count]
    sizes = flat.new_zeros(count + 1).index_add(0, owner, flat.new_ones(len(owner)))[:count]
    return sums / sizes[:, None]
