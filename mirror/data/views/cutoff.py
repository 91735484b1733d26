"""Parts of the embeddings are 0, or stand at each other's positions: the augmentations of ConSERT."""

from collections.abc import Iterable
from random import Random
from typing import Annotated

from mirror.config import EmbeddingChange, Rule
from mirror.data.rows import Pair
from mirror.data.views.base import Views
from mirror.encoder.layout import Layout
from mirror.encoder.perturb import EmbeddingCutoff, Perturbation


class Cutoff(Views):
    """Each side's embeddings are changed in their own way (Yan et al. 2021, ConSERT, arXiv 2105.11741;
    ``transformers/modeling_bert.py`` in yym6472/ConSERT).

    The authors shuffle position ids. Here the tokens are shuffled, special ones too, which is the same to a network
    that knows the order by positions alone.

    Args:
        layout: of the encoder.
        left: what is changed in view 0.
        right: what is changed in view 1.
        share: of the features or tokens that are 0, rounded down.
    """

    def __init__(
        self,
        layout: Layout,
        left: EmbeddingChange = EmbeddingChange.feature,
        right: EmbeddingChange = EmbeddingChange.shuffle,
        share: Annotated[float, Rule(lambda share: 0 < share < 1, "above 0 and below 1")] = 0.2,
    ) -> None:
        self.layout, self.changes, self.share = layout, (left, right), share
        self.edits_tokens = EmbeddingChange.shuffle in self.changes
        tokenizer = layout.tokenizer
        # Without a CLS token of its own, a text's first token is taken for it.
        self._fixed = 1 if tokenizer.cls_token_id in (None, tokenizer.sep_token_id) else 0

    def __call__(self, pair: Pair, rng: Random) -> tuple[str, ...]:
        """The pair as it is: only its embeddings change."""
        return pair

    def places(self, ids: list[int], view: int, rng: Random) -> list[int]:
        """All places, in a random order where this side is shuffled."""
        if self.changes[view] is not EmbeddingChange.shuffle:
            return list(range(len(ids)))
        moved = range(self._fixed, len(ids))
        return [*range(self._fixed), *rng.sample(moved, len(moved))]

    def perturbations(self) -> list[Perturbation]:
        """What makes parts of the embeddings 0."""
        rates = {
            kind: [self.share if change is kind else 0.0 for change in self.changes]
            for kind in (EmbeddingChange.feature, EmbeddingChange.token)
        }
        if not any(map(any, rates.values())):
            return []
        return [EmbeddingCutoff(rates[EmbeddingChange.feature], rates[EmbeddingChange.token])]

    def unchangeable(self, pairs: Iterable[Pair]) -> int:
        """Texts of so few tokens that none is ever cut, where nothing else is changed."""
        if not {*self.changes} <= {EmbeddingChange.token, EmbeddingChange.none}:
            return 0
        ids = self.layout.tokenize([text for pair in pairs for text in pair])["input_ids"]
        whole = [int(self.share * len(tokens)) == 0 for tokens in ids]
        sides = [side for side, change in enumerate(self.changes) if change is EmbeddingChange.token]
        return sum(all(both[side] for side in sides) for both in zip(whole[::2], whole[1::2], strict=True))

    def describe(self) -> str:
        """What is changed on either side."""
        words = {
            EmbeddingChange.none: "nothing changed",
            EmbeddingChange.feature: f"{100 * self.share:g} % of the embeddings' features cut",
            EmbeddingChange.token: f"{100 * self.share:g} % of the tokens' embeddings cut",
            EmbeddingChange.shuffle: "positions shuffled",
        }
        left, right = (words[change] for change in self.changes)
        return f"{left} in the left view, {right} in the right view"
