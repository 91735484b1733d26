"""The tables at the end of a training run."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence

from mirror.evaluation.certainty import Comparison, Interval
from mirror.evaluation.results import Results
from mirror.report.details import geometry_table
from mirror.report.terminal import protocol_table, score_table
from mirror.runs.record import TUNED

log = logging.getLogger(__name__)

WHAT_COLUMNS_ARE = "\nraw: the untouched model, by pooling; tuned: after training; gain: of tuned over the best raw"


def print_scores(
    results: Results,
    comparisons: Sequence[Comparison],
    intervals: Mapping[str, Interval | None],
    pooling: str,
) -> None:
    """The scores before and after, and what to try where tuning did harm; ``pooling`` is the tuned encoder's."""
    seeds = len(results.seeds[TUNED])
    scores = results.scores
    tuned = f"tuned {pooling}"
    columns = {(tuned if column == TUNED else column): found for column, found in scores.items()}
    named = [dataclasses.replace(comparison, encoder=tuned) for comparison in comparisons]
    overlap = results.overlaps.get(TUNED, {})
    mean = f"mean of {seeds} seeds" if seeds > 1 else ""
    title = "Before and after, × 100 (Spearman, all pairs of a set ranked together, unless named)"
    if mean:
        title += f"; {mean.replace('mean', 'mean ± sd')}"
    table = score_table(columns, title, comparisons=named, overlaps={tuned: overlap})
    after = scores[TUNED]
    raw = [found for column, found in scores.items() if column != TUNED]
    log.info("\n%s%s", table, WHAT_COLUMNS_ARE if raw else "")
    worse = [name for name, score in after.items() if any(score.value < found[name].value for found in raw)]
    if worse:
        log.warning(
            "Lower than the untouched model on %s: try another optim.lr, loss.temperature or model.pooling.",
            ", ".join(worse),
        )
    title = ", ".join(filter(None, [f"{tuned} by protocol, × 100 (Spearman, unless named)", mean]))
    log.info("\n%s", protocol_table(after, title, intervals, overlap))
    if results.geometry:
        log.info("\n%s", geometry_table(results.geometry, "Geometry of the space" + ", last seed" * bool(mean)))
