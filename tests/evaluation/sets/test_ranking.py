"""Pair ranking against the definitions of its figures."""

import numpy as np
import pytest
from numpy.typing import NDArray

from mirror.evaluation.sets.ranking import RankingSet
from tests.evaluation.naive import Vectors, cosine


def test_ranking_by_the_definitions() -> None:
    rng = np.random.default_rng(0)
    labels: NDArray[np.float64] = rng.integers(0, 2, 50).astype(np.float64)
    test = RankingSet("made-up", [f"a{i}" for i in range(50)], [f"b{i}" for i in range(50)], labels)
    vectors: Vectors = {text: rng.normal(size=4).astype(np.float32) for text in test.texts()}
    vectors |= {f"{side}{i + 1}": vectors[f"{side}{i}"] for i in range(0, 20, 2) for side in "ab"}  # ties
    near = np.array([cosine(vectors, *pair) for pair in test.pairs()])
    right, wrong = near[test.labels == 1], near[test.labels == 0]
    auc = np.mean([(a > b) + (a == b) / 2 for a in right for b in wrong])
    precision, before = 0.0, 0.0
    for threshold in sorted(set(near), reverse=True):
        taken = test.labels[near >= threshold]
        precision += taken.mean() * (taken.sum() - before) / test.labels.sum()
        before = taken.sum()
    assert test.score_vectors(vectors).protocols == pytest.approx({"ap": 100 * precision, "auc": 100 * auc}, abs=1e-4)
    assert len(test.positives()) == int(test.labels.sum())
