"""Pairs of texts with a gold score: what STS and word similarity have in common."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from mirror.errors import MirrorError

Vectors = NDArray[np.float32]
Encode = Callable[[Sequence[str]], Vectors]
"""Texts to vectors, (N, D)."""


@dataclass
class Score:
    """Spearman's correlation of cosine similarity with the gold scores, times 100, by each protocol.

    ``all`` ranks the pairs of every subset together, as the field reports it; ``mean`` averages the subsets'
    correlations; ``wmean`` weighs them by their pairs.
    """

    name: str
    pairs: int
    protocols: dict[str, float]

    @property
    def value(self) -> float:
        """The figure the field quotes: protocol ``all``."""
        return self.protocols["all"]


@dataclass
class PairSet:
    """One test set."""

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
        a, b = (np.stack([vectors[text] for text in side]).astype(np.float64) for side in (self.left, self.right))
        lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        if not np.isfinite(lengths).all() or (lengths == 0).any():
            raise MirrorError(f"The encoder gives vectors that are zero or not finite on {self.name}.")
        cosines: NDArray[np.float64] = (a * b).sum(axis=1) / lengths
        return cosines

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
