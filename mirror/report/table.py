"""Runs as rows: the settings that vary, the scores averaged over seeds, and which differences are more than chance."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mirror.config.compose import NUMBER_OF
from mirror.errors import MirrorError
from mirror.evaluation.certainty import holm, p_value
from mirror.evaluation.resampling import Floats
from mirror.evaluation.sets.sts import AVERAGE, AVERAGED
from mirror.report.labels import short_names
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
    """Whether it stands in the row that the validation set chose."""
    p: float | None = None
    """p of the difference from the baseline, with Holm's correction over the table; None if it cannot be tested."""
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


@dataclass(frozen=True)
class Untouched:
    """A backbone before training, by one pooling."""

    backbone: str
    pooling: str
    scores: dict[str, float]

    @property
    def label(self) -> str:
        """The model and the pooling."""
        return f"{shown(self.backbone)} untouched, {self.pooling}"


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
        return ", ".join(f"{axis}={shown(item)}" for axis, item in self.settings.items()) or "all runs"

    @property
    def brief(self) -> str:
        """The same for a legend, with the last part of each setting's name where no other ends so."""
        ends = {axis: axis.rpartition(".")[2] for axis in self.settings}
        known = list(ends.values())
        names = {axis: end if known.count(end) == 1 else axis for axis, end in ends.items()}
        return ", ".join(f"{names[axis]}={shown(item)}" for axis, item in self.settings.items()) or "all runs"

    def gain(self, score: str) -> float | None:
        """What training added, × 100: the mean less the untouched model's score by its best pooling on that set."""
        before = [scores[score] for run in self.runs for scores in run.raw.values() if score in scores]
        return self.cells[score].mean - max(before) if before and score in self.cells else None

    def resampled(self, score: str) -> Floats | None:
        """The score on bootstrap resamples of its set, mean over the seeds, (B,); None where runs have not kept it."""
        kept = [run.resampled.get(score) for run in self.runs for _ in run.samples]
        there = [figures for figures in kept if figures is not None]
        same = len(there) == len(kept) and len({len(figures) for figures in there}) == 1
        return np.mean(there, axis=0) if same else None

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
    untouched: list[Untouched]
    """The backbones before training, by each pooling that was measured."""
    validation: str | None
    """The set that chooses the best row; None where not every row has it."""

    def name(self, score: str | None) -> str:
        """What a score is called in a heading: sets given as paths by their file's name."""
        return short_names(self.scores).get(str(score), str(score))

    @property
    def headline(self) -> str | None:
        """The score that plots show: the average, else the first set."""
        return AVERAGE if AVERAGE in self.scores else next(iter(self.scores), None)

    @property
    def judge(self) -> str | None:
        """The set that the rows are ranked by: the validation set, or the headline where that was not measured."""
        return self.validation or self.headline

    def ranked(self) -> list[Row]:
        """The rows that the judge has a score of, the best first."""
        rows = [row for row in self.rows if self.judge in row.cells]
        return sorted(rows, key=lambda row: -row.cells[str(self.judge)].mean)


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
    return f"{item:g}" if isinstance(item, float) else str(item).removeprefix("bundled:")


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
    version, sets = runs[0].frame
    short = short_names(name for name, _ in sets)
    described = ", ".join(f"{short[name]} ({size:,})" for name, size in sets) or "not measured"
    title = f"mirror {version}: {described}" if several else described
    comparison = Comparison(title, axes, rows, scores, _untouched(runs), _validation(runs, rows))
    if comparison.validation and len(rows) > 1:
        for cell in comparison.ranked()[0].cells.values():
            cell.best = True
    return comparison


def _untouched(runs: Sequence[Run]) -> list[Untouched]:
    """Each backbone and pooling once; where settings such as a template change its scores, once for each."""
    found: list[Untouched] = []
    for run in runs:
        for column, scores in run.raw.items():
            one = Untouched(str(run.settings.get("model.path")), column.removeprefix("raw "), scores)
            if scores and one not in found:
                found.append(one)
    return sorted(found, key=lambda one: one.backbone)


def _validation(runs: Sequence[Run], rows: Sequence[Row]) -> str | None:
    named = {run.settings.get("eval.validation") for run in runs}
    name = named.pop() if len(named) == 1 else None
    return name if name and all(name in row.cells for row in rows) else None


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
    tested: list[tuple[Cell, float]] = []
    for row in found:
        row.baseline = True
        for name in row.cells:
            base = row.resampled(name)
            for other in comparison.rows:
                figures = other.resampled(name) if other is not row and name in other.cells else None
                if base is not None and figures is not None and len(figures) == len(base):
                    differences = figures - base
                    if np.isfinite(differences).sum() * 2 >= len(differences):
                        tested.append((other.cells[name], p_value(differences)))
    for (cell, _), p in zip(tested, holm([p for _, p in tested]), strict=True):
        cell.p = p
    return bool(found)


def _mean(values: Iterable[float | None]) -> float | None:
    there = [item for item in values if item is not None]
    return statistics.fmean(there) if there else None


def order(item: Any) -> tuple[int, float, str]:
    """Numbers by size, then everything else by name."""
    if isinstance(item, int | float) and not isinstance(item, bool):
        return 0, float(item), ""
    return 1, 0.0, shown(item)
