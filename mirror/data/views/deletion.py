"""Some words are missing: the noise of TSDAE."""

from collections.abc import Iterable
from random import Random
from typing import Annotated

from mirror.config import Rule
from mirror.data.rows import Pair
from mirror.data.views.base import Views


class Deletion(Views):
    """The right side of each pair loses words (Wang, Reimers and Gurevych 2021, TSDAE, arXiv 2104.06979).

    Each word goes with probability ``share``, whatever becomes of the others; where all would go, a random one stays.
    Words are what white space separates; the kept ones are joined by single spaces.

    Args:
        share: probability that a word is deleted; 0.6 is the paper's. The scripts of sentence-transformers keep 60 %.
    """

    def __init__(self, share: Annotated[float, Rule(lambda share: 0 < share < 1, "above 0 and below 1")] = 0.6) -> None:
        self.share = share

    def __call__(self, pair: Pair, rng: Random) -> tuple[str, ...]:
        """The pair, with fewer words on the right."""
        words = pair[1].split()
        if len(words) < 2:
            return pair
        kept = [word for word in words if rng.random() >= self.share] or [rng.choice(words)]
        return pair[0], " ".join(kept)

    def unchangeable(self, pairs: Iterable[Pair]) -> int:
        """Texts of one word."""
        return sum(len(right.split()) < 2 for _, right in pairs)

    def describe(self) -> str:
        """What is deleted."""
        return f"{100 * self.share:g} % of the words deleted in the right view"
