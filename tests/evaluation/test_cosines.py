"""Histograms of cosine similarities."""

import numpy as np
import pytest

from mirror.evaluation.cosines import EDGES, histograms
from mirror.evaluation.sets.pairs import PairSet
from mirror.evaluation.sets.retrieval import RetrievalSet
from tests.evaluation.naive import cosine
from tests.evaluation.sets.made_up import DOCUMENTS, QUERIES, N, vectors


def test_histograms_count_every_pair() -> None:
    known = vectors(0.3)
    pairs = PairSet("gold", QUERIES, DOCUMENTS, np.arange(N, dtype=np.float64), ["all"] * N)
    counts = histograms(known, [RetrievalSet("x", QUERIES, DOCUMENTS), pairs])
    assert {kind: sum(values) for kind, values in counts["x"].items()} == {"true": N, "random": N}
    assert {kind: sum(values) for kind, values in counts["gold"].items()} == {"true": N // 5, "random": N}
    middles = (EDGES[1:] + EDGES[:-1]) / 2
    true, random = (np.average(middles, weights=counts["x"][kind]) for kind in ("true", "random"))
    exact = np.mean([cosine(known, q, d) for q, d in zip(QUERIES, DOCUMENTS, strict=True)])
    assert true == pytest.approx(exact, abs=0.01)
    assert true > random + 0.5
