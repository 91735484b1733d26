"""The curves of a run: the loss of every step, and its components."""

import logging
import math
import time
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from mirror.data.batches import MirroredBatch
from mirror.errors import MirrorError
from mirror.runs.record import RunRecord

log = logging.getLogger(__name__)

HARDLY_MOVED = 0.05
"""A loss that falls by less than this share says that the learning rate does not suit the model."""
SOON = 10
"""Steps before which nothing is said of it."""


class Curve(Callback):
    """Writes the loss of every step and its components to the trackers, stops at a loss that is not finite, notes the
    moment of the first step.

    Args:
        record: of the run.
        every: steps between two looks at the losses: each look waits for the device.
        rate: the learning rate, for the advice where the loss is flat.
    """

    def __init__(self, record: RunRecord, every: int, rate: float | None) -> None:
        self.record, self.every, self.rate = record, every, rate
        self.losses = list[float]()
        self.components = dict[str, list[float]]()
        """By name, of every step."""
        self._unseen = list[dict[str, Tensor]]()
        self._halfway = self._warned = False

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        unseen = [{name: float(value) for name, value in step.items()} for step in self._unseen]
        return {
            "losses": [*self.losses, *(step["loss"] for step in unseen)],
            "components": {
                name: [*values, *(step[name] for step in unseen)] for name, values in self.components.items()
            },
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From the checkpoint of the run's beginning."""
        self.losses, self.components = state["losses"], state["components"]

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """The curve of a run that goes on begins where the run began."""
        for step, loss in enumerate(self.losses, start=1):
            others = {name: values[step - 1] for name, values in self.components.items()}
            self._write(trainer, step, {"loss": loss, **others})

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        module: pl.LightningModule,
        outputs: Any,
        batch: MirroredBatch,
        batch_idx: int,
    ) -> None:
        """Note the loss; look where it is time.

        Raises:
            MirrorError: a loss is not finite: nothing after it means anything.
        """
        if "to first step" not in self.record.content["seconds"]:
            self.record.content["seconds"]["to first step"] = round(time.time() - self.record.started, 3)
        # Over all devices. The validation score stands among them too.
        found = {name: value for name, value in trainer.callback_metrics.items() if not name.startswith("val/")}
        for name in found.keys() - {"loss"}:
            self.components.setdefault(name, [])
        self._unseen.append(found)
        if len(self._unseen) >= self.every or trainer.global_step >= trainer.max_steps:
            for step, loss in self._look(trainer):
                if not math.isfinite(loss):
                    raise MirrorError(
                        f"The loss is {loss} at step {step}: lower optim.lr, raise loss.temperature, or set "
                        "trainer.precision=fp32."
                    )

            if not self._halfway and SOON <= len(self.losses) < trainer.max_steps <= 2 * len(self.losses):
                self._halfway = True
                self._warn_if_flat(f" in half of the {trainer.max_steps} steps", "stop (Ctrl-C) and choose another; ")

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        """What has been computed is written all the same."""
        self._look(trainer)

    def _look(self, trainer: pl.Trainer) -> list[tuple[int, float]]:
        """Move the unseen losses to the trackers; their steps, counted from 1, and their values."""
        if not self._unseen:
            return []
        names = list(self._unseen[0])
        # One wait for the device, however many there are.
        columns = torch.stack([torch.stack([step[name].float() for name in names]) for step in self._unseen]).tolist()
        seen = []
        for number, values in enumerate(columns, start=trainer.global_step - len(columns) + 1):
            found = dict(zip(names, values, strict=True))
            self._write(trainer, number, found)
            self.losses.append(found.pop("loss"))
            for name, value in found.items():
                self.components[name].append(value)
            seen.append((number, self.losses[-1]))
        self._unseen.clear()
        return seen

    def _write(self, trainer: pl.Trainer, step: int, found: dict[str, float]) -> None:
        for tracker in trainer.loggers:
            tracker.log_metrics(found, step - 1)

    def finish(self) -> None:
        """Store the ends of the curves; warn where the loss is flat."""
        first, last = _ends(self.losses)
        self.record["loss"] = {"first": first, "last": last}
        if self.components:
            ends = {name: _ends(values) for name, values in self.components.items()}
            self.record["components"] = {name: {"first": one, "last": other} for name, (one, other) in ends.items()}
        if len(self.losses) >= SOON:
            self._warn_if_flat()

    def _warn_if_flat(self, when: str = "", way_out: str = "") -> None:
        """Say once that the loss has not fallen, and what may help."""
        first, last = _ends(self.losses)
        if last > first * (1 - HARDLY_MOVED) and not self._warned:
            self._warned = True
            rate = "" if self.rate is None else f"={self.rate:g}"
            log.warning(
                "The loss hardly moved%s (%.4f to %.4f): optim.lr%s may not suit this model; %ssmall ones want 3e-4 to "
                "1e-3.",
                when, first, last, rate, way_out,
            )  # fmt: skip


def _ends(values: list[float]) -> tuple[float, float]:
    """Means of the first and of the last tenth."""
    tenth = max(1, len(values) // 10)
    return sum(values[:tenth]) / tenth, sum(values[-tenth:]) / tenth
