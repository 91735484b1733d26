"""The definitions again, by loops, and vectors to try them on."""

import numpy as np
from numpy.typing import NDArray

from mirror.evaluation.sets import TestSet

Vectors = dict[str, NDArray[np.float32]]
Floats = NDArray[np.float64]


def vectors_of(test: TestSet, seed: int = 0) -> Vectors:
    """Random vectors of a few dimensions, coarse enough for ties."""
    rng = np.random.default_rng(seed)
    return {text: rng.integers(-2, 3, 3).astype(np.float32) + np.float32(0.5) for text in test.texts()}


def cosine(vectors: Vectors, a: str, b: str) -> float:
    x, y = vectors[a].astype(float), vectors[b].astype(float)
    return float(round(x @ y / (np.linalg.norm(x) * np.linalg.norm(y)), 9))


def naive_rank(similarity: dict[str, float], right: set[str]) -> int:
    best = max((similarity[one] for one in right), default=-np.inf)
    return 1 + sum(value >= best for one, value in similarity.items() if one not in right)


def items_of(n: int = 40, noise: float = 1.0, seed: int = 0) -> Floats:
    """Similarities and gold scores, both with ties."""
    rng = np.random.default_rng(seed)
    gold = rng.integers(0, 6, n).astype(float)
    return np.stack([(gold + noise * rng.normal(size=n)).round(1), gold], axis=1)
