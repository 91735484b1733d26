"""How the geometry of the space moves while an encoder learns, and a warning where it collapses."""

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
        # Some models are that narrow before they are tuned: then half the way to 1.
        if found.anisotropy > max(COLLAPSED, (1 + start) / 2) and not self._warned:
            self._warned = True
            log.warning(
                "Tuning does harm: at step %d two different texts have a mean cosine of %.2f (%.2f before), so the "
                "vectors hardly tell them apart. Stop (Ctrl-C) and lower optim.lr, or try another model.pooling or "
                "loss.temperature.",
                trainer.global_step, found.anisotropy, start,
            )  # fmt: skip
        for logger in trainer.loggers:
            logger.log_metrics(
                {f"geometry/{name}": value for name, value in found.plain().items()}, trainer.global_step
            )
