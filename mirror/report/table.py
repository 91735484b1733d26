"""Runs as rows: the settings that vary, the scores averaged over seeds, and which differences are more than chance."""

import math
import statistics
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from scipy.stats import ttest_ind, ttest_rel

from mirror.config.compose import NUMBER_OF
from mirror.errors import MirrorError
from mirror.evaluation.certainty import holm
from mirror.evaluation.sets.sts import AVERAGE, AVERAGED
from mirror.report.runs import Run, Sample
from mirror.runs.registry import NEUTRAL

SIGNIFICANT = 0.05
"""A difference is marked if its p, after Holm's correction, is below this."""
NOT_AXES = ("seed", "seeds", "sweep", "eval", "experiment", *NEUTRAL)
"""Settings that are averaged over, or that do not affect the encoder."""


@dataclass
class Cell:
    """One score of one row, over its seeds."""

    values: dict[int, float]
    """By seed."""
    best: bool = False
    p: float | None = None
    """p of the difference from the baseline, with Holm's correction over the rows; None if it cannot be tested."""
    transductive: bool = False

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return statistics.fmean(self.values.values())

    @property
    def sd(self) -> float | None:
        """Sample standard deviation over the seeds."""
        return statistics.stdev(self.values.values()) if len(self.values) > 1 else None

    @property
    def significant(self) -> bool:
        """Whether the difference from the baseline is significant."""
        return self.p is not None and self.p < SIGNIFICANT


@dataclass
class Row:
    """Runs that differ only in their seeds."""

    settings: dict[str, Any]
    """By axis."""
    runs: list[Run]
    cells: dict[str, Cell] = field(default_factory=dict)
    """By set, where measured."""
    baseline: bool = False

    @cached_property
    def samples(self) -> list[Sample]:
        """One sample for each seed."""
        return [sample for run in self.runs for sample in run.samples]

    @property
    def label(self) -> str:
        """Its settings on one line."""
        return ", ".join(map(shown, self.settings.values())) or "all runs"

    @property
    def loss(self) -> float | None:
        """Loss at the end of training, mean over the seeds."""
        return _mean(sample.loss for sample in self.samples)

    @property
    def seconds(self) -> float | None:
        """Seconds of training, mean over the runs."""
        return _mean(run.seconds.get("train") for run in self.runs)

    @property
    def alignment(self) -> float | None:
        """Mean over the runs; see ``mirror.evaluation.geometry``."""
        return _mean(run.geometry.get("alignment") for run in self.runs)

    @property
    def uniformity(self) -> float | None:
        """Mean over the runs."""
        return _mean(run.geometry.get("uniformity") for run in self.runs)


@dataclass
class Comparison:
    """Comparable runs: of one version, on the same test sets."""

    title: str
    axes: list[str]
    rows: list[Row]
    scores: list[str]
    """Sets, and ``AVERAGE`` where it exists."""
    raw: dict[str, dict[str, float]]
    """Scores of the untouched model, where all runs share it."""

    @property
    def headline(self) -> str | None:
        """The score that plots show: the average, else the first set."""
        return AVERAGE if AVERAGE in self.scores else next(iter(self.scores), None)


def compare(runs: Sequence[Run], baseline: str | None = None) -> list[Comparison]:
    """The finished runs in tables, those of different versions or test sets apart.

    Args:
        runs: all of them; only finished ones are compared.
        baseline: settings of one row, such as ``loss.temperature=0.04``, that the others are tested against.

    Raises:
        MirrorError: the baseline is no row, or more than one.
    """
    finished = [run for run in runs if run.status == "finished"]
    frames: dict[Any, list[Run]] = {}
    for run in finished:
        frames.setdefault(run.frame, []).append(run)
    comparisons = [_comparison(members, several=len(frames) > 1) for members in frames.values()]
    if baseline and not sum(_mark_baseline(comparison, baseline) for comparison in comparisons):
        rows = [row for comparison in comparisons for row in comparison.rows]
        known = dict.fromkeys(f"{axis}={shown(item)}" for row in rows for axis, item in row.settings.items())
        raise MirrorError(
            f"baseline={baseline} is no row of the table: choose among {', '.join([*known][:30]) or 'none'}."
        )
    return comparisons


def varying(runs: Sequence[Run]) -> list[str]:
    """The settings that differ between the runs: those that were typed, then others that do not follow from these."""
    typed = dict.fromkeys(NUMBER_OF.get(key, key) for run in runs for key in run.typed)
    varied = [key for key in typed if key not in NOT_AXES and not key.startswith("logger.")]
    axes = [key for key in varied if len({value(run, key) for run in runs}) > 1]
    rest = [key for key in dict.fromkeys(key for run in runs for key in run.settings) if key not in typed]
    for key in rest:
        if key in NOT_AXES or key.startswith(("logger.", "eval.")) or len({value(run, key) for run in runs}) < 2:
            continue
        points = {(*(value(run, axis) for axis in axes), value(run, key)) for run in runs}
        if len(points) > len({point[:-1] for point in points}):
            axes.append(key)
    return axes


def value(run: Run, key: str) -> Any:
    """A setting, or the option of a group; None where a run has neither."""
    return run.settings[key] if key in run.settings else run.choices.get(key)


def shown(item: Any) -> str:
    """A value as a table shows it; a path is shortened to its last part, which identifies the folder."""
    if isinstance(item, str) and item.count("/") > 1:
        return Path(item).name
    if isinstance(item, bool) or item is None:
        return str(item).lower() if item is not None else "–"
    return f"{item:g}" if isinstance(item, float) else str(item)


def _comparison(runs: list[Run], *, several: bool) -> Comparison:
    axes = varying(runs)
    groups: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        groups.setdefault(tuple(value(run, axis) for axis in axes), []).append(run)
    ordered = sorted(groups, key=lambda key: [order(item) for item in key])
    rows = [Row(dict(zip(axes, key, strict=True)), groups[key]) for key in ordered]
    scores = list(dict.fromkeys(name for row in rows for sample in row.samples for name in sample.scores))
    scores.sort(key=lambda name: name == AVERAGE)  # last; the sort keeps the others' order
    for row in rows:
        for name in scores:
            values = {sample.seed: sample.scores[name] for sample in row.samples if name in sample.scores}
            if values:
                measured = AVERAGED if name == AVERAGE else (name,)
                seen = any(not run.transductive.isdisjoint(measured) for run in row.runs)
                row.cells[name] = Cell(values, transductive=seen)
    for name in scores:
        if len(rows) > 1:
            max((row.cells[name] for row in rows if name in row.cells), key=lambda cell: cell.mean).best = True
    version, sets = runs[0].frame
    described = ", ".join(f"{name} ({size:,})" for name, size in sets) or "not measured"
    raw = runs[0].raw if all(run.raw == runs[0].raw for run in runs) else {}
    return Comparison(f"mirror {version}: {described}" if several else described, axes, rows, scores, raw)


def _mark_baseline(comparison: Comparison, baseline: str) -> bool:
    """Find the baseline's row and test the others against it; returns whether it was found."""
    wanted = dict(part.strip().partition("=")[::2] for part in baseline.split(","))
    # Also by what all rows have in common, so that a command still holds when an axis is added.
    found = [row for row in comparison.rows if all(shown(value(row.runs[0], key)) == wanted[key] for key in wanted)]
    if len(found) > 1:
        raise MirrorError(
            f"baseline={baseline} fits {len(found)} rows: name more of {', '.join(comparison.axes)}, "
            "with commas between them."
        )
    for row in found:
        row.baseline = True
        for name in row.cells:
            others = [other.cells[name] for other in comparison.rows if other is not row and name in other.cells]
            tested = [(cell, p) for cell in others if (p := _p_value(cell.values, row.cells[name].values)) is not None]
            if tested:
                for (cell, _), p in zip(tested, holm([p for _, p in tested]), strict=True):
                    cell.p = p
    return bool(found)


def _p_value(a: dict[int, float], b: dict[int, float]) -> float | None:
    """Student's paired test where the seeds are the same, else Welch's; None where there is one seed or no spread."""
    if min(len(a), len(b)) < 2:
        return None
    with warnings.catch_warnings(action="ignore"):
        if a.keys() == b.keys():
            p = float(ttest_rel([a[seed] for seed in b], list(b.values())).pvalue)
        else:
            p = float(ttest_ind(list(a.values()), list(b.values()), equal_var=False).pvalue)
    return p if math.isfinite(p) else None


def _mean(values: Iterable[float | None]) -> float | None:
    there = [item for item in values if item is not None]
    return statistics.fmean(there) if there else None


def order(item: Any) -> tuple[int, float, str]:
    """Numbers by size, then everything else by name."""
    if isinstance(item, int | float) and not isinstance(item, bool):
        return 0, float(item), ""
    return 1, 0.0, shown(item)
