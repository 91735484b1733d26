"""The plots at the end of a run: cosine similarities before and after training, and the geometry during it."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mirror.evaluation.cosines import EDGES, Histograms
from mirror.runs.atomic import written_whole

log = logging.getLogger(__name__)

PICTURE = "cosines.png"
GEOMETRY_PICTURE = "geometry.png"
COLORS = {"true": "tab:green", "random": "tab:gray"}
LABELS = {"true": "pairs that belong together", "random": "random pairs"}


def draw_cosines(before: tuple[str, Histograms], after: tuple[str, Histograms], path: Path) -> None:
    """Draw the histograms as a PNG: a row for each set, the untouched model on the left, the tuned one on the right.

    Without matplotlib there is no picture, only a line in the log.

    Args:
        before: name and counts of the untouched model.
        after: the same of the tuned one.
        path: of the file.
    """
    sets = list(after[1])
    figure = _figure(9, 0.8 + 2.6 * len(sets))
    if figure is None:
        return
    axes = figure.subplots(len(sets), 2, sharex=True, sharey="row", squeeze=False)
    for row, name in zip(axes, sets, strict=True):
        for axis, (title, counts) in zip(row, (before, after), strict=True):
            for kind, values in counts[name].items():
                share = np.array(values) / max(sum(values), 1)
                axis.stairs(share, EDGES, fill=True, alpha=0.55, color=COLORS[kind], label=LABELS[kind])
            axis.set_title(f"{name}: {title}", fontsize=10)
            axis.spines[["top", "right"]].set_visible(False)
        row[0].set_ylabel("share of pairs")
    for axis in axes[-1]:
        axis.set_xlabel("cosine similarity")
    occupied = np.flatnonzero(sum(np.array(v) for h in (before[1], after[1]) for s in sets for v in h[s].values()))
    axes[0][0].set_xlim(EDGES[occupied[0]] - 0.02, 1.02)
    axes[0][0].legend(fontsize=8, loc="upper left", frameon=False)
    with written_whole(path) as partial:
        figure.savefig(partial, dpi=130)


def draw_geometry(curve: Mapping[str, list[float]], path: Path) -> None:
    """Draw each figure of the geometry over the steps as a PNG.

    Args:
        curve: the steps and, by name, the figures at each step: ``geometry_curve`` of the record.
        path: of the file.
    """
    names = [name for name in curve if name != "step"]
    figure = _figure(9, 2.6 * ((len(names) + 1) // 2))
    if figure is None:
        return
    for axis, name in zip(figure.subplots(-(-len(names) // 2), 2, squeeze=False).flat, names, strict=False):
        axis.plot(curve["step"], curve[name], marker=".", color="tab:blue")
        axis.set_title(name.replace("_", " "), fontsize=10)
        axis.set_xlabel("step")
        axis.spines[["top", "right"]].set_visible(False)
    with written_whole(path) as partial:
        figure.savefig(partial, dpi=130)


def _figure(width: float, height: float) -> Any:
    """An empty figure of this size in inches; None without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        log.info("no picture without matplotlib: pip install 'mirror-encoders[plots]'")
        return None
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure
