"""Two versions of one Python function: the views of ContraCode."""

import ast
import logging
from collections.abc import Iterable
from random import Random
from typing import Annotated

from mirror.config import Rule
from mirror.data.rows import Pair
from mirror.data.views import rewrite
from mirror.data.views.base import Views
from mirror.errors import MirrorError

log = logging.getLogger(__name__)

Probability = Annotated[float, Rule(lambda p: 0 <= p <= 1, "from 0 to 1")]
FEWEST = 5
"""Lines of a function of which a sample is taken."""


class Code(Views):
    """Both sides are rewritten, each in its own way (Jain et al. 2021, ContraCode, arXiv 2007.04973; ``node_src/`` in
    parasj/contracode, which rewrites JavaScript).

    Each side draws which steps it takes. Whatever rewrites the syntax tree also reformats the source and loses its
    comments. The source still parses, unless lines were sampled: of five lines and more the first and the last stay,
    and each other one with the probability ``keep``. A text that Python cannot parse stays whole.

    Args:
        rename: probability that parameters and variables have other names (words drawn at random).
        insert: that a variable is set which nothing reads.
        remove: that code which never runs, or does nothing, is left out.
        fold: that sums and products of constants are computed.
        docstrings: that docstrings are dropped.
        reformat: that the source is laid out anew.
        comments: that comments are dropped, the layout staying as it is.
        lines: that lines are sampled.
        keep: share of the lines that stay.
    """

    def __init__(
        self,
        rename: Probability = 0.5,
        insert: Probability = 0.25,
        remove: Probability = 0.125,
        fold: Probability = 0.25,
        docstrings: Probability = 0.25,
        reformat: Probability = 0.5,
        comments: Probability = 0.25,
        lines: Probability = 0.5,
        keep: Annotated[float, Rule(lambda share: 0 < share < 1, "above 0 and below 1")] = 0.5,
    ) -> None:
        self.tree = {
            "rename": rename, "insert": insert, "remove": remove, "fold": fold, "docstrings": docstrings,
            "reformat": reformat,
        }  # fmt: skip
        self.comments, self.lines, self.keep = comments, lines, keep

    def __call__(self, pair: Pair, rng: Random) -> tuple[str, ...]:
        """Two versions."""
        return self.rewritten(pair[0], rng), self.rewritten(pair[1], rng)

    def rewritten(self, text: str, rng: Random) -> str:
        """A version of a text."""
        drawn = [name for name, probability in self.tree.items() if rng.random() < probability]
        comments, lines = rng.random() < self.comments, rng.random() < self.lines
        if drawn:
            text = self._rewritten(text, drawn, rng)
        elif comments:
            text = rewrite.without_comments(text)
        return self._sampled(text, rng) if lines else text

    def _rewritten(self, text: str, drawn: list[str], rng: Random) -> str:
        tree = rewrite.parsed(text)
        if tree is None:
            return text
        if "docstrings" in drawn:
            rewrite.drop_docstrings(tree)
        if "fold" in drawn:
            rewrite.fold(tree)
        if "remove" in drawn:
            rewrite.remove_dead(tree)
        if "rename" in drawn:
            rewrite.rename(tree, rng)
        if "insert" in drawn:
            rewrite.insert_dead(tree, rng)
        try:
            new = ast.unparse(ast.fix_missing_locations(tree))
        except (ValueError, RecursionError):  # strings within f-strings, deep nesting
            return text
        return text if rewrite.parsed(new) is None else new

    def _sampled(self, text: str, rng: Random) -> str:
        lines = text.split("\n")
        if len(lines) < FEWEST:
            return text
        inner = [line for line in lines[1:-1] if rng.random() < self.keep]
        return "\n".join([lines[0], *inner, lines[-1]])

    def unchangeable(self, pairs: Iterable[Pair]) -> int:
        """None: texts that are no Python are told here.

        Raises:
            MirrorError: all of them are.
        """
        good = [rewrite.parsed(left) is not None and rewrite.parsed(right) is not None for left, right in pairs]
        if not any(good):
            raise MirrorError(
                f"aug=code rewrites Python source, and none of the {len(good):,} texts is any: give a folder of Python "
                "files, data=python data.path=FOLDER, or set aug=none."
            )
        if not all(good):
            log.warning("%d of %d texts are no Python source and stay whole.", good.count(False), len(good))
        return 0

    def describe(self) -> str:
        """The probabilities."""
        chosen = {**self.tree, "comments": self.comments, "lines": self.lines}
        listed = ", ".join(f"{name} {probability:g}" for name, probability in chosen.items() if probability)
        return f"Python source rewritten ({listed or 'nothing'})"
