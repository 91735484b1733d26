"""How the geometry of the space, and what validation finds, move while an encoder learns; a warning where they tell of
harm."""

import logging
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from mirror.data.rows import Pair
from mirror.encoder.encoder import MirrorEncoder
from mirror.evaluation.geometry import Geometry, geometry
from mirror.runs.record import RunRecord

log = logging.getLogger(__name__)

PAIRS = 200
"""Looked at while training: few enough to cost little."""
COLLAPSED = 0.9
"""Mean cosine of different texts above which hardly anything tells them apart."""
FALL = 2.0
"""Points below its best that validation must be, at two looks in a row, to be taken for more than noise."""
ADVICE = "stop (Ctrl-C) and try a lower optim.lr, another model.pooling or loss.temperature, or select=best"


class GeometryWatch(Callback):
    """Measures the same pairs before the first step, every so many steps, and after the last.

    Args:
        encoder: the one that is trained.
        pairs: texts that belong together.
        every: steps between two looks.
        record: gets the course as ``geometry_curve``; the loggers get it too.
    """

    def __init__(self, encoder: MirrorEncoder, pairs: list[Pair], every: int, record: RunRecord) -> None:
        self.encoder, self.pairs, self.every, self.record = encoder, pairs, every, record
        self.texts = list(dict.fromkeys(text for pair in pairs for text in pair))
        self.course: dict[int, Geometry] = {}
        self._warned = False

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """The untouched model, pooled as the encoder is."""
        self._look(trainer)

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look after every ``every`` steps."""
        if trainer.global_step % self.every == 0:
            self._look(trainer)

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Look a last time."""
        self._look(trainer)

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"course": {step: found.plain() for step, found in self.course.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From the checkpoint of the run's beginning."""
        self.course = {step: Geometry(**found) for step, found in state["course"].items()}

    def store(self) -> None:
        """Hand the course to the record."""
        figures = [found.plain() for found in self.course.values()]
        names = figures[0].keys()
        self.record["geometry_curve"] = {
            "step": list(self.course),
            **{name: [figure[name] for figure in figures] for name in names},
        }

    def _look(self, trainer: pl.Trainer) -> None:
        if trainer.global_step in self.course:
            return
        vectors = dict(zip(self.texts, self.encoder.encode(self.texts), strict=True))
        found = geometry(vectors, self.pairs)
        self.course[trainer.global_step] = found
        start = next(iter(self.course.values())).anisotropy
        if found.anisotropy > max(COLLAPSED, start) and not self._warned:
            self._warned = True
            log.warning(
                "Tuning does harm: at step %d two different texts have a mean cosine of %.2f (%.2f before), so that "
                "the vectors hardly tell them apart: %s.",
                trainer.global_step, found.anisotropy, start, ADVICE,
            )  # fmt: skip
        for logger in trainer.loggers:
            logger.log_metrics(
                {f"geometry/{name}": value for name, value in found.plain().items()}, trainer.global_step
            )


class ValidationWatch(Callback):
    """Warns once where what ``select=best`` watches has fallen for good.

    Args:
        figure: its name among Lightning's metrics.
    """

    def __init__(self, figure: str) -> None:
        self.figure, self.best, self._below = figure, float("-inf"), 0

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Compare with the best so far."""
        if trainer.sanity_checking or self.figure not in trainer.callback_metrics:
            return
        value = float(trainer.callback_metrics[self.figure])
        self.best = max(self.best, value)
        self._below = self._below + 1 if value < self.best - FALL else 0
        if self._below == 2:
            log.warning(
                "Tuning does harm: %s has fallen from %.2f to %.2f by step %d; the best weights are kept. To lose no "
                "time, stop (Ctrl-C) and try a lower optim.lr or fewer texts (data.size=).",
                self.figure.removeprefix("val/"), self.best, value, trainer.global_step,
            )  # fmt: skip
