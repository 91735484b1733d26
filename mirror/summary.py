"""The tables that a person reads at the end of a run."""

import io
from collections.abc import Mapping

from rich import box
from rich.console import Console
from rich.table import Table

from mirror.evaluation import Score, sts_average

PROTOCOL_NAMES = {
    "all": "all", "mean": "mean of parts", "wmean": "weighted mean",
    "mrr": "MRR", "recall@1": "recall@1", "recall@10": "recall@10",
}  # fmt: skip


def score_table(columns: Mapping[str, Mapping[str, Score]], title: str) -> str:
    """Sets as rows, encoders as columns, the last one's gain over the best other; the headline protocol."""
    table = new_table(title)
    table.add_column("set")
    table.add_column("pairs", justify="right")
    for name in columns:
        table.add_column(name, justify="right")
    if len(columns) > 1:
        table.add_column("gain", justify="right")
    first = next(iter(columns.values()))
    rows = {
        _label(name, score): (str(score.pairs), [scores[name].value for scores in columns.values()])
        for name, score in first.items()
    }
    averages = [sts_average(dict(scores)) for scores in columns.values()]
    if all(average is not None for average in averages):
        rows["average of 7"] = ("", [average for average in averages if average is not None])
    for name, (pairs, values) in rows.items():
        cells = [f"{value:.2f}" for value in values]
        if len(values) > 1:
            cells.append(f"{values[-1] - max(values[:-1]):+.2f}")
        table.add_row(name, pairs, *cells)
    return _text(table)


def _label(name: str, score: Score) -> str:
    return name if score.headline == "all" else f"{name} ({PROTOCOL_NAMES[score.headline]})"


def protocol_table(scores: Mapping[str, Score], title: str) -> str:
    """Sets as rows, protocols as columns."""
    table = new_table(title)
    table.add_column("set")
    table.add_column("pairs", justify="right")
    used = [key for key in PROTOCOL_NAMES if any(key in score.protocols for score in scores.values())]
    for key in used:
        table.add_column(PROTOCOL_NAMES[key], justify="right")
    for name, score in scores.items():
        cells = [f"{score.protocols[key]:.2f}" if key in score.protocols else "–" for key in used]
        table.add_row(name, str(score.pairs), *cells)
    average = sts_average(dict(scores))
    if average is not None:
        table.add_row("average of 7", "", f"{average:.2f}")
    return _text(table)


def time_line(seconds: Mapping[str, float]) -> str:
    """Where the time went, in one line."""
    return "  ".join(f"{name} {value:.1f} s" for name, value in seconds.items())


def new_table(title: str) -> Table:
    """An empty table as all of ours look."""
    return Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)


def _text(table: Table) -> str:
    console = Console(file=io.StringIO(), width=110, record=True)
    console.print(table)
    return "\n".join(line.rstrip() for line in console.export_text(styles=False).rstrip().splitlines())
