"""Bootstrap resamples of the statistics that score the sets.

A resample of N items is a row of counts: how often each item was drawn. Every statistic takes a table of such rows, so
that an item is ranked once and not once a resample; it gives what scipy gives on the repeated items, and is tested so.
"""

from collections.abc import Callable, Iterator
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Statistic = Callable[[Floats, Floats], Floats]
"""From items (N, C) and counts (B, N) to a figure for each row of counts, (B,)."""
CHUNK = 2**19
"""Most counts held in memory at once."""


def resample(items: Floats, statistic: Statistic, count: int, name: str) -> Floats:
    """The statistic on ``count`` bootstrap resamples of the items, (count,).

    The draws follow from ``name``, the set's, alone: two encoders are compared on the same resamples, and the sets are
    resampled independently.
    """
    rng = np.random.default_rng(crc32(name.encode()))
    return np.concatenate([statistic(items, counts) for counts in _counts(len(items), count, rng)])


def _counts(items: int, count: int, rng: np.random.Generator) -> Iterator[Floats]:
    rows = max(1, CHUNK // items)
    for start in range(0, count, rows):
        size = min(rows, count - start)
        drawn = rng.integers(items, size=(size, items)) + items * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * items).reshape(size, items).astype(np.float64)


def mean(items: Floats, counts: Floats) -> Floats:
    """The mean of a single column."""
    figures: Floats = counts @ items[:, 0] / counts.sum(axis=1)
    return figures


def spearman(items: Floats, counts: Floats) -> Floats:
    """Spearman's correlation of two columns; nan where one is constant in a resample."""
    x, y = _ranks(items[:, 0], counts), _ranks(items[:, 1], counts)
    middle = (counts.sum(axis=1, keepdims=True) + 1) / 2  # the mean of all ranks
    x -= middle
    y -= middle
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation: Floats = (counts * x * y).sum(axis=1) / np.sqrt(
            (counts * x * x).sum(axis=1) * (counts * y * y).sum(axis=1)
        )
    return correlation


def _ranks(values: Floats, counts: Floats) -> Floats:
    """The rank of each item in each resample, (B, N); ties share a rank."""
    _, group = np.unique(values, return_inverse=True)  # (N,), groups in the order of their values
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    size = np.add.reduceat(counts[:, order], starts, axis=1)  # (B, groups)
    ranks: Floats = (size.cumsum(axis=1) - (size - 1) / 2)[:, group]
    return ranks


def average_precision(items: Floats, counts: Floats) -> Floats:
    """Average precision of the items with a 1 in the second column, ranked by the first column, highest first."""
    _, group = np.unique(-items[:, 0], return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    drawn, right = (np.add.reduceat(c[:, order], starts, axis=1) for c in (counts, counts * items[:, 1]))
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = right.cumsum(axis=1) / drawn.cumsum(axis=1)
        average: Floats = np.nansum(precision * right, axis=1) / right.sum(axis=1)
    return average
