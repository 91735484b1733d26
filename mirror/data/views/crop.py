"""Two passages of one document."""

import re
from collections.abc import Iterable
from random import Random
from typing import Annotated

from mirror.config import Rule
from mirror.data.rows import Pair
from mirror.data.views.base import Views, one_text
from mirror.errors import MirrorError

SENTENCE = re.compile(r"\S.*?[.!?](?=\s|$)|\S.*$")
"""Ends with a full stop, an exclamation or question mark before white space, or with the text."""


class Crop(Views):
    """The two views are two different windows of a few consecutive sentences of one document (González-Márquez et al.
    2025, arXiv 2508.03453; ``text_embeddings_src/data_stuff.py`` in berenslab/text-embed-augm).

    Sentences shorter than ``min_chars`` or longer than ``max_chars`` are passed over, and a window is ``sentences`` of
    the others in a row. Two windows may overlap, but do not start at the same sentence. A text with fewer than two
    windows stays whole in both views. Set ``batch.max_tokens`` so that a window fits.

    One deviation: the authors end a sentence at every full stop, in numbers and abbreviations too.

    Args:
        sentences: in a window.
        min_chars: of a sentence.
        max_chars: of a sentence.

    Raises:
        MirrorError: ``min_chars`` is above ``max_chars``.
    """

    def __init__(
        self,
        sentences: Annotated[int, Rule(lambda n: 1 <= n <= 100, "from 1 to 100")] = 2,
        min_chars: Annotated[int, Rule(lambda n: n >= 1, "at least 1")] = 100,
        max_chars: Annotated[int, Rule(lambda n: n >= 1, "at least 1")] = 250,
    ) -> None:
        if min_chars > max_chars:
            raise MirrorError(f"aug.min_chars={min_chars} is above aug.max_chars={max_chars}: lower it.")
        self.sentences, self.min_chars, self.max_chars = sentences, min_chars, max_chars

    def __call__(self, pair: Pair, rng: Random) -> tuple[str, ...]:
        """Two windows of the text, in random order."""
        windows = self.windows(pair)
        if len(windows) < 2:
            return pair
        left, right = rng.sample(windows, 2)
        return left, right

    def windows(self, pair: Pair) -> list[str]:
        """All windows of a text.

        Raises:
            MirrorError: the pair's texts are different ones.
        """
        found = [match.group() for match in SENTENCE.finditer(one_text(pair, "crop"))]
        fitting = [text for text in found if self.min_chars <= len(text) <= self.max_chars]
        return [" ".join(fitting[i : i + self.sentences]) for i in range(len(fitting) - self.sentences + 1)]

    def unchangeable(self, pairs: Iterable[Pair]) -> int:
        """Texts with fewer than two windows."""
        return sum(len(self.windows(pair)) < 2 for pair in pairs)

    def describe(self) -> str:
        """What is cut out."""
        count = "1 sentence" if self.sentences == 1 else f"{self.sentences} sentences"
        return f"two windows of {count} of {self.min_chars} to {self.max_chars} characters"
