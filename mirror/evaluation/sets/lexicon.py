"""Bilingual lexicon induction: for each word, its translation among the other language's words of the set."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mirror.data.rows import Pair
from mirror.errors import MirrorError
from mirror.evaluation.sets.files import read_table, text
from mirror.evaluation.sets.score import Score, TestSet, Vectors, unit

COLUMNS = ("source", "target")
NEIGHBOURS = 10
"""Of CSLS (Conneau et al. 2018, section 2.3)."""


@dataclass
class LexiconSet(TestSet):
    """Words with their translations; a word may have several, and any of them is right."""

    name: str
    translations: list[Pair]

    def __post_init__(self) -> None:
        """Refuse a set on which nothing can be found."""
        self.sources = list(dict.fromkeys(source for source, _ in self.translations))
        self.targets = list(dict.fromkeys(target for _, target in self.translations))
        if len(self.targets) < 2:
            raise MirrorError(f"The set {self.name} needs at least two different target words to choose among.")

    def pairs(self) -> list[Pair]:
        """Each word with each of its translations."""
        return self.translations

    def score_vectors(self, vectors: Mapping[str, Vectors]) -> Score:
        """Accuracy of the nearest target word and mean reciprocal rank, by cosine similarity and by CSLS.

        Of equally near words the right one counts as the last, so that equal vectors find nothing.
        """
        sources, targets = unit(self.sources, vectors, self.name), unit(self.targets, vectors, self.name)
        cosines = sources @ targets.T  # (S, T)
        row, column = ({word: i for i, word in enumerate(words)} for words in (self.sources, self.targets))
        right = np.zeros(cosines.shape, dtype=bool)
        for source, target in self.translations:
            right[row[source], column[target]] = True
        ranks = best_rank(cosines, right)
        scaled = best_rank(csls(cosines), right)
        figures = {
            "acc@1": (ranks == 1).mean(), "mrr": (1 / ranks).mean(),
            "csls acc@1": (scaled == 1).mean(), "csls mrr": (1 / scaled).mean(),
        }  # fmt: skip
        return Score(
            self.name,
            len(self.sources),
            {name: 100 * float(value) for name, value in figures.items()},
            "acc@1",
            items=[(ranks == 1).astype(np.float64)[:, None]],
            note=f"among the {len(self.targets):,} target words of the set",
        )


def csls(cosines: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cosines less the hubness of both sides: 2 cos(x, y) − r(x) − r(y), r the mean of the nearest ones, (S, T)."""
    near = [np.sort(cosines, axis=axis) for axis in (1, 0)]
    of_source = near[0][:, -NEIGHBOURS:].mean(axis=1, keepdims=True)
    of_target = near[1][-NEIGHBOURS:].mean(axis=0, keepdims=True)
    scaled: NDArray[np.float64] = 2 * cosines - of_source - of_target
    return scaled


def best_rank(similarity: NDArray[np.float64], right: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Rank of the first right candidate of each row, from 1; wrong ones that are as similar stand before it."""
    best = np.where(right, similarity, -np.inf).max(axis=1, keepdims=True)
    ranks: NDArray[np.int64] = 1 + ((similarity >= best) & ~right).sum(axis=1)
    return ranks


def read(path: Path, name: str) -> LexiconSet:
    """A file of translations.

    Raises:
        MirrorError: it is malformed.
    """
    rows = enumerate(read_table(path, COLUMNS), start=2)
    pairs = [(text(row, "source", path, line), text(row, "target", path, line)) for line, row in rows]
    return LexiconSet(name, list(dict.fromkeys(pairs)))
