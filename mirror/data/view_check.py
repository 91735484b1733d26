"""A look at the augmentation before training: do the two views of a text differ at all?"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from mirror.config import AugConfig
from mirror.data.batches import BatchKey, MirroredPairs
from mirror.encoder.encoder import MirrorEncoder
from mirror.errors import MirrorError

EXAMPLES = 3
SAMPLE = 64
"""Pairs whose views are encoded."""
SAME = 1 - 1e-6
"""Mean cosine above which two views are the same vector, but for rounding."""


@dataclass
class ViewCheck:
    """What the first batch looks like."""

    examples: list[tuple[str, str]]
    masked: float
    """Share of texts with a masked view."""
    cosine: float
    """Mean cosine between the two views of a text, in training mode."""

    def __str__(self) -> str:
        pairs = "\n".join(f"    {left}\n    {right}\n" for left, right in self.examples)
        return (
            f"augmented pairs:\n{pairs}  {100 * self.masked:.1f} % of the texts have a masked span; "
            f"mean cosine between two views {self.cosine:.4f}"
        )

    def plain(self) -> dict[str, Any]:
        """For ``metrics.json``."""
        return {"examples": self.examples, "masked_share": self.masked, "view_cosine": self.cosine}


@torch.no_grad()
def check_views(pairs: MirroredPairs, encoder: MirrorEncoder, aug: AugConfig) -> ViewCheck:
    """Encode both views of some texts of the first batch, as training will.

    Raises:
        MirrorError: neither masking nor dropout nor given positives make the views differ.
    """
    key = BatchKey(epoch=0, step=0)
    texts = pairs.texts(key)
    left, right = pairs.views(key, texts)
    views = [(left[k] or one, right[k] or other) for k, (one, other) in enumerate(texts[:SAMPLE])]
    masked = sum(a is not None or b is not None for a, b in zip(left, right, strict=True)) / len(texts)
    tokens = encoder.tokenize([a for a, _ in views] + [b for _, b in views], pairs.batch.max_tokens)
    was_training = encoder.training
    encoder.train()
    vectors = encoder([block.to(encoder.device) for block in encoder.blocks(tokens)])  # (2S, D)
    encoder.train(was_training)
    a, b = vectors.float().chunk(2)
    cosine = float(F.cosine_similarity(a, b).mean())
    if not cosine < SAME:
        raise MirrorError(
            f"The two views of a text are the same (mean cosine {cosine:.6f}): aug.span_k={aug.span_k} masks "
            f"{100 * masked:.0f} % of the texts, aug.dropout={aug.dropout} and aug.drophead={aug.drophead}. "
            "Set aug.dropout=0.1 or aug=mirror."
        )
    differing = [view for view in views if view[0] != view[1]]
    return ViewCheck((differing or views)[:EXAMPLES], masked, cosine)
