"""Intervals against scipy, tests against published worked examples."""

import numpy as np
import pytest
import scipy.stats
from numpy.typing import NDArray

from mirror.evaluation.certainty import (
    _p,
    compare,
    distributions,
    holm,
    interval,
    seed_interval,
    williams,
)
from mirror.evaluation.resampling import mean, resample, spearman
from mirror.evaluation.sets import Score
from mirror.evaluation.sets.score import over_seeds
from mirror.evaluation.sets.sts import AVERAGE, AVERAGED
from tests.evaluation.naive import items_of

Floats = NDArray[np.float64]


def correlation(score_items: Floats, name: str = "set") -> Score:
    value = 100 * float(scipy.stats.spearmanr(*score_items.T).statistic)
    return Score(name, len(score_items), {"all": value}, items=[score_items], statistic=spearman)


@pytest.mark.filterwarnings("ignore:An input array is constant")
def test_interval_is_scipys() -> None:
    items = items_of(200)
    (low, high), value = interval(100 * resample(items, spearman, 5000, "set")) or (0, 0), correlation(items).value
    scipys = scipy.stats.bootstrap(
        items.T, lambda x, y: 100 * scipy.stats.spearmanr(x, y).statistic, paired=True, vectorized=False,
        n_resamples=5000, method="percentile", rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    assert low < value < high
    assert (low, high) == pytest.approx(tuple(scipys), abs=0.35)


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """The mean of 60 draws, 300 times: a fifth of a per cent of such tests fail by chance at these bounds."""
    rng = np.random.default_rng(3)
    hits = 0
    for trial in range(300):
        low, high = interval(resample(rng.normal(size=(60, 1)), mean, 400, str(trial))) or (0, 0)
        hits += low <= 0 <= high
    assert 270 <= hits <= 297


def test_no_interval_where_most_resamples_have_no_score() -> None:
    assert np.isnan(resample(np.array([[0.1, 1.0], [0.2, 2.0]]), spearman, 100, "two pairs")).any()
    assert interval(np.array([np.nan] * 6 + [1.0] * 4)) is None


def test_williams_worked_example() -> None:
    """Howell, Statistical Methods for Psychology, 6th edition, p. 262: t(23) = 1.36."""
    statistic, p = williams(0.80, 0.72, 0.89, 26)
    assert statistic == pytest.approx(1.361, abs=5e-4)
    assert p == pytest.approx(0.187, abs=5e-4)
    assert williams(0.72, 0.80, 0.89, 26) == pytest.approx((-statistic, p))


def test_williams_steigers_example() -> None:
    """Steiger's example as psych's r.test quotes it: n = 103, 0.5 and 0.4 with 0.1 between them gives t = 0.89."""
    statistic, p = williams(0.5, 0.4, 0.1, 103)
    assert statistic == pytest.approx(0.89, abs=5e-3)
    assert p == pytest.approx(0.37, abs=6e-3)


def test_williams_of_equal_correlations() -> None:
    assert williams(0.5, 0.5, 1.0, 50) == (0.0, 1.0)


def test_holm_worked_example() -> None:
    """0.01, 0.04, 0.03, 0.005 in four tests: 4 × 0.005, 3 × 0.01, 2 × 0.03, and no p below the one before it."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def columns_of(better: float, worse: float, n: int = 300) -> dict[str, dict[str, Score]]:
    gold = np.random.default_rng(5).integers(0, 6, n).astype(float)
    noise = np.random.default_rng(6).normal(size=(2, n))
    made = {
        name: np.stack([gold + spread * noise[i], gold], axis=1)
        for i, (name, spread) in enumerate((("a", worse), ("b", better)))
    }
    return {name: {"set": correlation(items)} for name, items in made.items()}


def test_comparison_finds_a_difference_and_only_where_there_is_one() -> None:
    columns = columns_of(better=1.0, worse=2.0)
    (found,) = compare(columns, distributions(columns, 1000), [("b", "a")])
    assert found.difference == pytest.approx(columns["b"]["set"].value - columns["a"]["set"].value)
    assert found.interval[0] > 0
    assert found.p_bootstrap < 1e-6  # no resample is on the other side, and a table may hold a hundred comparisons
    assert found.p_williams is not None
    assert found.p_williams < 1e-6
    assert found.mark == "**"
    (back,) = compare(columns, distributions(columns, 1000), [("a", "b")])
    assert (back.difference, back.p_bootstrap) == pytest.approx((-found.difference, found.p_bootstrap), rel=1e-6)
    same = columns_of(better=1.5, worse=1.5)
    (nothing,) = compare(same, distributions(same, 1000), [("b", "a")])
    assert nothing.mark == ""
    assert nothing.interval[0] < 0 < nothing.interval[1]


def test_bootstrap_and_williams_agree() -> None:
    """On correlations that differ a little, with several hundred pairs, the two tests say about the same."""
    columns = columns_of(better=1.3, worse=1.55)
    (found,) = compare(columns, distributions(columns, 4000), [("b", "a")])
    assert found.p_williams is not None
    assert 1e-3 < found.p_williams < 0.5
    assert found.p_bootstrap == pytest.approx(found.p_williams, rel=0.6)


@pytest.mark.parametrize("gap", [0.5, 1.5, 2.2, 3.0, 4.0])
def test_p_of_resamples_that_are_normal(gap: float) -> None:
    """Counted or from the tail, p is that of the z test."""
    drawn = np.random.default_rng(0).normal(gap, 1, 20_000)
    assert _p(drawn) == pytest.approx(2 * scipy.stats.norm.sf(gap), rel=0.25)
    assert _p(-drawn) == pytest.approx(_p(drawn))


def test_an_encoder_does_not_differ_from_itself() -> None:
    columns = columns_of(1.0, 2.0)
    columns["a"] = columns["b"]
    (found,) = compare(columns, distributions(columns, 200), [("b", "a")])
    assert (found.difference, found.p_bootstrap, found.p_williams, found.mark) == (0.0, 1.0, 1.0, "")


def test_average_of_the_seven_is_resampled_by_set() -> None:
    scores = {name: correlation(items_of(50, seed=i), name) for i, name in enumerate(AVERAGED)}
    found = distributions({"a": scores}, 300)["a"]
    np.testing.assert_allclose(found[AVERAGE], np.mean([found[name] for name in AVERAGED], axis=0))
    # Independent sets: the mean's variance is the mean of theirs over seven.
    expected = np.sqrt(sum(found[name].var() for name in AVERAGED)) / 7
    assert found[AVERAGE].std() == pytest.approx(expected, rel=0.15)


def test_a_handful_of_pairs_has_no_interval() -> None:
    """Any two pairs have a correlation of 1 or −1, and so on every resample."""
    assert distributions({"a": {"set": correlation(items_of(9))}}, 100) == {"a": {}}
    assert distributions({"a": {"set": correlation(items_of(10))}}, 100)["a"].keys() == {"set"}


def test_seeds() -> None:
    scores = [correlation(items_of(60, noise)) for noise in (0.5, 1.0, 2.0)]
    one = over_seeds(scores)
    values = [score.value for score in scores]
    assert one.value == pytest.approx(np.mean(values))
    assert one.seeds == values
    assert one.deviation == pytest.approx(np.std(values, ddof=1))
    assert over_seeds(scores[:1]) is scores[0]
    assert scores[0].deviation is None
    expected = scipy.stats.t.interval(0.95, 2, np.mean(values), scipy.stats.sem(values))
    assert seed_interval(values) == pytest.approx(expected)
    assert seed_interval(values[:1]) is None
    drawn = [resample(score.items[0], spearman, 50, "set") for score in scores]
    np.testing.assert_allclose(distributions({"a": {"set": one}}, 50)["a"]["set"], 100 * np.mean(drawn, axis=0))
    (found,) = compare({"a": {"set": one}, "b": {"set": scores[0]}},
                       distributions({"a": {"set": one}, "b": {"set": scores[0]}}, 50), [("a", "b")])  # fmt: skip
    assert found.p_williams is None
