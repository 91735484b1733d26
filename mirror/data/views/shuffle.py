"""The words stand in another order."""

from collections.abc import Iterable
from random import Random

from mirror.data.rows import Pair
from mirror.data.views.base import Views


class Shuffle(Views):
    """The words of each pair's right side are shuffled. Every order is as likely as any other, the first one too.

    Words are what white space separates; they are joined by single spaces.
    """

    def __call__(self, pair: Pair, rng: Random) -> tuple[str, ...]:
        """The pair, with the right side's words in a random order."""
        words = pair[1].split()
        if len(words) < 2:
            return pair
        rng.shuffle(words)
        return pair[0], " ".join(words)

    def unchangeable(self, pairs: Iterable[Pair]) -> int:
        """Texts of one word."""
        return sum(len(right.split()) < 2 for _, right in pairs)

    def describe(self) -> str:
        """What is shuffled."""
        return "words shuffled in the right view"
