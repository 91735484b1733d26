"""Retrieval against a naive loop."""

import numpy as np
import pytest

from mirror import MirrorError
from mirror.evaluation.sets import load_sets
from mirror.evaluation.sets.retrieval import RetrievalSet
from tests.evaluation.naive import cosine
from tests.evaluation.sets.made_up import DOCUMENTS, QUERIES, D, N, vectors


def test_against_a_naive_loop() -> None:
    known = vectors(0.8)
    ranks = []
    for i, query in enumerate(QUERIES):
        order = sorted(range(N), key=lambda j: -cosine(known, query, DOCUMENTS[j]))
        ranks.append(order.index(i) + 1)
    score = RetrievalSet("x", QUERIES, DOCUMENTS).score_vectors(known)
    assert 1 < np.mean(ranks) < 20
    assert score.protocols == {
        "mrr": pytest.approx(100 * np.mean([1 / rank for rank in ranks])),
        "recall@1": pytest.approx(100 * np.mean([rank == 1 for rank in ranks])),
        "recall@10": pytest.approx(100 * np.mean([rank <= 10 for rank in ranks])),
    }
    assert score.value == score.protocols["mrr"]
    assert score.pairs == N


def test_equal_vectors_find_nothing() -> None:
    same = {text: np.ones(D, dtype=np.float32) for text in (*QUERIES, *DOCUMENTS)}
    assert RetrievalSet("x", QUERIES, DOCUMENTS).score_vectors(same).value == pytest.approx(100 / N)


def test_perfect_vectors_find_everything() -> None:
    assert RetrievalSet("x", QUERIES, DOCUMENTS).score_vectors(vectors(0.0)).protocols["recall@1"] == 100


def test_zero_vector_is_told() -> None:
    known = vectors(0.1)
    known["d3"] = np.zeros(D, dtype=np.float32)
    with pytest.raises(MirrorError, match="zero or not finite"):
        RetrievalSet("x", QUERIES, DOCUMENTS).score_vectors(known)


def test_two_right_answers_are_refused() -> None:
    with pytest.raises(MirrorError, match="two right answers"):
        RetrievalSet("x", ["a", "b"], ["same", "same"])
    with pytest.raises(MirrorError, match="two right answers"):
        RetrievalSet("x", ["same", "same"], ["a", "b"])


def test_pydocs_is_a_set_like_the_others() -> None:
    (found,) = load_sets(["pydocs"], None)
    assert len(found.texts()) == 2000
