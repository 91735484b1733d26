"""The comparison of runs as a person reads it in the terminal, at a sweep's end or of a report."""

from collections.abc import Sequence

from mirror.report.console import new_table, printed
from mirror.report.files import figure, signed
from mirror.report.runs import Run
from mirror.report.table import Comparison, compare, shown
from mirror.report.terminal import SEEN_NOTE
from mirror.runs.record import ENCODER

ROWS = 10
"""Most rows printed; the report has them all."""


def summary_table(runs: Sequence[Run]) -> str:
    """The best rows of the finished runs, the untouched model, and how to repeat and find the best.

    Args:
        runs: as ``mirror.report.runs.collect`` reads them.

    Returns:
        A table for each version of mirror and set of tests, with blank lines between; empty where nothing was scored.
    """
    return "\n\n".join(_printed(comparison) for comparison in compare(runs) if comparison.scores)


def _printed(comparison: Comparison) -> str:
    ranked = comparison.ranked()
    judge = str(comparison.judge)
    table = new_table(
        f"{min(ROWS, len(ranked))} of {len(comparison.rows)} rows, ranked by {comparison.name(judge)}; "
        "mean ± sd over the seeds"
    )
    for axis in comparison.axes or ["runs"]:
        table.add_column(axis)
    for head in ("seeds", *map(comparison.name, comparison.scores), f"gain on {comparison.name(judge)}"):
        table.add_column(head, justify="right")
    for row in ranked[:ROWS]:
        cells = [figure(row.cells[name]) if name in row.cells else "–" for name in comparison.scores]
        settings = list(map(shown, row.settings.values())) or ["all"]
        table.add_row(*settings, str(len(row.samples)), *cells, signed(row.gain(judge)))
    for one in comparison.untouched:
        cells = [f"{one.scores[name]:.2f}" if name in one.scores else "–" for name in comparison.scores]
        blank = [""] * max(0, len(comparison.axes) - 1)
        table.add_row(one.label, *blank, "", *cells, "")
    lines = [printed(table)]
    if any(cell.transductive for row in ranked[:ROWS] for cell in row.cells.values()):
        lines.append(SEEN_NOTE)
    if ranked:
        best = max(ranked[0].runs, key=lambda run: run.samples[0].scores.get(judge, float("-inf")))
        lines.append(f"the best by {comparison.name(judge)}: {best.command}")
        if (best.folder / ENCODER).is_dir():
            lines.append(f"its encoder: {best.folder / ENCODER}")
    if not comparison.validation:
        lines.append("The validation set was not measured in every row: a choice by a test set flatters its score.")
    return "\n".join(lines)
