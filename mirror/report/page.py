"""A self-contained HTML page, which opens from the disk without a network."""

import base64
import json
import os
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from mirror.errors import MirrorError
from mirror.report.files import MARKS, figure, gain_head, seeds, signed
from mirror.report.labels import short_names
from mirror.report.published import published
from mirror.report.runs import Found, Run
from mirror.report.table import Comparison, order, shown, value, varying

if TYPE_CHECKING:
    from mirror.report.figures import Figure

TEMPLATE = Path(__file__).with_name("page.html")


def page(
    found: Found,
    comparisons: Sequence[Comparison],
    title: str,
    folder: Path,
    every: int | None,
    *,
    searches: Sequence["Figure"] = (),
    others: bool = False,
) -> str:
    """The page as text.

    Args:
        found: all runs.
        comparisons: the finished ones.
        title: heading.
        folder: where the page will lie, for its links.
        searches: pictures of the searches that proposed the runs.
        others: whether published figures stand under the tables.
        every: seconds after which a browser reads it again; None is never.

    Raises:
        MirrorError: a package is missing.
    """
    try:
        import itables.options
        import jinja2
        from plotly.offline import get_plotlyjs

        from mirror.report.figures import figures
    except ImportError as error:
        raise MirrorError(f"A report needs the package {error.name}: pip install 'mirror-encoders[report]'.") from None

    pictures: list[list[dict[str, Any]]] = []
    plots: list[dict[str, Any]] = []
    for group in (*map(figures, comparisons), searches):
        pictures.append([])
        for picture in group:
            picture.plot.update_layout(template=None)
            pictures[-1].append({"title": picture.title, "note": picture.note, "number": len(plots)})
            name = "".join(letter if letter.isalnum() else "-" for letter in picture.title)
            plots.append({**json.loads(picture.plot.to_json()), "name": name})
    axes = varying(found.runs)
    runs = sorted(found.runs, key=lambda run: [order(value(run, axis)) for axis in axes])

    def difference(run: Run) -> str:
        return ", ".join(f"{axis}={shown(value(run, axis))}" for axis in axes)

    def details(run: Run) -> dict[str, str | None]:
        settings = "\n".join(f"{axis}={value(run, axis)}" for axis in axes)
        settings += f"\ncommit {run.commit}" * bool(run.commit)
        names = dict.fromkeys(name for sample in run.samples for name in sample.scores)
        scores = "\n".join(f"{name} {mean_score(run, name):.2f}" for name in names)
        link = Path(os.path.relpath(run.folder, folder)).as_posix()
        return {
            "error": run.error,
            "scores": scores,
            "settings": settings,
            "command": run.command,
            "log": run.log(),
            "folder": link,
        }

    # The bundle of DataTables that itables brings along, so that no network is needed.
    bundle = Path(itables.options.dt_bundle)
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        title=title,
        summary=how_they_ended(found.runs),
        when=datetime.now().strftime("%Y-%m-%d %H:%M:%S"),
        every=every,
        problems=found.problems,
        comparisons=comparisons,
        pictures=pictures,
        plots=json.dumps(plots).replace("<", "\\u003c"),
        axes=axes,
        runs=runs,
        details=[details(run) for run in runs],
        difference=difference,
        beside=partial(beside, others=others),
        sets=short_names(dict.fromkeys(name for run in runs for sample in run.samples for name in sample.scores)),
        mean=mean_score,
        figure=figure,
        gain_head=gain_head,
        signed=signed,
        seeds=seeds,
        shown=shown,
        value=value,
        marks=MARKS,
        plotly_js=get_plotlyjs(),
        table_js=base64.b64encode(bundle.read_bytes()).decode(),
        table_css=bundle.with_suffix(".css").read_text(encoding="utf-8"),
    )


def mean_score(run: Run, name: str) -> float | None:
    """The score of a run on a set, mean over its seeds; None where it was not measured."""
    values = [sample.scores[name] for sample in run.samples if name in sample.scores]
    return fmean(values) if values else None


def beside(comparison: Comparison, *, others: bool = False) -> dict[str, dict[str, float]]:
    """Rows under a table: the untouched models, and on request published figures, which are other backbones'."""
    raw = {one.label: one.scores for one in comparison.untouched}
    if not others:
        return raw
    return raw | {f"another backbone: {name}": scores for name, scores in published(comparison.scores).items()}


def how_they_ended(runs: Sequence[Run]) -> str:
    """How many runs there are, and how they ended."""
    states = [run.status for run in runs]
    parts = [f"{states.count(state):,} {state}" for state in dict.fromkeys(["finished", *sorted(states)])]
    return f"{len(runs):,} {'run' if len(runs) == 1 else 'runs'}: {', '.join(parts)}."
