"""Lightning's trainer, as mirror tuning and pre-training both use it."""

import logging
import shutil
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, TQDMProgressBar
from pytorch_lightning.loggers import Logger
from pytorch_lightning.strategies import ModelParallelStrategy

from mirror.config import Precision, Strategy, TrainerConfig
from mirror.runs.atomic import SCRATCH
from mirror.training.hardware import Hardware
from mirror.training.resume import WholeFiles

LIGHTNING_PRECISION = {Precision.fp32: "32-true", Precision.bf16: "bf16-mixed", Precision.fp16: "16-mixed"}

LOOK_EVERY = {"cpu": 1, "cuda": 10}
"""Steps between two looks at the loss, by device: a GPU works ahead of the program until someone asks for a number."""


def build_trainer(
    config: TrainerConfig, hardware: Hardware, loggers: list[Logger], callbacks: list[Callback], **options: Any
) -> pl.Trainer:
    """A trainer on the devices that the settings name; ``options`` are what the two kinds of training differ in."""
    return pl.Trainer(
        accelerator=config.accelerator.value,
        devices=config.devices,
        num_nodes=config.nodes,
        strategy=_sharing(config) if config.strategy is Strategy.fsdp else config.strategy.value,
        precision=LIGHTNING_PRECISION[hardware.precision],  # type: ignore[arg-type]
        gradient_clip_val=config.gradient_clip,
        logger=loggers or False,
        plugins=[WholeFiles()],
        callbacks=[*callbacks, Bar(refresh_rate=LOOK_EVERY[hardware.device])] if config.progress else callbacks,
        enable_progress_bar=config.progress,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        **options,
    )


def _sharing(config: TrainerConfig) -> ModelParallelStrategy:
    """FSDP2; ``MirrorModule.configure_model`` says what is shared out. Checkpoints are those of one process."""
    return ModelParallelStrategy(
        config.devices * config.nodes, tensor_parallel_size=1, save_distributed_checkpoint=False
    )


class Bar(TQDMProgressBar):
    """Lightning's bar without the logger's version, and with its end also where a run goes on."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Of a run that goes on, Lightning sets neither the total nor the steps that the rate leaves out."""
        super().on_train_start(trainer, pl_module)
        self.train_progress_bar.reset(int(self.total_train_batches))
        self.train_progress_bar.initial = trainer.global_step

    def on_train_epoch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """All epochs are one to Lightning: nothing begins anew."""

    def get_metrics(self, trainer: pl.Trainer, module: pl.LightningModule) -> dict[str, Any]:
        """What stands at the end of the bar. With ``prog_bar=True`` Lightning would wait for the loss in every step."""
        metrics: dict[str, Any] = super().get_metrics(trainer, module)
        metrics.pop("v_num", None)
        loss = trainer.callback_metrics.get("loss")
        return metrics if loss is None else {"loss": float(loss), **metrics}


def remove_checkpoints(folder: Path) -> None:
    """Remove what the trainer wrote into a folder, and the folder unless somebody else put something there."""
    with suppress(OSError):
        for path in folder.glob("*step=*.ckpt"):
            path.unlink()
        for scratch in folder.glob(f"{SCRATCH}*"):  # of a process that was killed while it wrote
            shutil.rmtree(scratch)
        folder.rmdir()


def quieten(rank_zero: bool) -> None:
    """Keep what Lightning prints beside the point out of the terminal, and what every process would repeat."""
    if not rank_zero:
        logging.getLogger("mirror").setLevel(logging.ERROR)
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.WARNING)
    noises = (
        "does not have many workers", "in eval mode at the start of training",
        "Total length of `list`", "LeafSpec", "dataloader is not resumable",
        "exists and is not empty", "The `srun` command is available",
    )  # fmt: skip
    for noise in noises:
        warnings.filterwarnings("ignore", f".*{noise}")
