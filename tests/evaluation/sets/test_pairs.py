"""Graded pairs against scipy by hand, and every way they can be wrong."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import spearmanr

from mirror import MirrorError
from mirror.evaluation.sets.pairs import PairSet
from tests.evaluation.naive import vectors_of

Vectors = NDArray[np.float32]


GOLD = [5.0, 4.0, 4.0, 1.0, 0.0, 3.5, 2.0, 2.0, 1.0]  # with ties


PARTS = ["news", "news", "news", "news", "forum", "forum", "forum", "forum", "forum"]


COSINES = [0.9, 0.8, 0.3, 0.3, 0.1, 0.95, -0.2, 0.5, 0.5]  # with ties, and no good friend of the gold scores


def planted(cosines: Sequence[float]) -> tuple[list[str], list[str], Callable[[Sequence[str]], Vectors]]:
    """Texts, and an encoder that gives pair i the cosine ``cosines[i]`` from vectors of many lengths.

    The lengths are powers of two, so that rounding leaves equal cosines equal.
    """
    left, right = [f"left {i}" for i in range(len(cosines))], [f"right {i}" for i in range(len(cosines))]
    vectors = {text: np.array([2.0**i, 0.0]) for i, text in enumerate(left)}
    for i, (text, cosine) in enumerate(zip(right, cosines, strict=True)):
        vectors[text] = np.array([cosine, np.sqrt(1 - cosine**2)]) / 4.0**i
    return left, right, lambda texts: np.array([vectors[text] for text in texts], dtype=np.float32)


def rho(cosines: Sequence[float], gold: Sequence[float]) -> float:
    return 100 * float(spearmanr(cosines, gold).statistic)


def test_three_protocols_by_hand() -> None:
    left, right, encode = planted(COSINES)
    score = PairSet("made-up", left, right, np.array(GOLD), PARTS).score(encode)
    news, forum = rho(COSINES[:4], GOLD[:4]), rho(COSINES[4:], GOLD[4:])
    assert score.pairs == 9
    assert score.protocols == pytest.approx(
        {"all": rho(COSINES, GOLD), "mean": (news + forum) / 2, "wmean": (4 * news + 5 * forum) / 9}, abs=1e-4
    )
    assert score.value == score.protocols["all"]
    assert len({round(value, 1) for value in score.protocols.values()}) == 3


def test_ties_share_their_rank() -> None:
    """By hand: ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4; Spearman's is Pearson's over the ranks."""
    left, right, encode = planted([0.1, 0.2, 0.2, 0.9])
    score = PairSet("made-up", left, right, np.array([0.0, 1.0, 2.0, 3.0]), ["x"] * 4).score(encode)
    assert score.value == pytest.approx(100 * np.corrcoef([1, 2.5, 2.5, 4], [1, 2, 3, 4])[0, 1], abs=1e-4)


def test_one_part_has_only_the_overall_score() -> None:
    left, right, encode = planted(COSINES)
    assert list(PairSet("made-up", left, right, np.array(GOLD), ["x"] * 9).score(encode).protocols) == ["all"]


def test_order_of_the_pairs_makes_no_difference() -> None:
    left, right, encode = planted(COSINES)
    order = [3, 8, 0, 5, 1, 7, 2, 6, 4]
    shuffled = PairSet(
        "made-up",
        [left[i] for i in order],
        [right[i] for i in order],
        np.array(GOLD)[order],
        [PARTS[i] for i in order],
    )
    expected = PairSet("made-up", left, right, np.array(GOLD), PARTS).score(encode)
    assert shuffled.score(encode).protocols == pytest.approx(expected.protocols)


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_unusable_vectors(value: float) -> None:
    left, right, encode = planted(COSINES)

    def broken(texts: Sequence[str]) -> Vectors:
        vectors = encode(texts)
        vectors[texts.index("right 3")] = value
        return vectors

    with pytest.raises(MirrorError, match="zero or not finite on made-up"):
        PairSet("made-up", left, right, np.array(GOLD), PARTS).score(broken)


@pytest.mark.filterwarnings("ignore:An input array is constant")
def test_vectors_that_are_all_the_same() -> None:
    left, right, _ = planted(COSINES)
    pairs = PairSet("made-up", left, right, np.array(GOLD), PARTS)
    with pytest.raises(MirrorError, match="No correlation exists on made-up"):
        pairs.score(lambda texts: np.ones((len(texts), 2), dtype=np.float32))


def test_similarities_that_differ_by_rounding_alone() -> None:
    """Pairs of equal texts: their cosines are 1 but for the last bit, whose order means nothing."""
    vectors = np.random.default_rng(0).normal(size=(9, 5)).astype(np.float32)
    texts = [f"text {i}" for i in range(9)]
    with pytest.raises(MirrorError, match="gives every pair the same similarity"):
        PairSet("made-up", texts, texts, np.array(GOLD), PARTS).score(lambda asked: vectors[: len(asked)])


def test_all_gold_scores_equal() -> None:
    with pytest.raises(MirrorError, match="gives every pair the same score"):
        PairSet("made-up", ["a", "b"], ["c", "d"], np.array([1.0, 1.0]), ["x", "x"])


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_pairs(count: int) -> None:
    with pytest.raises(MirrorError, match=f"has {count} pairs: a correlation needs at least two"):
        PairSet("made-up", ["a"] * count, ["b"] * count, np.arange(float(count)), ["x"] * count)


def test_a_part_without_a_correlation(caplog: pytest.LogCaptureFixture) -> None:
    """It is named, the other parts and the whole are scored, and nothing is nan."""
    gold = np.array([1.0, 2.0, 3.0, 4.0])
    test = PairSet("made-up", list("abcd"), list("efgh"), gold, ["x", "x", "x", "lonely"])
    assert "made-up has no correlation in its part lonely" in caplog.text
    score = test.score_vectors(vectors_of(test, 4))
    assert list(score.protocols) == ["all"]
    assert np.isfinite(score.value)
