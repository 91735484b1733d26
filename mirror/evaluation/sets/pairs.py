"""Pairs of texts with a gold score: what STS and word similarity have in common."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import scipy
from numpy.typing import NDArray

from mirror.data.rows import Pair
from mirror.errors import MirrorError
from mirror.evaluation.resampling import spearman
from mirror.evaluation.sets.score import Score, TestSet, Vectors, cosines

log = logging.getLogger(__name__)

TRUE_SHARE = 0.2
"""Of the pairs, those with the highest gold scores, that count as belonging together."""
FLAT = 1e-7
"""Spread of similarities, in the precision of float32, up to which they are all the same: their order is rounding."""


@dataclass
class PairSet(TestSet):
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
    note: str = ""
    """Which of several conventions the set follows."""
    parts: dict[str, NDArray[np.bool_]] = field(init=False, repr=False)
    """Which pairs belong to each part; empty where there is only one, or one has no correlation."""

    def __post_init__(self) -> None:
        """Refuse a set on which no correlation exists."""
        if len(self.gold) < 2:
            raise MirrorError(f"The set {self.name} has {len(self.gold)} pairs: a correlation needs at least two.")
        if len(np.unique(self.gold)) < 2:
            raise MirrorError(f"The set {self.name} gives every pair the same score: no correlation exists.")
        self.parts = {part: np.array(self.subsets) == part for part in dict.fromkeys(self.subsets)}
        flat = [part for part, chosen in self.parts.items() if len(np.unique(self.gold[chosen])) < 2]
        if flat:
            log.warning(
                "%s has no correlation in its part %s, with one score alone: no mean of parts is given.",
                self.name,
                ", ".join(flat),
            )
        if flat or len(self.parts) == 1:
            self.parts = {}

    def __len__(self) -> int:
        return len(self.gold)

    def pairs(self) -> list[Pair]:
        """All pairs."""
        return list(zip(self.left, self.right, strict=True))

    def positives(self) -> list[Pair]:
        """The pairs with the highest gold scores."""
        enough = np.quantile(self.gold, 1 - TRUE_SHARE)
        return [pair for pair, gold in zip(self.pairs(), self.gold, strict=True) if gold >= enough]

    def cosines(self, vectors: Mapping[str, Vectors]) -> NDArray[np.float64]:
        """Cosine similarity of each pair.

        Raises:
            MirrorError: a vector is zero or not finite.
        """
        return cosines(self.pairs(), vectors, self.name)

    def score_vectors(self, vectors: Mapping[str, Vectors]) -> Score:
        """Score vectors by all three protocols; a set of one part has only ``all``."""
        similarity = self.cosines(vectors)
        protocols = {"all": _spearman(similarity, self.gold, self.name)}
        parts = {
            part: _spearman(similarity[chosen], self.gold[chosen], f"{self.name}, part {part}")
            for part, chosen in self.parts.items()
        }
        if parts:
            protocols["mean"] = float(np.mean(list(parts.values())))
            protocols["wmean"] = float(np.average(list(parts.values()), weights=[c.sum() for c in self.parts.values()]))
        items = np.stack([similarity, self.gold], axis=1)
        return Score(self.name, len(self), protocols, parts=parts, items=[items], statistic=spearman, note=self.note)


def _spearman(cosines: NDArray[np.float64], gold: NDArray[np.float64], name: str) -> float:
    if np.ptp(cosines) <= FLAT:
        raise MirrorError(f"No correlation exists on {name}: the encoder gives every pair the same similarity.")
    return 100 * float(scipy.stats.spearmanr(cosines, gold).statistic)
