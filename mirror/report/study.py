"""The pictures of a search by Optuna, from its ``search.db`` beside the runs."""

import logging
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
    first: Any = {"target": lambda trial: trial.values[0], "target_name": name.removesuffix(" and time")}
    if len(varied) > 1 and len({trial.values[0] for trial in finished}) > 1:
        lower = {**first, "target": lambda trial: -trial.values[0]}  # which the evaluator takes for better, and says
        with warnings.catch_warnings(action="ignore", category=UserWarning):
            plot = visualization.plot_param_importances(
                study, evaluator=PedAnovaImportanceEvaluator(), params=varied, **lower
            )
        note = "Which setting tells the best trials from the others (PED-ANOVA); of few trials it says little."
        found.append(Figure(f"{title}: importances", note, plot))
    if varied:
        plot = visualization.plot_parallel_coordinate(study, params=varied, **first)
        plot.update_traces(line={"colorscale": "Viridis", "reversescale": False}, selector={"type": "parcoords"})
        found.append(Figure(f"{title}: every trial", "Logarithmic where the search drew so.", plot))
    for figure in found:
        figure.plot.update_layout(title=None)  # the page has its own
    return found
