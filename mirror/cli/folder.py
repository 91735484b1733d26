"""The folder of a run and the processes that share it."""

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, read_write

from mirror.config.compose import quoted
from mirror.errors import MirrorError
from mirror.runs.record import METRICS
from mirror.runs.registry import hold_lock, strangers

ROOM = 2**17
"""Bytes that the settings, the log and the record of a run easily take; a disk with less is full."""
RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
"""Variables in which torchrun, Lightning, SLURM and LSF number the processes of a run; the first is 0 in each."""
COUNTS = ("WORLD_SIZE", "SLURM_NTASKS", "JSM_NAMESPACE_SIZE")
"""Variables in which they say how many there are."""
PATIENCE = 15.0
"""Seconds in which the first process of a run, which they all begin with, comes to say what is wrong."""
TORCHRUN = "TORCHELASTIC_RUN_ID"
"""The variable that tells a process of torchrun."""
locks = ExitStack()
"""The folder of a single run, from before Hydra writes there until the end."""


def check_ranks() -> None:
    """The numbers in the environment are numbers, before Lightning reads them.

    Raises:
        MirrorError: one is not.
    """
    for name in (*RANKS, *COUNTS):
        value = os.environ.get(name, "1")
        if not value.isdecimal():
            raise MirrorError(f"{name}={value} in the environment is no whole number: unset {name}.")
        if name in COUNTS and not int(value):
            raise MirrorError(f"{name}={value} in the environment is no number of processes: unset {name}.")


def ranks() -> list[str]:
    """The variables by which this is another process of a run than the first."""
    return [name for name in RANKS if _number(name, 0) > 0]


def spoken_for() -> bool:
    """Whether this process is one of several, and another one, the first, tells what they all meet."""
    return bool(ranks()) and max(_number(name, 1) for name in COUNTS) > 1


def let_first_speak() -> None:
    """Before another process than the first says what is wrong: when the first has said it and ended, the launcher ends
    the others, which come to speak only if it does not. torchrun would end the first one, too, at their end."""
    if spoken_for():
        time.sleep(PATIENCE)


def _number(name: str, otherwise: int) -> int:
    value = os.environ.get(name, "")
    return int(value) if value.isdecimal() else otherwise


class RunFolder(Callback):
    """Makes sure of a run's folder before anything is written there: it can be written, holds nothing but what Hydra
    itself begins with, and no other process runs there, until this one ends."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Called by Hydra before a sweep, which looks after its folders itself."""
        expand_home(config, "sweep")
        follower(config)

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Called by Hydra before it makes the folder; it swallows errors here, but not an exit."""
        expand_home(config, "run")
        if follower(config):  # it shares the first process's folder
            return
        folder, resume = Path(config.hydra.run.dir), bool(config.get("resume"))
        if resume and folder != Path(config.resume).expanduser():
            sys.exit(f"error: resume={config.resume} goes on in its own folder: leave out hydra.run.dir={folder}.")
        try:
            if resume and not (folder / METRICS).exists():
                sys.exit(f"error: resume={folder} holds no run: give the folder of one that was interrupted.")
            if not resume and (folder / METRICS).exists():
                sys.exit(f"error: hydra.run.dir={folder} holds a run already: nothing is overwritten, choose another.")
            if not resume and (others := strangers(folder, *_first_files(config.hydra))):
                sys.exit(f"error: hydra.run.dir={folder} holds {others[0]}: choose a new or an empty folder.")
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as probe:
                probe.write(bytes(ROOM))
            if not locks.enter_context(hold_lock(folder)):
                setting = "resume" if resume else "hydra.run.dir"
                sys.exit(f"error: {setting}={folder} is in use by another run: wait for its end, or choose another.")
        except OSError as error:
            sys.exit(f"error: hydra.run.dir={folder} cannot be written ({error.strerror}): choose another folder.")


def expand_home(config: DictConfig, mode: str) -> None:
    """Write out the ``~`` of ``hydra.run.dir`` or ``hydra.sweep.dir``; on the command line this has been done, in a
    YAML file not."""
    given = str(config.hydra[mode].dir)
    if given.startswith("~"):
        with read_write(config):
            config.hydra[mode].dir = folder = os.path.expanduser(given)
            config.hydra.overrides.hydra.append(f"hydra.{mode}.dir={quoted(folder)}")  # of a sweep's runs


def follower(config: DictConfig) -> bool:
    """Whether this is another process of a run than the first, which makes the folder; exits where it only seems so."""
    named, trainer = ranks(), config.get("trainer")
    wanted, started = (trainer.devices * trainer.nodes if trainer else 1), _number("WORLD_SIZE", 1)
    if named and wanted < 2 and not spoken_for():
        sys.exit(
            f"error: {named[0]}={os.environ[named[0]]} in the environment says that another process leads this run, "
            f"which has one alone: unset {named[0]}."
        )
    # They would wait for each other for ever, or each train for itself.
    if started > 1 and wanted != started and (wanted > 1 or TORCHRUN in os.environ):
        told = f"trainer.devices={trainer.devices} on trainer.nodes={trainer.nodes}" if trainer else "This command"
        let_first_speak()
        sys.exit(
            f"error: {told} takes {wanted} {'process' if wanted == 1 else 'processes'}, but WORLD_SIZE={started} of "
            "them were started: make the two agree, for training with trainer=ddp."
        )
    return bool(named)


@contextmanager
def own_folder() -> Iterator[Path]:
    """The folder of a run; ``RunFolder`` has made sure of it, except in a sweep.

    Raises:
        MirrorError: it is in use, or holds something that is not this run's.
    """
    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    if hydra_config.mode is not RunMode.MULTIRUN:
        yield folder
        return
    with hold_lock(folder) as ours:
        if not ours or strangers(folder, *_first_files(hydra_config)):
            raise MirrorError(f"{folder} is in use, or holds what is not this run's: choose hydra.sweep.dir=….")
        yield folder


def _first_files(hydra_config: Any) -> list[str]:
    """What Hydra writes before a run begins."""
    return [str(hydra_config.output_subdir), f"{hydra_config.job.name}.log"]
