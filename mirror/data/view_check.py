"""A look at the augmentation before training: do the two views of a text differ at all?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from mirror.data.batches import BatchKey, MirroredPairs
from mirror.encoder.encoder import MirrorEncoder
from mirror.encoder.perturb import Perturbation
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
    changed: float
    """Share of texts with a view that differs from the text."""
    cosine: float
    """Mean cosine between the two views of a text, in training mode."""

    def __str__(self) -> str:
        pairs = "\n".join(f"    {left}\n    {right}\n" for left, right in self.examples)
        if not self.changed:
            return (
                "the views change no text: only dropout tells the two sides of a pair apart; "
                f"mean cosine between two views {self.cosine:.4f}"
            )
        return (
            f"augmented pairs:\n{pairs}  {100 * self.changed:.1f} % of the texts have a changed view; "
            f"mean cosine between two views {self.cosine:.4f}"
        )

    def plain(self) -> dict[str, Any]:
        """For ``metrics.json``."""
        return {"examples": self.examples, "masked_share": self.changed, "view_cosine": self.cosine}


@torch.no_grad()
def check_views(
    pairs: MirroredPairs, encoder: MirrorEncoder, perturbations: Sequence[Perturbation], *, equal: bool = False
) -> ViewCheck:
    """Encode the first two views of some texts of the first batch, as training will.

    Raises:
        MirrorError: neither the view maker nor a perturbation nor given positives make the views differ, and they may
            not be ``equal``.
    """
    key = BatchKey(epoch=0, step=0)
    texts = pairs.texts(key)
    drawn = pairs.draw(key, texts)
    left, right = (side[:SAMPLE] for side in drawn[:2])
    tokens = pairs.tokenize([left, right])
    tokens, placed = pairs.place(tokens, key, 2)
    altered = {
        i
        for i, (pair, views) in enumerate(zip(texts, zip(*drawn, strict=True), strict=True))
        if any(view != pair[min(number, 1)] for number, view in enumerate(views))
    }
    shown = len(texts)
    if pairs.views.edits_tokens or pairs.views.templates:  # only the tokens of these were looked at
        shown = len(left)
        altered = {i for i in altered if i < shown} | {i % shown for i in placed}
        altered |= set(range(shown)) if pairs.views.templates else set()
        decoded = [encoder.tokenizer.decode(ids, skip_special_tokens=True) for ids in tokens["input_ids"]]
        left, right = decoded[:shown], decoded[shown:]
    changed = len(altered) / shown
    with encoder.perturbed(perturbations):
        blocks = pairs.blocks(tokens, range(len(tokens["input_ids"])), len(tokens["input_ids"]) // 2)
        vectors = encoder([block.to(encoder.device) for block in blocks])  # (2S, D)
    a, b = vectors.float().chunk(2)
    cosine = float(F.cosine_similarity(a, b).mean())
    if not (equal or cosine < SAME):
        raise MirrorError(
            f"The two views of a text are the same (mean cosine {cosine:.6f}): aug= changes {100 * changed:.0f} % of "
            f"the texts ({pairs.views.describe()}), and no dropout or drophead makes their vectors differ. Set "
            "aug.dropout=0.1 or aug=mirror."
        )
    differing = [(a, b) for a, b in zip(left, right, strict=True) if a != b]
    return ViewCheck((differing or list(zip(left, right, strict=True)))[:EXAMPLES], changed, cosine)
