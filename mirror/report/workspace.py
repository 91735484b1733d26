"""A workspace in W&B that compares the runs of a sweep, once they are uploaded."""

from collections.abc import Sequence
from typing import Any

from mirror.config import Tracker
from mirror.errors import MirrorError
from mirror.report.runs import Run
from mirror.report.table import Comparison
from mirror.runs.record import TUNED, headline


def workspace(runs: Sequence[Run], comparisons: Sequence[Comparison], entity: str, name: str) -> Any:
    """The workspace, not saved yet: runs grouped by axis, each score along each axis over the seeds, the losses.

    Args:
        runs: of a sweep that was tracked with ``logger=wandb``; others are left out.
        comparisons: of the finished ones.
        entity: the user or the team that the project belongs to.
        name: of the workspace.

    Raises:
        MirrorError: the package is not installed, or the runs are not in W&B, or in several projects.
    """
    try:
        import wandb_workspaces.reports.v2 as panels
        import wandb_workspaces.workspaces as ws
    except ImportError:
        raise MirrorError(
            f"wandb={entity} needs the package wandb-workspaces: pip install 'mirror-encoders[workspace]'."
        ) from None
    tracked = [run for run in runs if Tracker.wandb.value in run.settings["logger.trackers"] and run.group]
    projects = {str(run.settings["logger.project"]) for run in tracked}
    if len(projects) != 1:
        told = f"lie in the projects {', '.join(sorted(projects))}" if projects else "are no sweep with logger=wandb"
        raise MirrorError(f"wandb={entity} compares runs of one project of W&B, and these {told}: give others.")

    # W&B keeps a setting as {"value": …} under its full name, dots and all: without "value" behind it, the package
    # would take the dots for levels.
    axes = dict.fromkeys(axis for comparison in comparisons for axis in comparison.axes)
    keys = {axis: f"{axis}.value" for axis in axes if axis in tracked[0].settings}
    scores = {  # as mirror.trackers calls them
        name: f"{TUNED}/{name}/{headline(run.content, name, score)}"
        for run in tracked
        for name, score in run.content.get("scores", {}).get(TUNED, {}).items()
    }
    along = [
        panels.BarPlot(
            title=f"{name} by {axis}",
            metrics=[panels.SummaryMetric(score)],
            orientation="v",
            groupby=panels.Config(key),
            groupby_aggfunc="mean",
            groupby_rangefunc="stddev",
        )
        for name, score in scores.items()
        for axis, key in keys.items()
    ]
    losses = [panels.LinePlot(title=f"loss by {axis}", y=["loss"], groupby=panels.Config(keys[axis])) for axis in keys]
    space = [
        panels.ScatterPlot(
            title="alignment against uniformity",
            x=panels.SummaryMetric("geometry/uniformity"),
            y=panels.SummaryMetric("geometry/alignment"),
        )
    ]
    return ws.Workspace(
        entity=entity,
        project=projects.pop(),
        name=name,
        sections=[
            ws.Section(name="Scores", panels=along, is_open=True),
            ws.Section(name="Training", panels=[*losses, *space], is_open=True),
            ws.Section(name="Settings", panels=[panels.RunComparer(diff_only="split")]),
        ],
        runset_settings=ws.RunsetSettings(
            filters=[ws.Metric("Group").isin(sorted({run.group for run in tracked if run.group}))],
            groupby=[ws.Config(key) for key in keys.values()],
            pinned_columns=[
                *(f"config:{key}" for key in keys.values()),
                *(f"summary:{key}" for key in scores.values()),
            ],
        ),
    )


def save(made: Any) -> str:
    """Save a workspace on the server; returns its address.

    Raises:
        MirrorError: there is no key, or W&B refuses or does not answer.
    """
    from mirror.runs.login import has_key

    if not has_key():
        raise MirrorError(f"wandb={made.entity} needs a key of W&B: set WANDB_API_KEY, or give wandb login one.")
    try:
        made.save()
    except Exception as error:  # the package may raise anything from its server or the network
        raise MirrorError(f"W&B did not take the workspace ({' '.join(str(error).split())[:200]}).") from error
    return str(made.url)
