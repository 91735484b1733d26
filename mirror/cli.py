"""Entry points of the command line. Nothing heavy is imported before a command really runs."""

import logging
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from mirror.config import EncodeConfig, EvaluateConfig, Strategy, TrainConfig, register_schemas, settings
from mirror.errors import MirrorError

STARTED = time.time()
PACKAGED_CONF = Path(__file__).parent / "conf"
CONF = PACKAGED_CONF if PACKAGED_CONF.is_dir() else Path(__file__).parents[1] / "conf"
"""In an installed package ``conf`` lies inside it, in a clone beside it."""

log = logging.getLogger(__name__)


def train() -> None:
    """``scripts/train.py``: texts to a measured encoder."""

    def run(config: TrainConfig) -> None:
        if HydraConfig.get().mode is RunMode.MULTIRUN and config.trainer.strategy is Strategy.ddp:
            raise MirrorError(
                "trainer=ddp cannot run inside a sweep, since every process would start the sweep again: "
                "sweep with trainer=gpu, or start the runs one by one."
            )
        from mirror.run import train

        train(config, Path(HydraConfig.get().runtime.output_dir), started=STARTED)

    _start("train", run)


def evaluate() -> None:
    """``scripts/evaluate.py``: an encoder to scores."""

    def run(config: EvaluateConfig) -> None:
        from mirror.apply import evaluate

        evaluate(config, Path(HydraConfig.get().runtime.output_dir))

    _start("evaluate", run)


def encode() -> None:
    """``scripts/encode.py``: texts to vectors."""

    def run(config: EncodeConfig) -> None:
        from mirror.apply import encode

        encode(config)

    _start("encode", run)


def compose(name: str, overrides: Sequence[str]) -> Any:
    """The settings that a command line would give.

    Raises:
        MirrorError: an override does not fit.
    """
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException

    _check_groups(overrides)
    register_schemas()
    running = GlobalHydra.instance().hydra  # a program that calls this may be a Hydra application itself
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            return settings(hydra.compose(name, overrides=list(overrides)))
    except HydraException as error:
        reasons = [" ".join(str(reason).split()) for reason in (error, error.__cause__) if reason is not None]
        raise MirrorError(": ".join(reasons)) from error
    finally:
        GlobalHydra.instance().hydra = running


NUMBER_OF = {"temperature": "loss.temperature", "data_size": "data.size"}
"""Groups whose options stand for a number, with the setting that takes any number."""


def _check_groups(overrides: Sequence[str]) -> None:
    """Refuse a number as the option of a group, for which Hydra itself shows a traceback."""
    for override in overrides:
        name, _, value = override.partition("=")
        if (CONF / name).is_dir() and re.fullmatch(r"[-+.\de]+|true|false", value, re.IGNORECASE):
            options = ", ".join(sorted(file.stem for file in (CONF / name).glob("*.yaml")))
            setting = f"; for a number write {NUMBER_OF[name]}={value}" if name in NUMBER_OF else ""
            raise MirrorError(f"{override} is no option: choose {name}={options}{setting}.")


def _start(name: str, run: Callable[[Any], None]) -> None:
    register_schemas()

    try:
        _check_groups(sys.argv[1:])
    except MirrorError as error:
        sys.exit(f"error: {error}")

    def job(config: DictConfig) -> None:
        try:
            run(settings(config))
        except MirrorError as error:
            # The log keeps the reason; the terminal shows one sentence. A sweep goes on with its next run.
            if HydraConfig.get().mode is RunMode.MULTIRUN:
                log.error("%s", error)
                raise
            sys.exit(f"error: {error}")

    hydra.main(version_base="1.3", config_path=str(CONF), config_name=name)(job)()


class RunFolder(Callback):
    """Refuses a run folder that holds a run already or cannot be written, before anything is written there."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Called by Hydra before it makes the folder; it swallows errors here, but not an exit."""
        import os

        if int(os.environ.get("LOCAL_RANK", 0)) > 0:  # a process that DDP started shares the first one's folder
            return
        folder = Path(config.hydra.run.dir)
        if (folder / "metrics.json").exists():
            sys.exit(f"error: hydra.run.dir={folder} holds a run already: nothing is overwritten, choose another.")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / ".writable"
            probe.touch()
            probe.unlink()
        except OSError as error:
            sys.exit(f"error: hydra.run.dir={folder} cannot be written ({error.strerror}): choose another folder.")
