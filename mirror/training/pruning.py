"""A trial of a search: it hears every validation score of its run, and gives up a run without promise."""

from mirror.errors import MirrorError

STARTUP = 5
"""Trials that are finished before one is given up (Optuna's default)."""


class Trial:
    """One trial of an Optuna study, in whatever process or on whatever machine its run is. The median pruner decides:
    a run is given up whose best score so far is below the median of the finished trials at the same step (Golovin et
    al. 2017, Vizier, section 3.2.2), once there are ``STARTUP`` of these.

    Args:
        name: ``TrainConfig.trial``.

    Raises:
        MirrorError: the study is not there, or Optuna is not installed.
    """

    def __init__(self, name: str) -> None:
        try:
            import optuna

            storage, study_name, number = name.rsplit("#", 2)
            study = optuna.load_study(
                study_name=study_name, storage=storage, pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP)
            )
            self.trial = optuna.trial.Trial(study, study.get_trials(deepcopy=False)[int(number)]._trial_id)
        except ImportError:
            raise MirrorError("trial=… needs the package optuna: pip install 'mirror-encoders[optuna]'.") from None
        except (ValueError, IndexError, KeyError, OSError) as error:
            raise MirrorError(f"trial={name} is no trial of a search: leave it out.") from error

    def gives_up(self, step: int, score: float, *, last: bool) -> bool:
        """Report a score; whether the run is to end here. After the last step only saving is left: then never."""
        self.trial.report(score, step)
        return not last and self.trial.should_prune()
