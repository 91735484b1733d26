"""A run of a search tells its trial every validation score, and ends where the search sees no promise in it."""

import logging

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from mirror.errors import MirrorError, PrunedError

log = logging.getLogger(__name__)

STARTUP = 5
"""Trials that are finished before one is given up (Optuna's default)."""


class Pruning(Callback):
    """Reports to Optuna's study, in whatever process or machine the run is, and asks its median pruner: a trial ends
    whose best score so far is below the median of the finished trials at the same step (Golovin et al. 2017, Vizier,
    section 3.2.2), once there are ``STARTUP`` of these.

    Args:
        trial: ``TrainConfig.trial``.
        validation: the set whose score is reported.

    Raises:
        MirrorError: the study is not there, or Optuna is not installed.
    """

    def __init__(self, trial: str, validation: str) -> None:
        try:
            import optuna

            storage, study_name, number = trial.rsplit("#", 2)
            study = optuna.load_study(
                study_name=study_name, storage=storage, pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP)
            )
            self.trial = optuna.trial.Trial(study, study.get_trials(deepcopy=False)[int(number)]._trial_id)
        except ImportError:
            raise MirrorError("trial=… needs the package optuna: pip install 'mirror-encoders[optuna]'.") from None
        except (ValueError, IndexError, KeyError, OSError) as error:
            raise MirrorError(f"trial={trial} is no trial of a search: leave it out.") from error
        self.validation = validation

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Report; stop, unless nothing is left to save.

        Raises:
            PrunedError: the search gives the run up.
        """
        step, score = trainer.global_step, float(trainer.callback_metrics[f"val/{self.validation}"])
        self.trial.report(score, step)
        if step < trainer.max_steps and self.trial.should_prune():
            raise PrunedError(
                f"{self.validation} is {score:.2f} at step {step} of {trainer.max_steps}, and was never above the "
                "median of the earlier trials there"
            )
