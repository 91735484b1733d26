"""Loggers: the CSV curve always, the others on request. No login is ever asked for."""

import os
import warnings
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import CSVLogger, Logger

from mirror.config import LoggerConfig, Tracker, WandbMode
from mirror.errors import MirrorError

CURVE = "curve"
"""Folder of the loss curve, ``metrics.csv``."""
WANDB_TIMEOUT = 30.0
"""Seconds to wait for W&B before the run gives up, which it does before it trains."""


def build_trackers(config: LoggerConfig, folder: Path, settings: dict[str, Any]) -> list[Logger]:
    """The loggers of a run, with its settings handed to each.

    Raises:
        MirrorError: the package of a tracker is not installed.
    """
    loggers: list[Logger] = [CSVLogger(folder, name="", version=CURVE, flush_logs_every_n_steps=10)]
    for tracker in dict.fromkeys(config.trackers):
        if tracker is Tracker.wandb:
            loggers.append(_wandb(config, folder))
        elif tracker is Tracker.tensorboard:
            loggers.append(_tensorboard(folder))
    for logger in loggers[1:]:
        logger.log_hyperparams(settings)
    return loggers


def _wandb(config: LoggerConfig, folder: Path) -> Logger:
    try:
        import wandb
        from pytorch_lightning.loggers import WandbLogger
    except ImportError:
        raise MirrorError("logger=wandb needs the package wandb: pip install 'mirror-encoders[wandb]'.") from None
    mode = config.mode.value
    if config.mode is WandbMode.auto:
        mode = os.environ.get("WANDB_MODE", "online" if _has_key() else "offline")
    try:
        run = wandb.init(
            project=config.project,
            dir=folder,
            group=config.group,
            tags=config.tags,
            name=folder.name,
            mode=mode,  # type: ignore[arg-type]
            settings=wandb.Settings(silent=True, init_timeout=WANDB_TIMEOUT),
        )
    except wandb.Error as error:
        reason = " ".join(str(error).split())[:200]
        raise MirrorError(f"W&B does not answer ({reason}): set logger.mode=offline and sync later.") from error
    return WandbLogger(experiment=run)


def _has_key() -> bool:
    """Whether wandb could log in without asking."""
    import netrc

    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return "api.wandb.ai" in netrc.netrc().hosts
    except (OSError, netrc.NetrcParseError):
        return False


def _tensorboard(folder: Path) -> Logger:
    from pytorch_lightning.loggers import TensorBoardLogger

    try:
        with warnings.catch_warnings(action="ignore"):
            return TensorBoardLogger(folder, name="", version="tensorboard")
    except ModuleNotFoundError:
        raise MirrorError(
            "logger=tensorboard needs the package tensorboard: pip install 'mirror-encoders[tensorboard]'."
        ) from None


def close_trackers() -> None:
    """End an open W&B run, so that the next run of a sweep gets its own."""
    import sys

    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        wandb.finish()
