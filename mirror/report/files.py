"""The tables as files: CSV for further work, Markdown and LaTeX to paste."""

import csv
import io
from collections.abc import Mapping, Sequence

from mirror.report.labels import printed_as
from mirror.report.runs import Run
from mirror.report.table import Cell, Comparison, Row, shown, value, varying
from mirror.report.terminal import SEEN, SEEN_NOTE

MARKS = (
    "Mean ± sd over the seeds; gain over the untouched model by its best pooling; in bold the row that the validation "
    "set chose, none where it was not measured; * differs from the baseline (p < 0.05, paired bootstrap, Holm's "
    f"correction over the table); {SEEN_NOTE}."
)


def figure(cell: Cell) -> str:
    """A score as a table shows it."""
    deviation = f" ± {cell.sd:.2f}" if cell.sd is not None else ""
    return f"{cell.mean:.2f}{deviation}{'*' * cell.significant}{SEEN * cell.transductive}"


def signed(gain: float | None) -> str:
    """A gain with its sign."""
    return "–" if gain is None else f"{gain:+.2f}"


def gain_head(comparison: Comparison) -> str:
    """Heading of the column of gains."""
    return f"gain on {comparison.name(comparison.headline)}" if comparison.headline else "gain"


def seeds(row: Row) -> str:
    """How many seeds a row has, and whether it is the baseline."""
    return f"{len(row.samples)}{' (baseline)' * row.baseline}"


def runs_csv(runs: Sequence[Run]) -> str:
    """One line for each run and seed."""
    axes = varying(runs)
    sets = list(dict.fromkeys(name for run in runs for sample in run.samples for name in sample.scores))
    lines: list[list[object]] = [[*axes, "seed", "status", "version", *sets, "loss", "seconds", "error", "folder"]]
    for run in runs:
        for sample in run.samples:
            scores = [sample.scores.get(name, "") for name in sets]
            settings = [value(run, axis) for axis in axes]
            end = [sample.loss, run.seconds.get("total"), run.error, run.folder]
            lines.append([*settings, sample.seed, run.status, run.version, *scores, *end])
    return _csv(lines)


def table_csv(comparisons: Sequence[Comparison]) -> str:
    """One line for each row and score, averaged over seeds: the long form that plotting libraries take.

    The untouched models stand under the rows; their column is empty elsewhere.
    """
    axes = list(dict.fromkeys(axis for comparison in comparisons for axis in comparison.axes))
    head = ["compared on", *axes, "untouched", "score", "mean", "sd", "seeds", "p", "transductive", "gain"]
    lines: list[list[object]] = [[*head]]
    for comparison in comparisons:
        for row in comparison.rows:
            settings = [row.settings.get(axis) for axis in axes]
            for name, cell in row.cells.items():
                figures = [cell.mean, cell.sd, len(cell.values), cell.p, cell.transductive, row.gain(name)]
                lines.append([comparison.title, *settings, "", name, *figures])
        for one in comparison.untouched:
            for name, score in one.scores.items():
                lines.append([comparison.title, *[""] * len(axes), one.label, name, score, *[""] * 5])
    return _csv(lines)


def _csv(lines: Sequence[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def markdown(comparisons: Sequence[Comparison]) -> str:
    """A table for each comparison."""
    parts = []
    for comparison in comparisons:
        head = [
            *comparison.axes,
            "seeds",
            *map(comparison.name, comparison.scores),
            gain_head(comparison),
            "loss",
            "training, s",
        ]
        lines = [head, ["---"] * len(comparison.axes) + ["---:"] * (len(head) - len(comparison.axes))]
        for row in comparison.rows:
            cells = [_bold(row.cells.get(name), "**{}**") for name in comparison.scores]
            end = [signed(row.gain(str(comparison.headline))), _number(row.loss, 4), _number(row.seconds, 1)]
            lines.append([*map(shown, row.settings.values()), seeds(row), *cells, *end])
        for one in comparison.untouched:
            scores = [_number(one.scores.get(name), 2) for name in comparison.scores]
            # Without an axis, the first column is that of the seeds.
            lines.append([one.label, *[""] * len(comparison.axes), *scores, "", "", ""])
        body = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
        parts.append(f"## {comparison.title}\n\n{body}\n")
    return "\n".join([*parts, MARKS, ""])


def latex(comparisons: Sequence[Comparison], labels: Mapping[str, str]) -> str:
    """A booktabs tabular for each comparison; needs \\usepackage{booktabs}.

    Args:
        comparisons: the tables.
        labels: what settings and sets are called, before ``mirror.report.labels``.
    """
    parts = ["% \\usepackage{booktabs}", f"% {_escape(MARKS)}"]
    for comparison in comparisons:
        headline = comparison.headline
        gain = [f"gain on {printed_as(comparison.name(headline), labels)}" if headline else "gain"]
        scores = [printed_as(comparison.name(name), labels) for name in comparison.scores]
        head = [*(printed_as(axis, labels) for axis in comparison.axes), "seeds", *scores, *gain]
        lines = [" & ".join(map(_escape, head)) + r" \\", r"\midrule"]
        for row in comparison.rows:
            cells = [_bold(row.cells.get(name), r"\textbf{{{}}}", latex=True) for name in comparison.scores]
            lines.append(
                " & ".join(
                    [
                        *(_escape(shown(item)) for item in row.settings.values()),
                        seeds(row),
                        *cells,
                        _escape(signed(row.gain(str(comparison.headline))).replace("-", MINUS)),
                    ]
                )
                + r" \\"
            )
        if comparison.untouched:
            lines.append(r"\midrule")
        for one in comparison.untouched:
            scores = [_escape(_number(one.scores.get(name), 2).replace("-", MINUS)) for name in comparison.scores]
            wide = len(comparison.axes) + 1
            lines.append(" & ".join([rf"\multicolumn{{{wide}}}{{l}}{{{_escape(one.label)}}}", *scores, ""]) + r" \\")
        columns = "l" * len(comparison.axes) + "r" * (len(head) - len(comparison.axes))
        body = "\n".join([rf"\begin{{tabular}}{{{columns}}}", r"\toprule", *lines, r"\bottomrule", r"\end{tabular}"])
        parts.append(f"% {_escape(comparison.title)}\n{body}")
    return "\n\n".join(parts) + "\n"


def _bold(cell: Cell | None, form: str, *, latex: bool = False) -> str:
    if cell is None:
        return "–" if not latex else "--"
    text = figure(cell)
    if latex:
        text = _escape(text.replace("-", MINUS))
    return form.format(text) if cell.best else text


def _number(item: float | None, digits: int) -> str:
    return f"{item:.{digits}f}" if item is not None else "–"


MINUS = "−"
_LATEX = str.maketrans({
    "\\": r"\textbackslash{}", "_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--", "−": r"$-$", "±": r"$\pm$", "†": r"\dag{}",
    "α": r"$\alpha$", "β": r"$\beta$", "γ": r"$\gamma$", "δ": r"$\delta$", "ε": r"$\epsilon$", "η": r"$\eta$",
    "θ": r"$\theta$", "λ": r"$\lambda$", "μ": r"$\mu$", "ρ": r"$\rho$", "σ": r"$\sigma$", "τ": r"$\tau$",
})  # fmt: skip


def _escape(text: str) -> str:
    return text.translate(_LATEX)
