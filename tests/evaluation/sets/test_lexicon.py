"""Bilingual lexicon induction against naive loops."""

import numpy as np
import pytest

from mirror.evaluation.sets.lexicon import csls
from tests.evaluation.naive import cosine, naive_rank
from tests.evaluation.sets.made_up import TRANSLATIONS, lexicon


def test_lexicon_by_naive_loops() -> None:
    test = lexicon()
    rng = np.random.default_rng(0)
    vectors = {text: rng.normal(size=6).astype(np.float32) for text in test.texts()}
    for i in range(40):
        vectors[f"t{i}"] += vectors[f"s{i}"]
    sources, targets = [f"s{i}" for i in range(40)], [f"t{i}" for i in range(40)]
    plain, scaled = [], []
    for source in sources:
        right = {b for a, b in TRANSLATIONS if a == source}
        near = {target: cosine(vectors, source, target) for target in targets}
        plain.append(naive_rank(near, right))
        own = np.mean(sorted(near.values())[-10:])
        hub = {b: np.mean(sorted(cosine(vectors, a, b) for a in sources)[-10:]) for b in targets}
        scaled.append(naive_rank({b: float(2 * near[b] - own - hub[b]) for b in targets}, right))
    score = test.score_vectors(vectors)
    expected = {
        "acc@1": np.mean([rank == 1 for rank in plain]), "mrr": np.mean([1 / rank for rank in plain]),
        "csls acc@1": np.mean([rank == 1 for rank in scaled]), "csls mrr": np.mean([1 / rank for rank in scaled]),
    }  # fmt: skip
    assert score.protocols == pytest.approx({name: 100 * value for name, value in expected.items()})
    assert plain != scaled
    assert 0 < score.value < 100
    assert score.pairs == 40
    assert "40 target words" in score.note


def test_csls_takes_hubs_down() -> None:
    """The third target is near to every source."""
    cosines = np.array([[0.8, 0.1, 0.82], [0.1, 0.8, 0.81], [0.0, 0.1, 0.9]])
    assert cosines.argmax(axis=1).tolist() == [2, 2, 2]
    assert csls(cosines).argmax(axis=1).tolist() == [0, 1, 2]
