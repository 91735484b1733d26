"""What every test set has in common: it names its texts, and scores their vectors."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mirror.errors import MirrorError

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

    @property
    def value(self) -> float:
        """The figure by the headline protocol."""
        return self.protocols[self.headline]


class TestSet(Protocol):
    """A set of ``mirror.evaluation``."""

    name: str

    def texts(self) -> list[str]:
        """Every text, each once."""

    def score(self, encode: Encode) -> Score:
        """Encode the set's texts and score them."""

    def score_vectors(self, vectors: Mapping[str, Vectors]) -> Score:
        """Score the vectors of the texts."""

    def contrast(self, vectors: Mapping[str, Vectors]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Cosine similarities of pairs that belong together, and of random pairs."""


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


def random_pairs(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cosine similarities of each left vector with a right one drawn at random, always the same one, (N,)."""
    drawn = np.random.default_rng(0).permutation(len(right))
    cosines: NDArray[np.float64] = (left * right[drawn]).sum(axis=1)
    return cosines
