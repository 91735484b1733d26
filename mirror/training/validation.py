"""What a run sees of its encoder's quality while it learns: the score of one set, a curve, and the best weights."""

import logging
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from mirror.encoder.encoder import MirrorEncoder
from mirror.errors import PrunedError
from mirror.evaluation.sets import TestSet
from mirror.runs.atomic import written_whole
from mirror.training.pruning import Trial

log = logging.getLogger(__name__)

FALL = 2.0
"""Points that two scores in a row must lie below the best one, so that a fall is more than noise."""


class Validation(Callback):
    """Scores the encoder on a set every so many steps and after the last one.

    Args:
        encoder: the one that learns.
        test: the set.
        every: steps between two scores.
        best: folder for the weights with the best score; None keeps none.
        trial: of a search, which hears each score and may give the run up.

    Raises:
        PrunedError: the search gives the run up.
    """

    def __init__(
        self, encoder: MirrorEncoder, test: TestSet, every: int, best: Path | None = None, trial: Trial | None = None
    ) -> None:
        self.encoder, self.test, self.every, self.best, self.trial = encoder, test, every, best, trial
        self.scores: dict[int, float] = {}
        """By step."""
        self._warned = False

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"scores": dict(self.scores)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From the checkpoint of the run's beginning."""
        self.scores = state["scores"]

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Score, where it is time. Outside the step's autocast, so in float32, as what is kept will be scored."""
        step = trainer.global_step
        if step in self.scores or (step % self.every and step < trainer.max_steps):
            return
        # Every device scores the whole set; the first decides, since graphics cards may differ in the last digits.
        score = float(trainer.strategy.broadcast(self.test.score(self.encoder.encode).value))
        is_best = score > max(self.scores.values(), default=float("-inf"))
        self.scores[step] = score
        name = f"val/{self.test.name}"
        module.log(name, score, prog_bar=True, logger=False, batch_size=1)
        for logger in trainer.loggers:
            logger.log_metrics({name: score}, step)
        if self.best is not None and is_best and trainer.is_global_zero:
            self._keep(module, step)
        self._warn_of_harm()
        if self.trial is not None:
            given_up = trainer.is_global_zero and self.trial.gives_up(step, score, last=step >= trainer.max_steps)
            if trainer.strategy.broadcast(given_up):
                raise PrunedError(
                    f"{self.test.name} is {score:.2f} at step {step} of {trainer.max_steps}, and was never above the "
                    "median of the earlier trials there"
                )

    def _warn_of_harm(self) -> None:
        """Say once that the score has fallen for good."""
        best, last = max(self.scores.values()), list(self.scores.values())[-2:]
        if len(last) == 2 and max(last) < best - FALL and not self._warned:
            self._warned = True
            log.warning(
                "Tuning does harm: %s has fallen from %.2f to %.2f by step %d. Stop (Ctrl-C) and lower optim.lr or "
                "data.size%s.",
                self.test.name, best, last[-1], max(self.scores),
                "; the best weights are kept" if self.best else ", or keep the best weights with select=best",
            )  # fmt: skip

    def _keep(self, module: pl.LightningModule, step: int) -> None:
        assert self.best is not None
        self.best.mkdir(parents=True, exist_ok=True)
        target = self.best / f"step={step}.ckpt"
        with written_whole(target) as partial:
            torch.save(module.state_dict(), partial)
        for other in self.best.glob("step=*.ckpt"):
            if other != target:
                other.unlink()

    def restore_best(self, module: pl.LightningModule) -> None:
        """Give the module the best weights of the run."""
        assert self.best is not None
        step = max(self.scores, key=self.scores.__getitem__)  # the first of equal ones
        module.load_state_dict(torch.load(self.best / f"step={step}.ckpt", weights_only=True, map_location="cpu"))
        log.info("kept the best weights: step %d, %s %.2f", step, self.test.name, self.scores[step])
