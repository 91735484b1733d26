"""Resampling against scipy and the definitions, on the repeated items."""

from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats

from mirror.evaluation.resampling import Statistic, average_precision, mean, resample, spearman
from tests.evaluation.naive import Floats, items_of


def naive_average_precision(repeated: Floats) -> float:
    """By the definition: over the thresholds, precision times the gain in recall."""
    total, before, found = repeated[:, 1].sum(), 0.0, 0.0
    for threshold in sorted(set(repeated[:, 0]), reverse=True):
        taken = repeated[repeated[:, 0] >= threshold, 1]
        found += taken.mean() * (taken.sum() - before) / total
        before = taken.sum()
    return float(found)


@pytest.mark.parametrize(
    ("statistic", "reference"),
    [
        (mean, lambda repeated: repeated[:, 0].mean()),
        (spearman, lambda repeated: scipy.stats.spearmanr(repeated[:, 0], repeated[:, 1]).statistic),
        (average_precision, naive_average_precision),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_statistic_of_counts_is_that_of_repeated_items(
    statistic: Statistic, reference: Callable[[Floats], float]
) -> None:
    items = items_of()
    if statistic is average_precision:
        items[:, 1] = items[:, 1] > 3
    counts = np.random.default_rng(1).multinomial(40, [1 / 40] * 40, size=20).astype(float)
    expected = [reference(np.repeat(items, row.astype(int), axis=0)) for row in counts]
    np.testing.assert_allclose(statistic(items, counts), expected, atol=1e-12)


def test_same_name_same_resamples_in_any_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    items = items_of(30)
    whole = resample(items, spearman, 50, "set")
    np.testing.assert_array_equal(whole, resample(items, spearman, 50, "set"))
    assert not np.array_equal(whole, resample(items, spearman, 50, "other"))
    monkeypatch.setattr("mirror.evaluation.resampling.CHUNK", 30 * 7)
    np.testing.assert_array_equal(whole, resample(items, spearman, 50, "set"))
