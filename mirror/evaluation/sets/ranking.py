"""Pair ranking: pairs that belong together (paraphrases, questions with their answers) above pairs that do not."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy
from numpy.typing import NDArray

from mirror.data.rows import Pair
from mirror.errors import MirrorError
from mirror.evaluation.resampling import average_precision
from mirror.evaluation.sets.files import number, read_table, text
from mirror.evaluation.sets.score import Score, TestSet, Vectors, cosines

COLUMNS = ("sentence1", "sentence2", "label")


@dataclass
class RankingSet(TestSet):
    """Pairs of texts, each with a 1 where they belong together and a 0 where they do not."""

    name: str
    left: list[str]
    right: list[str]
    labels: NDArray[np.float64]

    def __post_init__(self) -> None:
        """Refuse a set on which nothing can be ranked."""
        if not {*self.labels.tolist()} <= {0.0, 1.0}:
            raise MirrorError(f"The set {self.name} has a label that is neither 0 nor 1.")
        if len(np.unique(self.labels)) < 2:
            raise MirrorError(f"The set {self.name} needs pairs with the label 1 and pairs with the label 0.")

    def pairs(self) -> list[Pair]:
        """All pairs."""
        return list(zip(self.left, self.right, strict=True))

    def positives(self) -> list[Pair]:
        """The pairs with the label 1."""
        return [pair for pair, label in zip(self.pairs(), self.labels, strict=True) if label]

    def score_vectors(self, vectors: Mapping[str, Vectors]) -> Score:
        """Average precision, and the chance that a right pair stands above a wrong one (AUC), by cosine similarity."""
        similarity = cosines(self.pairs(), vectors, self.name)
        items = np.stack([similarity, self.labels], axis=1)
        precision = average_precision(items, np.ones((1, len(items))))[0]
        right, wrong = similarity[self.labels == 1], similarity[self.labels == 0]
        auc = scipy.stats.mannwhitneyu(right, wrong).statistic / (len(right) * len(wrong))
        figures = {"ap": 100 * float(precision), "auc": 100 * float(auc)}
        note = f"{100 * self.labels.mean():.0f} % of the pairs belong together: chance gives as much"
        return Score(self.name, len(items), figures, "ap", items=[items], statistic=average_precision, note=note)


def read(path: Path, name: str) -> RankingSet:
    """A file of labelled pairs.

    Raises:
        MirrorError: it is malformed.
    """
    left, right, labels = [], [], []
    for line, row in enumerate(read_table(path, COLUMNS), start=2):
        left.append(text(row, "sentence1", path, line))
        right.append(text(row, "sentence2", path, line))
        labels.append(number(row, "label", path, line))
    return RankingSet(name, left, right, np.array(labels))
