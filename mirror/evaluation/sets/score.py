"""The interface of all test sets: a set names its texts and pairs, and scores their vectors."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mirror.data.rows import Pair
from mirror.errors import MirrorError
from mirror.evaluation.resampling import Statistic, mean

Vectors = NDArray[np.float32]
Encode = Callable[[Sequence[str]], Vectors]
"""Texts to vectors, (N, D)."""


@dataclass
class Score:
    """The figures of one set, times 100, each by the name of its protocol."""

    name: str
    pairs: int
    protocols: dict[str, float]
    headline: str = "all"
    """The protocol that the field quotes."""
    parts: dict[str, float] = field(default_factory=dict)
    """The headline figure of each part of the set, such as a part of speech."""
    items: list[NDArray[np.float64]] = field(default_factory=list)
    """By seed, what each pair or query adds to the headline figure, (N, columns); ``statistic`` resamples it."""
    statistic: Statistic = mean
    """From the items to the headline figure."""
    seeds: list[float] = field(default_factory=list)
    """The headline figure of each seed, where there are several."""
    note: str = ""
    """What a reader must know to compare the figure, such as the number of candidates."""

    @property
    def value(self) -> float:
        """The figure by the headline protocol."""
        return self.protocols[self.headline]

    @property
    def deviation(self) -> float | None:
        """Standard deviation over the seeds, (n − 1) in the denominator; None for one seed."""
        return float(np.std(self.seeds, ddof=1)) if len(self.seeds) > 1 else None


def over_seeds(scores: Sequence[Score]) -> Score:
    """The mean of one set's scores over several seeds; a single score is itself."""
    if len(scores) == 1:
        return scores[0]
    first = scores[0]
    return Score(
        first.name,
        first.pairs,
        {key: float(np.mean([score.protocols[key] for score in scores])) for key in first.protocols},
        first.headline,
        {key: float(np.mean([score.parts[key] for score in scores])) for key in first.parts},
        [items for score in scores for items in score.items],
        first.statistic,
        [score.value for score in scores],
        first.note,
    )


class TestSet(Protocol):
    """A set of ``mirror.evaluation``: one file for each kind."""

    __test__: bool = False  # pytest takes the name for one of its own
    name: str

    def pairs(self) -> list[Pair]:
        """The pairs of texts that the set asks about."""

    def score_vectors(self, vectors: Mapping[str, Vectors]) -> Score:
        """Score the vectors of the texts."""

    def positives(self) -> list[Pair]:
        """The pairs that belong together: all of them, unless the set says otherwise."""
        return self.pairs()

    def texts(self) -> list[str]:
        """Every text, each once."""
        return list(dict.fromkeys([*(left for left, _ in self.pairs()), *(right for _, right in self.pairs())]))

    def score(self, encode: Encode) -> Score:
        """Encode the set's texts and score them."""
        texts = self.texts()
        return self.score_vectors(dict(zip(texts, encode(texts), strict=True)))

    def contrast(self, vectors: Mapping[str, Vectors]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Cosine similarities of the pairs that belong together, and of random pairs, always the same ones."""
        left, right = (unit(side, vectors, self.name) for side in zip(*self.pairs(), strict=True))
        drawn = np.random.default_rng(0).permutation(len(right))
        return cosines(self.positives(), vectors, self.name), (left * right[drawn]).sum(axis=1)


def cosines(pairs: Sequence[Pair], vectors: Mapping[str, Vectors], name: str) -> NDArray[np.float64]:
    """Cosine similarity of each pair, (N,).

    Raises:
        MirrorError: a vector is zero or not finite.
    """
    left, right = (unit(side, vectors, name) for side in zip(*pairs, strict=True))
    similarity: NDArray[np.float64] = (left * right).sum(axis=1)
    return similarity


def unit(texts: Sequence[str], vectors: Mapping[str, Vectors], name: str) -> NDArray[np.float64]:
    """Vectors of length 1, (N, D).

    Raises:
        MirrorError: a vector is zero or not finite.
    """
    stacked = np.stack([vectors[text] for text in texts]).astype(np.float64)
    lengths = np.linalg.norm(stacked, axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or (lengths == 0).any():
        raise MirrorError(f"The encoder gives vectors that are zero or not finite on {name}.")
    scaled: NDArray[np.float64] = stacked / lengths
    return scaled
