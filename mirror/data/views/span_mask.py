"""A run of the text gives way to the mask token: Mirror-BERT's own augmentation."""

import re
from random import Random
from typing import Annotated

from mirror.config import Rule, SpanUnit
from mirror.data.rows import Pair
from mirror.data.views.base import Views
from mirror.encoder.layout import Layout, Span
from mirror.errors import MirrorError


class SpanMask(Views):
    """One random side of each pair loses a random run of the raw string to the mask token (paper, section 2.1).

    Args:
        layout: of the encoder; its tokenizer has the mask token.
        span_k: length of the run in ``unit``s; 0 leaves every text whole.
        unit: what is counted; the paper masks characters.
        min_chars: shorter texts are left whole (30 in the authors' code).
        literal_mask: insert the string [MASK] whatever the mask token is. This and the following are quirks of the
            authors' code, each a switch for ablations; see ``conf/aug/official.yaml``.
        spaced_mask: put a space on either side of the mask.
        first_match: mask the first occurrence of the drawn characters, not the drawn place.
        spare_last: never mask the last unit.

    Raises:
        MirrorError: the tokenizer has no mask token.
    """

    def __init__(
        self,
        layout: Layout,
        span_k: Annotated[int, Rule(lambda k: 0 <= k <= 1000, "from 0 (off) to 1000")] = 5,
        unit: SpanUnit = SpanUnit.character,
        min_chars: Annotated[int, Rule(lambda n: n >= 0, "0 or more")] = 30,
        literal_mask: bool = False,
        spaced_mask: bool = False,
        first_match: bool = False,
        spare_last: bool = False,
    ) -> None:
        if span_k and layout.tokenizer.mask_token is None and not literal_mask:
            raise MirrorError(f"aug.span_k={span_k}: the tokenizer of {layout.name} has no mask token; set aug=none.")
        self.layout, self.span_k, self.unit, self.min_chars = layout, span_k, unit, min_chars
        self.first_match, self.spare_last = first_match, spare_last
        mask = "[MASK]" if literal_mask else layout.tokenizer.mask_token or ""
        self.mask = f" {mask} " if spaced_mask else mask

    def __call__(self, pair: Pair, rng: Random) -> tuple[str, ...]:
        """The pair with one side masked."""
        side = rng.randrange(2)
        masked = self.masked(pair[side], rng)
        return (masked, pair[1]) if side == 0 else (pair[0], masked)

    def masked(self, text: str, rng: Random) -> str:
        """The text with a run masked; itself where it is shorter than ``min_chars`` or no longer than the run."""
        k = self.span_k
        if k == 0 or len(text) < self.min_chars:
            return text
        spans = self._units(text)
        if len(spans) <= k:
            return text
        first = rng.randrange(len(spans) - k + (0 if self.spare_last else 1))
        start, end = spans[first][0], spans[first + k - 1][1]
        if self.first_match:
            length, start = end - start, text.index(text[start:end])
            end = start + length
        return text[:start] + self.mask + text[end:]

    def _units(self, text: str) -> list[Span]:
        match self.unit:
            case SpanUnit.character:
                return [(i, i + 1) for i in range(len(text))]
            case SpanUnit.token:
                return self.layout.token_spans(text)
            case SpanUnit.word:
                return [match.span() for match in re.finditer(r"\S+", text)]

    def describe(self) -> str:
        """What is masked."""
        if self.span_k == 0:
            return "no input augmentation"
        return f"{self.span_k} {self.unit.value}s masked in one of the views"
