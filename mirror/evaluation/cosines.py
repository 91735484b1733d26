"""Histograms of the cosine similarities of positive and of random pairs."""

from collections.abc import Mapping, Sequence

import numpy as np

from mirror.evaluation.sets.score import TestSet, Vectors

EDGES = np.linspace(-1, 1, 101)
"""Edges of the bins."""
Histograms = Mapping[str, Mapping[str, list[int]]]
"""For each set, the counts of ``true`` and ``random`` pairs."""


def histograms(vectors: Mapping[str, Vectors], sets: Sequence[TestSet]) -> dict[str, dict[str, list[int]]]:
    """For each set, how many ``true`` and ``random`` pairs have their cosine similarity in each bin of ``EDGES``."""
    counts: dict[str, dict[str, list[int]]] = {}
    for pairs in sets:
        true, random = (np.clip(cosines, -1, 1) for cosines in pairs.contrast(vectors))
        counts[pairs.name] = {
            "true": np.histogram(true, EDGES)[0].tolist(),
            "random": np.histogram(random, EDGES)[0].tolist(),
        }
    return counts
