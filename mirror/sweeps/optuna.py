"""Hyper-parameter search by Optuna instead of a grid."""

import logging
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override

from mirror.config.compose import quoted
from mirror.errors import MirrorError
from mirror.runs.atomic import written_whole
from mirror.runs.record import TUNED, headline
from mirror.runs.registry import STUDY, runs_in
from mirror.sweeps.grid import Grid, only_sweep
from mirror.sweeps.progress import outcome

log = logging.getLogger(__name__)

STATES = {"finished": "COMPLETE", "pruned": "PRUNED"}
"""States of runs that are not repeated, with Optuna's names for them."""


class OptunaSearch(Grid):
    """Optuna instead of a grid: each trial is an ordinary run, proposed by Optuna and reported to it.

    The study is ``search.db`` in the folder of the sweep: a search that was killed continues where it stopped, and one
    that is started with more ``trials`` adds to those it has. With ``select=best`` and one objective, runs that fall
    behind on ``eval.validation`` are pruned; see ``mirror.training.pruning``. The defaults are in
    ``conf/sweep/optuna.yaml``.

    Args:
        trials: their total number.
        score: the test set whose headline score is maximised.
        time: whether training time is minimised, as a second objective.
        seed: for the proposals.
        max_batch_size: trials launched together, as many as run in parallel; None is one.
        params: the axes, as ranges and choices.
        grids: none in a search.
    """

    def __init__(
        self,
        trials: int,
        score: str,
        time: bool,
        seed: int,
        max_batch_size: int | None = None,
        params: dict[str, str] | None = None,
        grids: None = None,
    ) -> None:
        super().__init__(max_batch_size or 1, params)
        self.trials, self.score, self.time, self.seed = trials, score, time, seed

    def sweep(self, arguments: list[str]) -> None:
        """Run the trials that are missing.

        Raises:
            MirrorError: a setting is wrong, Optuna is not installed, the launcher broke, or a trial failed.
        """
        try:
            import optuna
            from optuna.study import StudyDirection
        except ImportError:
            raise MirrorError("A search needs the package optuna: pip install 'mirror-encoders[optuna]'.") from None
        assert self.config is not None
        self._check()
        overrides = {
            override.get_key_element(): override for override in self._parse([*self._parse_config(), *arguments])
        }
        space = {key: _distribution(override) for key, override in overrides.items() if override.is_sweep_override()}
        if not space or self.trials < 1:
            raise MirrorError(
                "A search needs an axis, as in optim.lr=interval(1e-4,1e-3), and hydra.sweeper.trials above 0."
            )
        self._check_score(space)
        fixed = [
            f"{key}={override.get_value_element_as_str()}" for key, override in overrides.items() if key not in space
        ]
        folder = Path(self.config.hydra.sweep.dir)
        name = f"{self.score}{' and time' if self.time else ''}"
        directions = [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE][: 1 + self.time]
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with only_sweep(folder):
            storage = _storage(folder / STUDY)
            try:
                study = optuna.create_study(
                    storage=storage, study_name=name, directions=directions, load_if_exists=True
                )
            except Exception as error:  # of the database, whose library names it in many ways
                raise MirrorError(
                    f"{folder / STUDY} cannot be read (it is damaged, or no study): move it away, or choose another "
                    "hydra.sweep.dir=…."
                ) from error
            changed = self._changed(runs_in(folder).values())
            again = changed if self.config.retry_changed else set()
            told = study.trials if again else []
            if stale := [trial for trial in told if self._job([*fixed, *_drawn(trial)], 0, space).name in again]:
                _propose_again(folder / STUDY, study, stale)
                study = optuna.load_study(storage=storage, study_name=name)
            # Added trials need another seed: the same one would draw the same points again.
            study.sampler = optuna.samplers.TPESampler(seed=self.seed + len(study.trials))
            for left in study.get_trials(states=[optuna.trial.TrialState.RUNNING]):  # of a search that was killed
                study.tell(left.number, state=optuna.trial.TrialState.FAIL)
            done = len(study.get_trials(states=[optuna.trial.TrialState[state] for state in STATES.values()]))
            log.info("%d trials in %s finished already, %d to run", done, folder, max(0, self.trials - done))
            size, failed = self.max_batch_size or 1, 0
            for start in range(done, self.trials, size):
                asked = [study.ask(space) for _ in range(min(size, self.trials - start))]
                jobs = []
                for trial in asked:
                    # Optuna prunes where there is one objective.
                    pruning = [] if self.time else [f"trial={quoted(f'{storage}#{name}#{trial.number}')}"]
                    jobs.append(self._job([*fixed, *_drawn(trial), *pruning], trial.number, space))
                known = runs_in(folder)
                missing = {
                    job.name: job
                    for job in jobs
                    if job.name in again or known.get(job.name, {}).get("status") not in STATES
                }
                again -= missing.keys()
                self.known = list(known.values())
                broken = self._launch(list(missing.values()), start + 1, self.trials, "trial")
                if broken:
                    raise MirrorError(f"The launcher stopped ({broken}): start the search again, it goes on.")
                ended = runs_in(folder)
                for number, (trial, job) in enumerate(zip(asked, jobs, strict=True), start=start + 1):
                    run = ended.get(job.name, {"status": "missing"})
                    values = self._objectives(run) if run["status"] == "finished" else None
                    state = STATES.get(run["status"], "FAIL")
                    study.tell(trial, values, state=optuna.trial.TrialState[state])
                    failed += state == "FAIL"
                    if not (self.serial and job.name in missing):  # whose outcome has been told
                        log.info("trial %d of %d: %s: %s", number, self.trials, job.axes, outcome(run))
            best = study.best_trials
        self._best(folder)
        for chosen in best:
            found = " ".join(f"{key}={value}" for key, value in chosen.params.items())
            log.info("best: %s %s: %s", ", ".join(f"{value:.2f}" for value in chosen.values), study.study_name, found)
        if failed:
            raise MirrorError(f"{failed} trials failed, as listed above: their logs under {folder} say why.")

    def _best(self, folder: Path) -> None:
        """Print the best trials as rows, and the best's command and encoder."""
        from mirror.report.runs import collect  # only now, as at a grid's end
        from mirror.report.summary import summary_table

        if table := summary_table(collect([folder]).runs):
            log.info("%s", table)
        log.info("its history and what mattered: python scripts/report.py %s", folder)

    def _check(self) -> None:
        """Refuse settings of the search before the first trial."""
        assert self.config is not None
        for name, least in {"trials": 1, "seed": 0, "max_batch_size": 1}.items():
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise MirrorError(f"hydra.sweeper.{name}={value}: give a whole number, at least {least}.")
        if not isinstance(self.time, bool):
            raise MirrorError(f"hydra.sweeper.time={self.time}: give true or false.")

    def _check_score(self, axes: Iterable[str]) -> None:
        """Refuse a score that no trial measures, unless the trials differ in what they measure."""
        assert self.config is not None
        evaluation = self.config.eval
        measured = [*evaluation.sets, *(evaluation.with_data_dir if evaluation.data_dir else [])]
        if self.score not in measured and not any(
            axis.partition(".")[0] in ("eval", "task", "experiment") for axis in axes
        ):
            known = ", ".join(measured) or "none, since eval=none"
            raise MirrorError(f"hydra.sweeper.score={self.score} is not measured: choose among {known}.")

    def _objectives(self, run: dict[str, Any]) -> list[float]:
        """What a finished run is judged by."""
        sets = run["scores"].get(TUNED, {})
        if self.score not in sets:
            known = ", ".join(sets) or "none, since eval=none"
            raise MirrorError(f"hydra.sweeper.score={self.score} is not measured: choose among {known}.")
        score = sets[self.score]
        return [score[headline(run, self.score, score)], run["seconds"]["train"]][: 1 + self.time]


def _storage(path: Path) -> str:
    """A study's file as Optuna takes it."""
    return f"sqlite:///{path.resolve()}"


def _drawn(trial: Any) -> list[str]:
    """What Optuna has drawn for a trial, as overrides."""
    return [f"{key}={value}" for key, value in trial.params.items()]


def _propose_again(path: Path, study: Any, stale: Sequence[Any]) -> None:
    """Take finished trials out of a study and put them first among those to come. Optuna changes no finished trial, so
    the file is written anew, with whatever other studies it has."""
    import optuna

    numbers = {trial.number for trial in stale}
    with written_whole(path) as partial:
        for name in optuna.get_all_study_names(_storage(path)):
            if name != study.study_name:
                optuna.copy_study(from_study_name=name, from_storage=_storage(path), to_storage=_storage(partial))
        anew = optuna.create_study(storage=_storage(partial), study_name=study.study_name, directions=study.directions)
        anew.add_trials([trial for trial in study.trials if trial.number not in numbers])
        for trial in stale:
            anew.enqueue_trial(trial.params)


def _distribution(axis: Override) -> Any:
    """An axis as Optuna takes it."""
    from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, RangeSweep
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    swept = axis.value()
    if isinstance(swept, IntervalSweep) and swept.start is not None and swept.end is not None:
        whole = "int" in swept.tags or isinstance(swept.start, int)  # tag(int, interval(…)) or int(interval(…))
        low, high = float(swept.start), float(swept.end)
        if not (math.isfinite(low) and math.isfinite(high) and low <= high and (low > 0 or "log" not in swept.tags)):
            raise MirrorError(
                f"{axis.input_line} is no interval: give two finite numbers, the smaller one first; with log, above 0."
            )
        kind = IntDistribution if whole else FloatDistribution
        return kind(swept.start, swept.end, log="log" in swept.tags)  # type: ignore[arg-type]
    if isinstance(swept, ChoiceSweep | RangeSweep):
        return CategoricalDistribution(list(axis.sweep_string_iterator()))
    raise MirrorError(f"{axis.input_line} is no range that a search can draw from: write choice(…) or interval(…).")
