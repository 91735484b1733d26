"""The picture at the end of a run: cosine similarities before and after."""

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mirror.evaluation.cosines import EDGES

log = logging.getLogger(__name__)

PICTURE = "cosines.png"
COLORS = {"true": "tab:green", "random": "tab:gray"}
LABELS = {"true": "pairs that belong together", "random": "random pairs"}

Histograms = Mapping[str, Mapping[str, list[int]]]
"""For each set, the counts of ``true`` and ``random`` pairs."""


def draw_cosines(before: tuple[str, Histograms], after: tuple[str, Histograms], path: Path) -> None:
    """Histograms as a PNG: a row for each set, the untouched model on the left, the tuned one on the right.

    Without matplotlib there is no picture, only a line in the log.

    Args:
        before: name and counts of the untouched model.
        after: the same of the tuned one.
        path: of the file.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        log.info("no picture without matplotlib: pip install 'mirror-encoders[plots]'")
        return
    sets = list(after[1])
    figure = Figure(figsize=(9, 0.8 + 2.6 * len(sets)), layout="constrained")
    FigureCanvasAgg(figure)
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
    figure.savefig(path, dpi=130)
