"""The pictures of a search by Optuna, from its ``search.db`` beside the runs."""

import logging
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mirror.runs.registry import STUDY

if TYPE_CHECKING:
    from mirror.report.figures import Figure

log = logging.getLogger(__name__)

AXES = 12
"""Most axes of parallel coordinates that can be told apart."""


def study_figures(folders: Sequence[Path]) -> "list[Figure]":
    """History, importances and parallel coordinates of each study directly in the folders, and the trade-off of two
    objectives; none without Optuna."""
    paths = [folder / STUDY for folder in folders if (folder / STUDY).is_file()]
    if not paths:
        return []
    try:
        import optuna
    except ImportError:
        log.warning("%s is left out: pip install 'mirror-encoders[optuna]'", paths[0])
        return []
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    found = []
    for path in paths:
        try:
            storage = f"sqlite:///{path.resolve()}"
            for name in optuna.get_all_study_names(storage):
                found += _of(optuna.load_study(study_name=name, storage=storage), name)
        except Exception as error:  # of the database, whose library names it in many ways
            log.warning("%s cannot be read (%s): left out", path, type(error).__name__)
    return found


def _of(study: Any, name: str) -> "list[Figure]":
    from optuna import visualization
    from optuna.importance import PedAnovaImportanceEvaluator
    from optuna.trial import TrialState

    from mirror.report.figures import Figure

    finished = study.get_trials(states=[TrialState.COMPLETE])
    if not finished:
        return []
    title = f"Search by {name}"
    if len(study.directions) > 1:
        plot = visualization.plot_pareto_front(study, target_names=["score", "training, seconds"])
        found = [Figure(f"{title}: trade-off", "Of the best, none has both a better score and less time.", plot)]
    else:
        plot = visualization.plot_optimization_history(study, target_name=name)
        found = [Figure(f"{title}: history", "Each finished trial, and the best until then.", plot)]
    varied = [key for key in finished[0].params if len({trial.params.get(key) for trial in finished}) > 1][:AXES]
    first: dict[str, Any] = {"target": lambda trial: trial.values[0], "target_name": name.removesuffix(" and time")}
    if len(varied) > 1 and len({trial.values[0] for trial in finished}) > 1:
        lower = {**first, "target": lambda trial: -trial.values[0]}  # which the evaluator takes for better, and says
        with warnings.catch_warnings(action="ignore", category=UserWarning):
            plot = visualization.plot_param_importances(
                study, evaluator=PedAnovaImportanceEvaluator(), params=varied, **lower
            )
        note = "Which setting tells the best trials from the others (PED-ANOVA); of few trials it says little."
        found.append(Figure(f"{title}: importances", note, plot))
    if varied:
        plot = _parallel(finished, varied, first["target_name"])
        note = "A line is a trial; drag along an axis to single some out. Logarithmic where the search drew so."
        found.append(Figure(f"{title}: every trial", note, plot))
    for figure in found:
        # The page has its own title. The figures at the ends of bars and axes want room.
        figure.plot.update_layout(title=None, margin={"t": 56, "r": 48, "b": 44, "l": 56})
    return found


def _parallel(trials: Sequence[Any], axes: Sequence[str], score: str) -> Any:
    """Parallel coordinates: the score of each trial, then what the search drew for it."""
    from plotly import graph_objects as go

    from mirror.report.figures import COLORS

    scores = [trial.values[0] for trial in trials]
    dimensions = [{"label": score, "values": scores}]
    for axis in axes:
        chosen = [trial for trial in trials if axis in trial.params]  # all, unless the search was given more axes
        values, ticks = _scaled([trial.params[axis] for trial in chosen], chosen[0].distributions[axis])
        known = dict(zip((trial.number for trial in chosen), values, strict=True))
        dimensions.append({"label": axis, "values": [known.get(trial.number) for trial in trials], **ticks})
    colors = [COLORS[7], COLORS[1]]  # grey to orange, visible on white and on black
    line = {"color": scores, "colorscale": colors, "showscale": True, "colorbar": {"title": score}}
    return go.Figure(go.Parcoords(dimensions=dimensions, line=line, labelangle=-12))


def _scaled(values: Sequence[Any], drawn: Any) -> tuple[Sequence[float], dict[str, Any]]:
    """The values of a setting as numbers, and the ticks that say which value a number is."""
    if hasattr(drawn, "choices"):
        known = [choice for choice in drawn.choices if choice in values]
        ticks = {"tickvals": list(range(len(known))), "ticktext": [str(choice) for choice in known]}
        return [float(known.index(value)) for value in values], ticks
    if not drawn.log:
        return values, {}
    scaled = [math.log10(value) for value in values]
    low, high = min(scaled), max(scaled)
    marks = [low + (high - low) * share / 4 for share in range(5)]
    return scaled, {"tickvals": marks, "ticktext": [f"{10**mark:.2g}" for mark in marks]}
