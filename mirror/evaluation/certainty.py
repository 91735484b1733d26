"""Confidence in a score and in a difference between two scores: bootstrap, Williams' test, Holm's correction, seeds."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import scipy

from mirror.evaluation.resampling import Floats, resample, spearman
from mirror.evaluation.sets.score import Score
from mirror.evaluation.sets.sts import AVERAGE, AVERAGED, sts_average

LEVEL = 0.95
"""Confidence level of every interval."""
FEWEST = 10
"""With fewer pairs or queries, resamples say nothing: any two pairs have a correlation of 1 or −1."""
COUNTABLE = 10
"""With at least so many resamples on the other side of zero, their share is taken for p."""

Interval = tuple[float, float]
Columns = Mapping[str, Mapping[str, Score]]
"""Scores by encoder and set."""
Distributions = Mapping[str, Mapping[str, Floats]]
"""By encoder and set, the figure × 100 on each bootstrap resample, (B,)."""


@dataclass
class Comparison:
    """Two encoders compared on the same pairs of one set."""

    set: str
    encoder: str
    against: str
    difference: float
    """The encoder's score minus the other's, × 100."""
    interval: Interval
    """Interval of the difference, by paired bootstrap."""
    p_bootstrap: float
    """Two-sided."""
    p_williams: float | None
    """For correlations of one seed each."""
    p_holm: float = 1.0
    """Corrected for all comparisons of the table: Williams' p where there is one, else the bootstrap's."""

    @property
    def mark(self) -> str:
        """``*`` below 5 % and ``**`` below 1 %, by the corrected p."""
        return "**" if self.p_holm < 0.01 else "*" if self.p_holm < 0.05 else ""

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def distributions(columns: Columns, count: int) -> dict[str, dict[str, Floats]]:
    """Every score on ``count`` bootstrap resamples of its set, and the average of the seven STS sets.

    Sets of fewer than ``FEWEST`` items are left out. The scores of several seeds are averaged on each resample.
    Resamples on which a small set has no score are nan.
    """
    found: dict[str, dict[str, Floats]] = {}
    for column, scores in columns.items():
        found[column] = {
            name: 100 * np.mean([resample(i, score.statistic, count, name) for i in score.items], axis=0)
            for name, score in scores.items()
            if score.items and len(score.items[0]) >= FEWEST
        }
        if all(name in found[column] for name in AVERAGED):
            found[column][AVERAGE] = np.mean([found[column][name] for name in AVERAGED], axis=0)
    return found


def interval(distribution: Floats) -> Interval | None:
    """The percentile interval (Efron and Tibshirani 1993, chapter 13); None if most resamples have no score."""
    finite = distribution[np.isfinite(distribution)]
    if len(finite) * 2 < len(distribution):
        return None
    low, high = np.percentile(finite, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(low), float(high)


def seed_interval(values: Sequence[float]) -> Interval | None:
    """Student's interval of the mean over seeds; None for fewer than two."""
    if len(values) < 2:
        return None
    reach = scipy.stats.t.ppf((1 + LEVEL) / 2, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return float(np.mean(values) - reach), float(np.mean(values) + reach)


def compare(columns: Columns, resampled: Distributions, encoders: Iterable[tuple[str, str]]) -> list[Comparison]:
    """Each pair of encoders, (encoder, against), on each set; p corrected over all of them."""
    found = []
    for encoder, against in encoders:
        for name in resampled[encoder].keys() & resampled[against].keys():
            ours, theirs = resampled[encoder][name], resampled[against][name]
            differences = ours - theirs
            reach = interval(differences)
            if reach is None:
                continue
            values = [_value(columns[column], name) for column in (encoder, against)]
            williams_p = _williams(columns[encoder].get(name), columns[against].get(name))
            found.append(
                Comparison(name, encoder, against, values[0] - values[1], reach, p_value(differences), williams_p)
            )
    order = {name: i for column in resampled.values() for i, name in enumerate(column)}
    found.sort(key=lambda comparison: order[comparison.set])
    corrected = holm([c.p_bootstrap if c.p_williams is None else c.p_williams for c in found])
    for comparison, p in zip(found, corrected, strict=True):
        comparison.p_holm = p
    return found


def _value(scores: Mapping[str, Score], name: str) -> float:
    average = sts_average({one: score.value for one, score in scores.items()}) if name == AVERAGE else None
    return scores[name].value if average is None else average


def p_value(differences: Floats) -> float:
    """Twice the share of resamples on the other side of zero (Efron and Tibshirani 1993, section 15.4).

    Where too few lie there to be counted, and no correction for many comparisons could be survived, the tail is that of
    a normal distribution with the resamples' mean and standard deviation.
    """
    finite = differences[np.isfinite(differences)]
    tail = min((finite <= 0).sum(), (finite >= 0).sum())
    counted = float(min(1.0, 2 * (1 + tail) / (1 + len(finite))))
    if tail >= COUNTABLE or np.std(finite) == 0:
        return counted
    return min(counted, float(2 * scipy.stats.norm.sf(abs(np.mean(finite)) / np.std(finite))))


def _williams(ours: Score | None, theirs: Score | None) -> float | None:
    if ours is None or theirs is None or ours.statistic is not spearman:
        return None
    if len(ours.items) != 1 or len(theirs.items) != 1 or len(ours.items[0]) < 4:
        return None
    (a, gold), b = ours.items[0].T, theirs.items[0][:, 0]
    r12, r13, r23 = (float(scipy.stats.spearmanr(x, y).statistic) for x, y in ((a, gold), (b, gold), (a, b)))
    return williams(r12, r13, r23, len(gold))[1]


def williams(r12: float, r13: float, r23: float, n: int) -> tuple[float, float]:
    """Williams' test of two correlations that share a variable (Williams 1959; Steiger 1980, equation 7).

    Args:
        r12: of the shared variable (gold) with one of the others.
        r13: of the shared variable with the other.
        r23: of these two.
        n: observations.

    Returns:
        t with n − 3 degrees of freedom, and the two-sided p.
    """
    if r12 == r13:
        return 0.0, 1.0
    determinant = 1 - r12**2 - r13**2 - r23**2 + 2 * r12 * r13 * r23
    mean = (r12 + r13) / 2
    spread = 2 * (n - 1) / (n - 3) * max(determinant, 0.0) + mean**2 * (1 - r23) ** 3
    statistic = (r12 - r13) * np.sqrt((n - 1) * (1 + r23) / spread) if spread > 0 else np.copysign(np.inf, r12 - r13)
    return float(statistic), float(2 * scipy.stats.t.sf(abs(statistic), n - 3))


def holm(p_values: Sequence[float]) -> list[float]:
    """p values corrected for multiple tests (Holm 1979), in the order given."""
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected
