"""How an interrupted run goes on: its checkpoints, the record it left, the steps that are done."""

import json
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO

from mirror.errors import MirrorError
from mirror.runs import stop
from mirror.runs.atomic import written_whole
from mirror.runs.record import CHECKPOINTS, CURVE, METRICS, RunRecord, not_written

FINGERPRINT = "corpus"
"""Under which a record keeps a number that tells its texts from others."""


class WholeFiles(TorchCheckpointIO):
    """Checkpoints that appear under their names only when they are complete.

    Lightning writes them into the system's folder for temporary files first, which may be too small for them, and
    moves them: from one disk to another that is a copy, of which a full disk keeps half.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write beside the path, then rename."""
        content = BytesIO()  # a full disk is an OSError when Python writes, and an error of torch's own when torch does
        torch.save(checkpoint, content)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with written_whole(Path(path)) as partial:
            partial.write_bytes(content.getbuffer())


class Checkpointer(ModelCheckpoint):
    """Writes a checkpoint every so many steps, at the last step and where the run is stopped, and keeps the newest.

    Ctrl-C and SIGTERM wait for the end of the step, so that a checkpoint never holds half of one; a second one does not
    wait.
    """

    def __init__(self, folder: Path, every: int) -> None:
        """``folder`` is the run's."""
        super().__init__(
            folder / CHECKPOINTS,
            filename="{step}",
            every_n_train_steps=every,
            save_on_train_epoch_end=False,
            save_on_exception=True,
        )
        self._between_steps = self._stop = self._together = False
        self._usual: dict[int, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the signals over."""
        super().on_train_start(trainer, pl_module)
        self._usual = {number: signal.signal(number, self._stop_soon) for number in stop.heeded()}

    def _stop_soon(self, number: int, frame: Any) -> None:
        stop.note(number)
        if self._stop:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return
        self._stop = True
        if stop.received() is None:
            # Called from Python, outside a command. SIGTERM to all processes of a job ends the workers that load
            # batches; PyTorch would break off the step for it.
            self._usual[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    def _give_back(self) -> None:
        for number, handler in self._usual.items():
            signal.signal(number, handler)
        self._usual = {}

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, index: int) -> None:
        """A step begins."""
        self._between_steps = False

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """A step is done: save if it is time, stop if it was asked for, on all devices at the same step."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        self._between_steps = True
        self._together = trainer.strategy.reduce_boolean_decision(self._stop, all=False)
        if self._together:
            raise KeyboardInterrupt

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save: what follows the training can then be repeated."""
        super().on_train_end(trainer, pl_module)
        if self._last_global_step_saved != trainer.global_step:
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))
        self._give_back()
        if self._stop:
            raise KeyboardInterrupt

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Save, unless half a step is done, other devices would be waited for that may be gone, or the run was refused,
        as for a loss that is not finite, which it would meet again."""
        whole = self._between_steps and (trainer.world_size == 1 or self._together)
        try:
            if whole and not isinstance(exception, MirrorError):
                super().on_exception(trainer, pl_module, exception)
        finally:
            self._give_back()


@dataclass
class InterruptedRun:
    """What a run did before it was interrupted."""

    folder: Path
    checkpoint: Path
    steps: int
    """Steps that the checkpoint holds."""
    record: dict[str, Any]

    def note(self, record: RunRecord) -> None:
        """Carry over what a further stop must not lose."""
        # A run that was killed could not say how long it took: until its last checkpoint, then.
        began = datetime.fromisoformat(self.record["started"]).timestamp()
        seconds = self.record["seconds"].get("total", round(self.checkpoint.stat().st_mtime - began, 3))
        record["earlier_seconds"] = self.record.get("earlier_seconds", 0) + seconds
        record[FINGERPRINT] = self.record.get(FINGERPRINT)
        record.write()

    def keep_curve(self) -> None:
        """Lightning begins the file anew when a run goes on."""
        path = self.folder / CURVE / "metrics.csv"
        if path.exists():
            path.rename(path.with_name(f"metrics-before-{self.steps:08d}.csv"))


def interrupted_run(folder: Path) -> InterruptedRun:
    """The newest checkpoint of a run, with its record.

    Raises:
        MirrorError: the folder has none, or it is damaged.
    """
    found: Sequence[Path] = sorted((folder / CHECKPOINTS).glob("*.ckpt"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise MirrorError(f"resume={folder} has no checkpoint in {CHECKPOINTS}/: it is finished, or never began.")
    try:
        record: dict[str, Any] = json.loads((folder / METRICS).read_text(encoding="utf-8"))
        datetime.fromisoformat(record["started"])
        float(record["seconds"].get("total", 0) + record.get("earlier_seconds", 0))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise MirrorError(f"resume={folder}: {METRICS} is missing or damaged ({error}): start a new run.") from error
    try:
        with ZipFile(found[-1]) as parts:  # torch does not look at the checksums that it wrote
            if parts.testzip():
                raise ValueError("checksum")
        checkpoint = torch.load(found[-1], weights_only=True, map_location="cpu", mmap=True)
        if not checkpoint["state_dict"] or not checkpoint["optimizer_states"]:
            raise ValueError("no weights, or no optimizer")
        steps = int(checkpoint["global_step"])
    except Exception as error:  # torch tells a damaged file in many ways
        way = "delete it to go on from the one before it" if len(found) > 1 else "start the run anew"
        raise MirrorError(f"The checkpoint {found[-1]} is damaged: {way}.") from error
    return InterruptedRun(folder, found[-1], steps, record)


@contextmanager
def repeatable(folder: Path) -> Iterator[None]:
    """What is written after the training, which ``resume=`` can do again.

    Raises:
        MirrorError: the disk is full.
    """
    try:
        yield
    except OSError as error:
        raise not_written(folder, error) from error
    except MirrorError as error:
        if error.__cause__ is None:
            raise
        raise not_written(folder, error.__cause__) from error


@contextmanager
def interruptible(trainer: pl.Trainer) -> Iterator[None]:
    """Lightning exits when it meets ``KeyboardInterrupt``; here it goes on to the caller, who has a record to end."""
    try:
        yield
    except SystemExit as exit:
        # Lightning watches the processes that it has begun and just ended, and would kill this one for their end.
        getattr(trainer.strategy.launcher, "procs", []).clear()
        raise KeyboardInterrupt from exit


def note_texts(record: RunRecord, fingerprint: int, source: str | None, before: InterruptedRun | None) -> None:
    """Write down at once, since a kill asks no one, which texts the run has: only the same give the batches that a run
    which goes on has still to meet.

    Raises:
        MirrorError: the interrupted run had others.
    """
    known = before.record.get(FINGERPRINT) if before else None
    if before and known not in (None, fingerprint):
        raise MirrorError(
            f"resume={before.folder}: the text at data.path={source} is not the one that the run began with: bring it "
            "back, or start a new run."
        )
    record[FINGERPRINT] = fingerprint
    record.write()


def seed_step(seed: int, module: pl.LightningModule) -> None:
    """Let what is drawn in a step, such as dropout, depend on the seed, the step and the device alone, so that a
    resumed run draws what an uninterrupted one does."""
    torch.manual_seed(hash((seed, module.global_step, module.global_rank)) % 2**63)
