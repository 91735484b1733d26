"""Where an encoder errs: residuals, kinds of pairs, neighbours."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from mirror.evaluation.residuals import kinds, neighbours, residuals, worst
from mirror.evaluation.sets.pairs import PairSet

PAIRS = [
    ("A man plays.", "A man is playing."),
    ("A man does not play.", "A man plays."),
    ("Nobody isn't here.", "There is no one."),
    ("Seven dogs and 3 cats.", "Seven dogs and 3 cats ran off."),
    ("3 cats.", "4 cats."),
    ("A note about knots.", "Nothingness, and another noun."),
    ("The price is 1,250.50 now.", "It was cheap."),
] * 6


def pair_set() -> PairSet:
    gold = np.random.default_rng(0).integers(0, 6, len(PAIRS)).astype(np.float64)
    return PairSet("made-up", [a for a, _ in PAIRS], [b for _, b in PAIRS], gold, ["x"] * len(PAIRS))


def test_residual_is_the_distance_of_two_ranks() -> None:
    """By hand: ranks 3, 1, 2, 4 by similarity and 1.5, 1.5, 3, 4 by gold."""
    found = residuals(np.array([0.5, 0.1, 0.2, 0.9]), np.array([1.0, 1.0, 2.0, 3.0]))
    assert found.tolist() == [1.5 / 4, -0.5 / 4, -1 / 4, 0.0]


def test_worst_are_those_of_the_last_column() -> None:
    test = pair_set()
    rng = np.random.default_rng(1)
    similarities = {"before": rng.normal(size=len(PAIRS)), "after": rng.normal(size=len(PAIRS))}
    found = worst(test, similarities, count=5)
    errors = np.abs(residuals(similarities["after"], test.gold))
    assert [abs(pair.residuals["after"]) for pair in found] == sorted(errors, reverse=True)[:5]
    for pair in found:
        assert (pair.left, pair.right) in PAIRS
        assert pair.residuals["before"] in residuals(similarities["before"], test.gold)


def test_kinds_of_pairs() -> None:
    test = pair_set()
    similarity = np.random.default_rng(2).normal(size=len(PAIRS))
    found = {(kind.group, kind.name): kind for kind in kinds(test, {"one": similarity})}
    counts = {key: kind.pairs for key, kind in found.items()}
    assert counts["negation", "in neither"] == 6 * 5  # knots, note and nothingness negate nothing
    assert counts["negation", "in one"] == counts["negation", "in both"] == 6
    assert counts["numbers", "the same"] == 6
    assert counts["numbers", "different"] == 12
    assert counts["numbers", "none"] == 24
    for group in ("length", "word overlap"):
        assert sum(count for (name, _), count in counts.items() if name == group) == len(PAIRS)
    mask = np.array([i % 7 not in (1, 2) for i in range(len(PAIRS))])
    expected = 100 * spearmanr(similarity[mask], test.gold[mask]).statistic
    assert found["negation", "in neither"].scores["one"] == pytest.approx(expected)
    assert np.isnan(found["negation", "in one"].scores["one"])  # six pairs are too few


def test_neighbours_by_naive_loops() -> None:
    rng = np.random.default_rng(0)
    vectors = {f"w{i}": rng.normal(size=3).astype(np.float32) for i in range(30)}
    vectors["query"] = rng.normal(size=3).astype(np.float32)
    texts = [f"w{i}" for i in range(30)]
    found = neighbours(vectors, texts, ["query", "w3"], 4)
    for query, near in found.items():
        x = vectors[query] / np.linalg.norm(vectors[query])
        cosines = {text: float(x @ vectors[text] / np.linalg.norm(vectors[text])) for text in texts if text != query}
        assert [text for text, _ in near] == sorted(cosines, key=lambda text: -cosines[text])[:4]
        assert [value for _, value in near] == pytest.approx(sorted(cosines.values(), reverse=True)[:4], abs=1e-5)
