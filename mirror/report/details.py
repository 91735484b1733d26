"""The printed tables beside the scores: the audit, the geometry, the pairs and words that an encoder gets wrong."""

import math
from collections.abc import Collection, Mapping, Sequence
from statistics import mean

from rich.markup import escape

from mirror.evaluation.contamination import Overlap
from mirror.evaluation.geometry import Geometry
from mirror.evaluation.residuals import Kind, WorstPair
from mirror.report.console import new_table, printed
from mirror.report.terminal import SEEN


def audit_table(overlaps: Mapping[str, Overlap], title: str) -> str:
    """What of each test set stands in the training texts."""
    table = new_table(title)
    table.add_column("set")
    for heading in ("texts", "exact", "near", "pairs", "both texts", "as given pair"):
        table.add_column(heading, justify="right")
    for name, found in overlaps.items():
        exact, near = (_share(part, found.texts) for part in (found.exact, found.near))
        both, positives = (_share(part, found.pairs) for part in (found.both, found.positives))
        table.add_row(name, f"{found.texts:,}", exact, near, f"{found.pairs:,}", both, positives)
    return printed(table)


def _share(part: int, whole: int) -> str:
    return f"{part:,} ({100 * part / whole:.1f} %)" if part else "0"


def geometry_table(columns: Mapping[str, Geometry], title: str) -> str:
    """Encoders as rows."""
    table = new_table(title)
    table.add_column("")
    for heading in ("alignment", "uniformity", "anisotropy", "effective rank"):
        table.add_column(heading, justify="right")
    for name, found in columns.items():
        values = (found.alignment, found.uniformity, found.anisotropy)
        table.add_row(name, *(f"{value:.3f}" for value in values), f"{found.effective_rank:.1f}")
    return printed(table)


def mteb_table(scores: Mapping[str, Mapping[str, float]], title: str) -> str:
    """Tasks of MTEB as rows, with their mean below several, encoders as columns."""
    table = new_table(title)
    table.add_column("task")
    for name in scores:
        table.add_column(name, justify="right")
    tasks = list(next(iter(scores.values())))
    for task in tasks:
        table.add_row(task, *(f"{found[task]:.2f}" for found in scores.values()))
    if len(tasks) > 1:
        table.add_row("mean over tasks", *(f"{mean(found.values()):.2f}" for found in scores.values()))
    return printed(table)


def worst_table(worst: Sequence[WorstPair], title: str) -> str:
    """The pairs that stand farthest from their place, and by how much: a share of the pairs, + is too similar."""
    table = new_table(title)
    table.add_column("texts", ratio=1)
    table.add_column("gold", justify="right")
    for name in worst[0].residuals:
        table.add_column(name, justify="right")
    for pair in worst:
        texts = escape(f"{pair.left}\n{pair.right}")
        table.add_row(texts, f"{pair.gold:g}", *(f"{value:+.2f}" for value in pair.residuals.values()))
    return printed(table)


def kind_table(kinds: Sequence[Kind], title: str, seen: Collection[str]) -> str:
    """Scores by kind of pair; the columns in ``seen`` were trained on texts of the set."""
    table = new_table(title)
    for heading in ("", "kind"):
        table.add_column(heading)
    for heading in ("pairs", *(column + f" {SEEN}" * (column in seen) for column in kinds[0].scores)):
        table.add_column(heading, justify="right")
    for kind in kinds:
        cells = ["–" if math.isnan(value) else f"{value:.2f}" for value in kind.scores.values()]
        table.add_row(kind.group, kind.name, str(kind.pairs), *cells)
    return printed(table)


def neighbour_table(neighbours: Mapping[str, Mapping[str, Sequence[tuple[str, float]]]], title: str) -> str:
    """Words as rows, encoders as columns, in each cell the nearest texts."""
    table = new_table(title)
    table.add_column("")
    for name in neighbours:
        table.add_column(name, ratio=1)
    for word in next(iter(neighbours.values())):
        cells = [", ".join(f"{text} {cosine:.2f}" for text, cosine in near[word]) for near in neighbours.values()]
        table.add_row(escape(word), *(escape(cell) for cell in cells))
    return printed(table)
