"""Two spans of one document that lie side by side or overlap: the views of DeCLUTR."""

from collections.abc import Iterable
from random import Random
from typing import Annotated

from mirror.config import Positive, Rule
from mirror.data.rows import Pair
from mirror.data.views.base import Views, one_text
from mirror.errors import MirrorError

Length = Annotated[int, Rule(lambda words: words >= 1, "at least 1")]


class Spans(Views):
    """The left view is a long span of words of a document, the anchor, the right one a short span that touches it, the
    positive (Giorgi et al. 2021, DeCLUTR, arXiv 2006.03659; ``declutr/common/contrastive_utils.py`` in
    JohnGiorgi/DeCLUTR).

    The lengths are ``min_words`` + b (``max_words`` - ``min_words``), rounded down, with b drawn from Beta(4, 2) for
    the anchor and from Beta(2, 4) for the positive. The anchor lies within a random one of the document's pieces of
    ``max_words`` words. A document of fewer than two such pieces stays whole in both views; the authors refuse it.

    Two deviations: one anchor of a document with one positive (the published settings are two, with two positives each
    whose vectors are averaged), and an adjacent positive may also begin the document.

    Args:
        max_tokens: of a view; what is longer is cut, as in the authors' code.
        min_words: of a span.
        max_words: of a span.
        positive: where the positive lies.

    Raises:
        MirrorError: ``min_words`` is above ``max_words``, or ``max_words`` above ``max_tokens``.
    """

    def __init__(
        self, max_tokens: int, min_words: Length = 32, max_words: Length = 512, positive: Positive = Positive.any
    ) -> None:
        if min_words > max_words:
            raise MirrorError(f"aug.min_words={min_words} is above aug.max_words={max_words}: lower it.")
        if max_words > max_tokens:
            raise MirrorError(
                f"aug.max_words={max_words} is more than batch.max_tokens={max_tokens}, at which spans are cut: lower "
                "the one or raise the other."
            )
        self.min_words, self.max_words, self.positive = min_words, max_words, positive

    def __call__(self, pair: Pair, rng: Random) -> tuple[str, ...]:
        """The anchor and the positive."""
        words = one_text(pair, "spans").split()
        if len(words) < 2 * self.max_words:
            return pair
        piece = rng.randrange(len(words) // self.max_words) * self.max_words
        length = self._length(rng, 4, 2, self.max_words)
        start = piece + rng.randint(0, self.max_words - length)
        end = start + length
        first, last = self._beside(rng, start, end, len(words))
        return " ".join(words[start:end]), " ".join(words[first:last])

    def _beside(self, rng: Random, start: int, end: int, words: int) -> tuple[int, int]:
        """A positive of the anchor from ``start`` to ``end``, in a document of so many words."""
        match self.positive:
            case Positive.any:
                length = self._length(rng, 2, 4, self.max_words)
                first = rng.randint(max(0, start - length), min(end, words - length))
            case Positive.subsumed:
                length = self._length(rng, 2, 4, end - start)
                first = rng.randint(start, end - length)
            case Positive.adjacent:
                room = min(self.max_words, max(start, words - end))
                length = min(room, self._length(rng, 2, 4, max(room, self.min_words)))
                first = rng.choice([at for at in (start - length, end) if 0 <= at <= words - length])
        return first, first + length

    def _length(self, rng: Random, alpha: float, beta: float, most: int) -> int:
        return int(rng.betavariate(alpha, beta) * (most - self.min_words) + self.min_words)

    def unchangeable(self, pairs: Iterable[Pair]) -> int:
        """Documents with fewer words than two of the longest spans."""
        return sum(len(one_text(pair, "spans").split()) < 2 * self.max_words for pair in pairs)

    def describe(self) -> str:
        """What is cut out."""
        where = "touching" if self.positive is Positive.any else self.positive.value
        return f"two {where} spans of {self.min_words} to {self.max_words} words"
