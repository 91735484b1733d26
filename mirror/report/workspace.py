"""A workspace in W&B that compares the runs of a sweep, once they lie there."""

from collections.abc import Sequence
from typing import Any

from mirror.errors import MirrorError
from mirror.report.runs import AVERAGE, Run
from mirror.report.table import Comparison

WIDE, HIGH = 12, 9
"""Of a panel, in the workspace's units: two beside each other."""


def workspace(runs: Sequence[Run], comparison: Comparison, entity: str, name: str) -> Any:
    """The workspace, not saved yet: the table by axis, each score along each axis, parallel coordinates, the losses.

    Args:
        runs: that were tracked with ``logger=wandb``.
        comparison: of these.
        entity: the user or the team that the project belongs to.
        name: of the workspace.

    Raises:
        MirrorError: the package is not installed, the runs are not in W&B, or not in one project.
    """
    try:
        import wandb_workspaces.reports.v2 as panels
        import wandb_workspaces.workspaces as ws
    except ImportError:
        raise MirrorError(
            f"wandb={entity} needs the package wandb-workspaces: pip install 'mirror-encoders[workspace]'."
        ) from None
    tracked = [run for run in runs if "wandb" in str(run.settings["logger.trackers"])]
    projects = {str(run.settings["logger.project"]) for run in tracked}
    if len(projects) != 1:
        found = f"are in {', '.join(sorted(projects))}" if projects else "were not tracked by W&B"
        raise MirrorError(
            f"wandb={entity} needs runs of one project, and these {found}: run with logger=wandb, then sync."
        )

    # W&B keeps a setting as {"value": …} under its full name, dots and all; without ``value`` at the end the package
    # would take the dots for levels.
    axes = {axis: panels.Config(f"{axis}.value") for axis in comparison.axes if axis in tracked[0].settings}
    headline = {sets: next(iter(scores)) for run in tracked for sets, scores in _scores(run).items()}
    scores = {
        name: panels.SummaryMetric(f"tuned/{name}/{headline[name]}") for name in comparison.scores if name != AVERAGE
    }
    column = panels.ParallelCoordinatesPlotColumn
    layout = panels.Layout(w=WIDE, h=HIGH)
    along = [
        panels.ScatterPlot(title=f"{name} against {axis}", x=setting, y=score, layout=layout)
        for name, score in scores.items()
        for axis, setting in axes.items()
    ]
    together = panels.ParallelCoordinatesPlot(
        columns=[
            *(column(setting, display_name=axis) for axis, setting in axes.items()),
            *(column(score, display_name=name) for name, score in scores.items()),
        ],
        layout=panels.Layout(w=2 * WIDE, h=HIGH),
    )
    first = next(iter(axes.values()), None)
    loss = panels.LinePlot(title="loss", x="Step", y=["loss"], groupby=first, layout=layout)
    space = panels.ScatterPlot(
        title="alignment against uniformity",
        x=panels.SummaryMetric("geometry/uniformity"),
        y=panels.SummaryMetric("geometry/alignment"),
        layout=layout,
    )
    groups = sorted({str(run.group) for run in tracked})
    return ws.Workspace(
        entity=entity,
        project=projects.pop(),
        name=name,
        sections=[
            ws.Section(name="Scores", panels=[together, *along], is_open=True),
            ws.Section(name="Training", panels=[loss, space], is_open=True),
            ws.Section(name="Settings", panels=[panels.RunComparer(diff_only="split")]),
        ],
        runset_settings=ws.RunsetSettings(
            filters=[ws.Metric("Group").isin(groups)],
            groupby=[ws.Config(f"{axis}.value") for axis in axes],
        ),
    )


def _scores(run: Run) -> dict[str, dict[str, float]]:
    tuned: dict[str, dict[str, float]] = run.content.get("scores", {}).get("tuned", {})
    return tuned
