"""How the vectors fill their space."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from random import Random

import numpy as np

from mirror.data.rows import Pair
from mirror.evaluation.sets.score import TestSet, Vectors, unit

PAIRS = 1000
"""Most positive pairs measured: more hardly change the figures."""


@dataclass
class Geometry:
    """Four figures of the vectors of one encoder, all on the unit sphere."""

    alignment: float
    """Mean squared distance of pairs that belong together, from 0 (Wang and Isola 2020, section 4.1)."""
    uniformity: float
    """Logarithm of the mean of exp(−2 d²) over all pairs, d their distance, at most 0; lower is more even (ibid.)."""
    anisotropy: float
    """Mean cosine similarity of two different texts (Ethayarajh 2019); 0 is none."""
    effective_rank: float
    """Exponential of the entropy of the singular values, at most D (Roy and Vetterli 2007)."""

    def plain(self) -> dict[str, float]:
        """For JSON."""
        return asdict(self)


def sample(sets: Sequence[TestSet], count: int = PAIRS) -> list[Pair]:
    """Pairs that belong together, from all sets, always the same ones; equal texts are left out."""
    pairs = list(dict.fromkeys(pair for test in sets for pair in test.positives() if pair[0] != pair[1]))
    return pairs if len(pairs) <= count else Random(0).sample(pairs, count)


def geometry(vectors: Mapping[str, Vectors], pairs: Sequence[Pair]) -> Geometry:
    """The geometry of the texts of these pairs.

    Raises:
        MirrorError: a vector is zero or not finite.
    """
    left, right = (unit(side, vectors, "the geometry's sample") for side in zip(*pairs, strict=True))
    texts = list(dict.fromkeys(text for pair in pairs for text in pair))
    space = unit(texts, vectors, "the geometry's sample")  # (N, D)
    cosines = (space @ space.T)[np.triu_indices(len(space), k=1)]  # (N (N − 1) / 2,)
    strength = np.linalg.svd(space, compute_uv=False)
    share = strength[strength > 0] / strength.sum()
    return Geometry(
        alignment=float(((left - right) ** 2).sum(axis=1).mean()),
        uniformity=float(np.log(np.exp(-2 * (2 - 2 * cosines)).mean())),
        anisotropy=float(cosines.mean()),
        effective_rank=float(np.exp(-(share * np.log(share)).sum())),
    )
