"""The tables of scores that a person reads at the end of a run."""

from collections.abc import Mapping, Sequence

from mirror.evaluation.certainty import Comparison, Interval
from mirror.evaluation.contamination import Overlap
from mirror.evaluation.sets import Score
from mirror.evaluation.sets.sts import AVERAGE, AVERAGED, sts_average
from mirror.report.console import new_table, printed

PROTOCOL_NAMES = {
    "all": "all", "mean": "mean of parts", "wmean": "weighted mean",
    "ap": "average precision", "auc": "AUC",
    "mrr": "MRR", "recall@1": "recall@1", "recall@10": "recall@10",
    "acc@1": "accuracy@1", "acc@5": "accuracy@5", "csls acc@1": "CSLS accuracy@1", "csls mrr": "CSLS MRR",
}  # fmt: skip
SEEN = "†"
"""Stands behind every score of an encoder that was trained on texts of the set."""
SEEN_NOTE = f"{SEEN} transductive: texts of the set were trained on, without their scores"


def protocol_name(protocol: str) -> str:
    """What a protocol is called in tables; one of a user's own kind of set as it calls itself."""
    return PROTOCOL_NAMES.get(protocol, protocol)


Scores = Mapping[str, Score]
Overlaps = Mapping[str, Mapping[str, Overlap]]
"""By encoder and set."""


def score_table(
    columns: Mapping[str, Scores],
    title: str,
    *,
    gain: bool = True,
    comparisons: Sequence[Comparison] = (),
    overlaps: Overlaps | None = None,
) -> str:
    """Sets as rows, encoders as columns; the headline protocol.

    With ``gain`` a last column has the last encoder's gain over the best other. ``comparisons`` put their marks behind
    the gain, or without it behind each score.
    """
    overlaps = overlaps or {}
    table = new_table(title)
    table.add_column("set")
    table.add_column("pairs", justify="right")
    for name in columns:
        table.add_column(name, justify="right")
    *others, last = columns
    gain = gain and bool(others)
    if gain:
        table.add_column("gain", justify="right")
    marks = {(c.set, c.encoder, c.against): c.mark for c in comparisons}
    for name, score in columns[last].items():
        cells = [figure(columns[column][name], name in _seen(overlaps, column)) for column in columns]
        values = {column: columns[column][name].value for column in columns}
        table.add_row(_label(name, score), str(score.pairs), *_marked(name, cells, values, marks, gain=gain))
    averages = {column: sts_average(_values(scores)) for column, scores in columns.items()}
    if None not in averages.values():
        values = {column: average for column, average in averages.items() if average is not None}
        cells = [
            _figure(values[column], average_deviation(columns[column])) + SEEN * (AVERAGE in _seen(overlaps, column))
            for column in columns
        ]
        table.add_row(AVERAGE, "", *_marked(AVERAGE, cells, values, marks, gain=gain))
    return "\n".join([printed(table), *_notes(comparisons, overlaps, columns)])


def _marked(
    name: str,
    cells: list[str],
    values: Mapping[str, float],
    marks: Mapping[tuple[str, str, str], str],
    *,
    gain: bool,
) -> list[str]:
    columns = list(values)
    if gain:
        best = max(columns[:-1], key=values.__getitem__)
        gained = f"{values[columns[-1]] - values[best]:+.2f} {marks.get((name, columns[-1], best), '')}"
        return [*cells, gained.rstrip()]
    return [
        f"{cell} {marks.get((name, column, columns[0]), '')}".rstrip()
        for cell, column in zip(cells, columns, strict=True)
    ]


def _notes(comparisons: Sequence[Comparison], overlaps: Overlaps, columns: Mapping[str, Scores]) -> list[str]:
    first = next(iter(columns.values()))
    notes = [f"{name}: {score.note}" for name, score in first.items() if score.note]
    if comparisons:
        notes.append(
            f"* p < 0.05, ** p < 0.01, corrected for {len(comparisons)} comparisons (Holm): Williams' test where "
            "correlations of one seed are compared, else paired bootstrap"
        )
    if any(_seen(overlaps, column) for column in columns):
        notes.append(SEEN_NOTE)
    return notes


def _seen(overlaps: Overlaps, column: str) -> set[str]:
    """The sets that the encoder was trained on texts of; and the average of the seven, if one of them is."""
    seen = {name for name, overlap in overlaps.get(column, {}).items() if overlap.transductive}
    return seen | {AVERAGE} if seen & {*AVERAGED} else seen


def figure(score: Score, transductive: bool = False) -> str:
    """A score in a table: with its deviation over the seeds, and marked where the set's texts were trained on."""
    return _figure(score.value, score.deviation) + SEEN * transductive


def _figure(value: float, deviation: float | None) -> str:
    return f"{value:.2f}" + (f" ± {deviation:.2f}" if deviation is not None else "")


def average_deviation(scores: Scores) -> float | None:
    """Of the average of the seven sets, over the seeds."""
    by_seed = [scores[name].seeds for name in AVERAGED]
    if len(by_seed[0]) < 2:
        return None
    averages = [sts_average(dict(zip(AVERAGED, figures, strict=True))) for figures in zip(*by_seed, strict=True)]
    return Score(AVERAGE, 0, {}, seeds=[average for average in averages if average is not None]).deviation


def _values(scores: Scores) -> dict[str, float]:
    return {name: score.value for name, score in scores.items()}


def _label(name: str, score: Score) -> str:
    return name if score.headline == "all" else f"{name} ({protocol_name(score.headline)})"


def protocol_table(
    scores: Scores,
    title: str,
    intervals: Mapping[str, Interval | None] | None = None,
    overlaps: Mapping[str, Overlap] | None = None,
) -> str:
    """Sets as rows, protocols as columns, and the interval of the headline protocol."""
    table = new_table(title)
    table.add_column("set")
    table.add_column("pairs", justify="right")
    found = dict.fromkeys(key for score in scores.values() for key in score.protocols)
    used = [key for key in PROTOCOL_NAMES if key in found] + [key for key in found if key not in PROTOCOL_NAMES]
    for key in used:
        table.add_column(protocol_name(key), justify="right")
    if intervals:
        table.add_column("95 % interval", justify="right")
    seen = _seen({"": overlaps or {}}, "")
    for name, score in scores.items():
        cells = [f"{score.protocols[key]:.2f}" if key in score.protocols else "–" for key in used]
        if intervals:
            cells.append(_reach(intervals.get(name)))
        table.add_row(name + f" {SEEN}" * (name in seen), str(score.pairs), *cells)
    average = sts_average(_values(scores))
    if average is not None:
        cells = [f"{average:.2f}", *[""] * (len(used) - 1), *([_reach(intervals.get(AVERAGE))] if intervals else [])]
        table.add_row(AVERAGE + f" {SEEN}" * (AVERAGE in seen), "", *cells)
    notes = _notes((), {"": overlaps or {}}, {"": scores})
    if intervals:
        headlines = {protocol_name(score.headline) for score in scores.values()}
        notes.insert(
            0, f"95 % interval: of the figure by {' or '.join(sorted(headlines))}, bootstrapped over the pairs"
        )
    return "\n".join([printed(table), *notes])


def _reach(interval: Interval | None) -> str:
    return f"{interval[0]:.2f} … {interval[1]:.2f}" if interval else "–"


def difference_table(comparisons: Sequence[Comparison], title: str, overlaps: Overlaps) -> str:
    """How far each encoder is from the one it is compared with: the difference, its interval, and p.

    A difference is marked where either was trained on texts of the set.
    """
    table = new_table(title)
    for heading in ("set", "encoder"):
        table.add_column(heading)
    for heading in ("difference", "95 % interval", "p bootstrap", "p Williams", "p Holm", ""):
        table.add_column(heading, justify="right")
    for found in comparisons:
        ps = (found.p_bootstrap, found.p_williams, found.p_holm)
        cells = ["–" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}" for p in ps]
        seen = any(found.set in _seen(overlaps, column) for column in (found.encoder, found.against))
        difference = f"{found.difference:+.2f}" + SEEN * seen
        table.add_row(found.set, found.encoder, difference, _reach(found.interval), *cells, found.mark)
    return printed(table)


def part_table(columns: Mapping[str, Scores], title: str, overlaps: Overlaps) -> str | None:
    """The headline figure of each part of the sets that have parts; None where there are none."""
    table = new_table(title)
    table.add_column("set")
    table.add_column("part")
    for name in columns:
        table.add_column(name, justify="right")
    for name, score in next(iter(columns.values())).items():
        for part in score.parts:
            cells = [
                f"{scores[name].parts[part]:.2f}" + SEEN * (name in _seen(overlaps, column))
                for column, scores in columns.items()
            ]
            table.add_row(name, part, *cells)
    return printed(table) if table.row_count else None
