"""Pairs of texts with a gold score: what STS and word similarity have in common."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from mirror.errors import MirrorError
from mirror.evaluation.score import Encode, Score, Vectors, random_pairs, unit

TRUE_SHARE = 0.2
"""Of the pairs, those with the highest gold scores, that count as belonging together."""


@dataclass
class PairSet:
    """Pairs of texts, scored by Spearman's correlation of cosine similarity with the gold scores.

    Protocol ``all`` ranks the pairs of every subset together, as the field reports it; ``mean`` averages the subsets'
    correlations; ``wmean`` weighs them by their pairs.
    """

    name: str
    left: list[str]
    right: list[str]
    gold: NDArray[np.float64]
    subsets: list[str]
    """The part that each pair belongs to."""

    def __post_init__(self) -> None:
        """Refuse a set on which no correlation exists."""
        if len(self.gold) < 2:
            raise MirrorError(f"The set {self.name} has {len(self.gold)} pairs: a correlation needs at least two.")
        if len(np.unique(self.gold)) < 2:
            raise MirrorError(f"The set {self.name} gives every pair the same score: no correlation exists.")

    def __len__(self) -> int:
        return len(self.gold)

    def texts(self) -> list[str]:
        """Every text, each once."""
        return list(dict.fromkeys([*self.left, *self.right]))

    def cosines(self, vectors: Mapping[str, Vectors]) -> NDArray[np.float64]:
        """Cosine similarity of each pair.

        Raises:
            MirrorError: a vector is zero or not finite.
        """
        cosines: NDArray[np.float64] = (self._side(self.left, vectors) * self._side(self.right, vectors)).sum(axis=1)
        return cosines

    def contrast(self, vectors: Mapping[str, Vectors]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Cosine similarities of the pairs with the highest gold scores, and of random pairs."""
        true = self.gold >= np.quantile(self.gold, 1 - TRUE_SHARE)
        random = random_pairs(self._side(self.left, vectors), self._side(self.right, vectors))
        return self.cosines(vectors)[true], random

    def _side(self, texts: list[str], vectors: Mapping[str, Vectors]) -> NDArray[np.float64]:
        return unit(texts, vectors, self.name)

    def score(self, encode: Encode) -> Score:
        """Encode the set's texts and score them."""
        texts = self.texts()
        return self.score_vectors(dict(zip(texts, encode(texts), strict=True)))

    def score_vectors(self, vectors: Mapping[str, Vectors]) -> Score:
        """Score vectors by all three protocols; a set of one part has only ``all``."""
        cosines = self.cosines(vectors)
        protocols = {"all": _spearman(cosines, self.gold, self.name)}
        labels = np.array(self.subsets)
        names = list(dict.fromkeys(self.subsets))
        if len(names) > 1:
            parts = [labels == name for name in names]
            rho = [_spearman(cosines[part], self.gold[part], self.name) for part in parts]
            protocols["mean"] = float(np.mean(rho))
            protocols["wmean"] = float(np.average(rho, weights=[part.sum() for part in parts]))
        return Score(self.name, len(self), protocols)


def _spearman(cosines: NDArray[np.float64], gold: NDArray[np.float64], name: str) -> float:
    rho = float(spearmanr(cosines, gold).statistic)
    if not np.isfinite(rho):
        raise MirrorError(f"No correlation exists on {name}: the similarities or the gold scores are all equal.")
    return 100 * rho
