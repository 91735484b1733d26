"""Some tokens stand twice: the augmentation of ESimCSE."""

from collections.abc import Iterable
from random import Random
from typing import Annotated

from mirror.config import Rule
from mirror.data.rows import Pair
from mirror.data.views.base import Views
from mirror.encoder.layout import Layout


class Repetition(Views):
    """On the right side of each pair some tokens stand twice, so that a text's length no longer gives it away
    (Wu et al. 2022, ESimCSE, arXiv 2109.04380; ``ESimCSE/train.py`` in caskcsg/sentemb).

    Of a text of ``n`` tokens, special ones included, ``randrange(min(limit, floor(share * n)))`` are repeated, which
    may be none. They are drawn without replacement and are never the first, the last or a CLS or SEP token. As in the
    authors' code, repeating comes after cutting, so a view may be longer than ``batch.max_tokens``, but never longer
    than the model takes, or than the fixed width of ``batch.pad_to_max``.

    One deviation: the authors draw the repetitions once, before training; here each batch draws anew.

    Args:
        layout: of the encoder.
        share: bounds the number of repeated tokens by the length of the text.
        limit: bounds it for long texts: one less than this at most.
    """

    edits_tokens = True

    def __init__(
        self,
        layout: Layout,
        share: Annotated[float, Rule(lambda share: 0 < share < 1, "above 0 and below 1")] = 0.32,
        limit: Annotated[int, Rule(lambda n: 2 <= n <= 1000, "from 2 (one token) to 1000")] = 10,
    ) -> None:
        self.layout, self.share, self.limit = layout, share, limit
        self.longer = limit - 1
        self._special = {layout.tokenizer.cls_token_id, layout.tokenizer.sep_token_id}

    def __call__(self, pair: Pair, rng: Random) -> tuple[str, ...]:
        """The pair as it is: only its tokens change."""
        return pair

    def places(self, ids: list[int], view: int, rng: Random) -> list[int]:
        """The places of the right view's tokens, some of them twice."""
        bound = min(self.limit, int(self.share * len(ids)))
        if view == 0 or bound < 2:
            return list(range(len(ids)))
        inner = [place for place in range(1, len(ids) - 1) if ids[place] not in self._special]
        count = min(rng.randrange(bound), len(inner), max(0, self.layout.max_tokens - len(ids)))
        return sorted([*range(len(ids)), *rng.sample(inner, count)])

    def unchangeable(self, pairs: Iterable[Pair]) -> int:
        """Texts of so few tokens that none is ever repeated."""
        ids = self.layout.tokenize([right for _, right in pairs])["input_ids"]
        return sum(int(self.share * len(tokens)) < 2 for tokens in ids)

    def describe(self) -> str:
        """What is repeated."""
        return f"up to {self.limit - 1} tokens, fewer than {self.share:g} of a text's, stand twice in the right view"
