"""Entity linking against naive loops."""

import numpy as np
import pytest

from tests.evaluation.naive import cosine, naive_rank
from tests.evaluation.sets.made_up import linking


def test_linking_by_naive_loops() -> None:
    test = linking()
    rng = np.random.default_rng(0)
    vectors = {text: rng.normal(size=4).astype(np.float32) for text in test.texts()}
    for i in range(8):
        vectors[f"mention {i}"] += vectors[f"name {i + 12}"]
    vectors["both"] = vectors["name 2"]
    ranks = []
    for mention, concepts in zip(test.mentions, test.concepts, strict=True):
        right = {name for name, ids in test.dictionary.items() if ids & concepts}
        near = {name: cosine(vectors, mention, name) for name in test.dictionary}
        ranks.append(naive_rank(near, right) if right else 10**6)
    score = test.score_vectors(vectors)
    expected = {"acc@1": 100 * np.mean([r <= 1 for r in ranks]), "acc@5": 100 * np.mean([r <= 5 for r in ranks])}
    assert score.protocols == pytest.approx(expected)
    assert 0 < score.value < score.protocols["acc@5"] < 100
    assert any(rank == 10**6 for rank in ranks)  # a concept that the dictionary lacks is an error
    assert ("mention 0", "name 12") in test.pairs()
    assert {*test.texts()} == {*test.mentions, *test.dictionary}
