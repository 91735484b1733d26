"""Entry points of the command line. Nothing heavy is imported before a command really runs."""

import gc
import logging
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from mirror.config import EncodeConfig, EvaluateConfig, PretrainConfig, ReportConfig, SearchConfig, TrainConfig
from mirror.config.compose import COMPOSITION_ERRORS, CONF, one_sentence, quoted, register_schemas, resumed, settings
from mirror.errors import MirrorError, PrunedError
from mirror.runs import stop
from mirror.runs.record import METRICS, has_checkpoint, record_failure
from mirror.runs.registry import end_with_sweep, hold_lock, read_run, strangers
from mirror.runs.sharing import start_sharing, stop_sharing
from mirror.version import __version__

log = logging.getLogger(__name__)

VALUED_FLAGS = (
    "-c", "--cfg", "-p", "--package", "-i", "--info",
    "-cp", "--config-path", "-cn", "--config-name", "-cd", "--config-dir",
)  # fmt: skip
"""Flags of Hydra that take the argument behind them."""


ROOM = 2**17
"""Bytes that the settings, the log and the record of a run easily take; a disk with less is full."""
RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
"""Variables in which torchrun, Lightning, SLURM and LSF number the processes of a run; the first is 0 in each."""
COUNTS = ("WORLD_SIZE", "SLURM_NTASKS", "JSM_NAMESPACE_SIZE")
"""Variables in which they say how many there are."""
_held = ExitStack()
"""The folder of a single run, from before Hydra writes there until the end."""


def train() -> None:
    """``scripts/train.py``: texts to a measured encoder."""
    started = time.time()

    def run(config: TrainConfig) -> None:
        with _importing():
            from mirror.training.run import train

        hydra_config = HydraConfig.get()
        folder = Path(hydra_config.runtime.output_dir)
        if hydra_config.mode is not RunMode.MULTIRUN:
            train(config, folder, started=started)
            return
        config.logger.group = config.logger.group or Path(hydra_config.sweep.dir).name
        start_sharing()
        with hold_lock(folder) as ours:
            # What a launcher started goes on when its sweep is killed, and may meet what the next start has begun.
            if ours and (read_run(folder) or {}).get("status") != "finished":
                train(config, folder)  # its seconds are its own, not those of the sweep
            else:
                log.warning("%s is left to the process that runs it, or has run it, since another start", folder)

    try:
        _start("train", run)
    finally:
        stop_sharing()


def evaluate() -> None:
    """``scripts/evaluate.py``: an encoder to scores."""

    def run(config: EvaluateConfig) -> None:
        with _importing():
            from mirror.apply import evaluate

        with _own_folder() as folder:
            evaluate(config, folder)

    _start("evaluate", run)


def encode() -> None:
    """``scripts/encode.py``: texts to vectors."""

    def run(config: EncodeConfig) -> None:
        with _importing():
            from mirror.apply import encode

        encode(config)

    _start("encode", run, leaves_record=False)


def pretrain() -> None:
    """``scripts/pretrain.py``: texts to a masked language model."""

    def run(config: PretrainConfig) -> None:
        with _importing():
            from mirror.pretraining.run import pretrain

        with _own_folder() as folder:
            pretrain(config, folder)

    _start("pretrain", run)


def search() -> None:
    """``scripts/search.py``: a query to the texts nearest in meaning."""

    def run(config: SearchConfig) -> None:
        with _importing():
            from mirror.search.search import search

        search(config)

    sys.argv[1:] = _with_query(sys.argv[1:])
    _start("search", run, leaves_record=False)


def report() -> None:
    """``scripts/report.py``: runs to tables, pictures and a page."""

    def run(config: ReportConfig) -> None:
        with _importing():
            from mirror.report import report

        report(config)

    sys.argv[1:] = _with_folders(sys.argv[1:])
    _start("report", run, leaves_record=False)


def _with_query(arguments: list[str]) -> list[str]:
    """The arguments as Hydra takes them: what is neither an option nor its value is the question."""
    options, words = _apart(arguments)
    return [*options, f"query={quoted(' '.join(words))}"] if words else options


def _with_folders(arguments: list[str]) -> list[str]:
    """The same for a report, where such words are folders; ``--watch`` is short for ``watch=true``."""
    options, folders = _apart(["watch=true" if argument == "--watch" else argument for argument in arguments])
    for place, option in enumerate(options):  # a baseline is itself settings, whose signs Hydra would take for its own
        name, _, value = option.partition("=")
        if name == "baseline" and not value.startswith(("'", '"')):
            options[place] = f"baseline={quoted(value)}"
    return [*options, f"runs=[{','.join(map(quoted, folders))}]"] if folders else options


def _apart(arguments: list[str]) -> tuple[list[str], list[str]]:
    """The options with their values, and the words that are neither, which Hydra does not take."""
    options: list[str] = []
    words: list[str] = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        ours = before not in VALUED_FLAGS and not re.match(r"[+~]{0,2}[\w./@]+=|-(?!\d)", argument)
        (words if ours else options).append(argument)
    return options, words


@contextmanager
def _own_folder() -> Iterator[Path]:
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


@contextmanager
def _importing() -> Iterator[None]:
    """Import without looking for garbage, there being none, nor ever among what was imported.

    Of 10 seconds from start to exit, 3 went into that (2 cores, 2026-11-21).
    """
    if "torch" in sys.modules:  # a later run of a sweep: what the earlier ones left is to be collected
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _start(
    name: str,
    run: Callable[[Any], None],
    *,
    leaves_record: bool = True,
) -> None:
    """Compose the settings and run; a user's mistake ends with one sentence and status 1."""
    if sys.argv[1:] == ["--version"]:  # Hydra would tell its own
        print(f"mirror {__version__}")
        return
    register_schemas()
    sys.path.append(os.getcwd())  # where a user's own parts may lie; behind all else, so that nothing is shadowed
    failed: list[str] = []
    ways_on: list[str] = []

    def read(config: DictConfig) -> Any:
        if not config.get("resume"):
            return settings(config)
        if HydraConfig.get().mode is RunMode.MULTIRUN:
            raise MirrorError(f"resume={config.resume} goes on with one run and cannot be swept: leave out -m.")
        return resumed(name, Path(config.resume), HydraConfig.get().overrides.task)

    def plain(config: DictConfig) -> Any:
        return OmegaConf.to_container(config, enum_to_str=True)

    def job(config: DictConfig) -> None:
        swept, folder = HydraConfig.get().mode is RunMode.MULTIRUN, Path(HydraConfig.get().runtime.output_dir)
        if swept:
            end_with_sweep()
        try:
            run(read(config))
        except PrunedError as reason:
            log.info("pruned: %s", reason)
        except MirrorError as error:
            log.error("error: %s", error)
            if leaves_record:
                record_failure(folder, plain(config), error)
            failed.append(str(error))  # a sweep goes on with its next run
        except BaseException as error:
            if leaves_record and _stopped_by(error):
                record_failure(folder, plain(config), KeyboardInterrupt())
                ways_on.append(_way_on(name, folder, config, swept=swept))
            raise

    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra lets its errors through, and they are told here
    try:
        _check_ranks()
        with _held, _stoppable(ways_on):
            hydra.main(version_base="1.3", config_path=str(CONF), config_name=name)(job)()
    except COMPOSITION_ERRORS as error:
        if isinstance(error, ValueError) and not isinstance(error, COMPOSITION_ERRORS[:2]) and _reached(job, error):
            raise
        sys.exit(f"error: {one_sentence(error, name, sys.argv[1:])}")
    except MirrorError as error:  # of a sweep, which lists its failed runs itself, or of the environment
        sys.exit(f"error: {error}")
    if failed:
        sys.exit(1)


@contextmanager
def _stoppable(ways_on: list[str]) -> Iterator[None]:
    """Ctrl-C and SIGTERM end what is inside with one sentence and the status by which shells know them."""
    with stop.stoppable():
        try:
            yield
        except MirrorError:  # such as a disk that is full for the last checkpoint
            raise
        except BaseException as error:
            number = _stopped_by(error)
            if number is None:
                raise
            if not any(int(os.environ.get(rank, 0)) > 0 for rank in RANKS):  # one process speaks for all
                print(": ".join(["interrupted", *ways_on]), file=sys.stderr)
            sys.exit(128 + number)


def _stopped_by(error: BaseException) -> int | None:
    """The signal that ended a command, of which libraries may have made an exit or an error of their own."""
    return stop.received() or (signal.SIGINT if isinstance(error, KeyboardInterrupt) else None)


def _way_on(name: str, folder: Path, config: DictConfig, *, swept: bool) -> str:
    """What to do about a run that a signal has ended."""
    if swept:
        return "start the sweep again, what it has finished is kept"
    if (read_run(folder) or {}).get("status") == "finished":
        return f"the run in {folder} was finished already"
    if has_checkpoint(folder) and config.get("seeds", 1) == 1:
        return f"go on with python scripts/{name}.py resume={folder}"
    return "there is no checkpoint to go on from, start again"


def _reached(job: Callable[..., None], error: BaseException) -> bool:
    """Whether an error comes from the run itself and not from composing its settings."""
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code is job.__code__:
            return True
        trace = trace.tb_next
    return False


def _check_ranks() -> None:
    """The numbers in the environment are numbers, before Lightning reads them.

    Raises:
        MirrorError: one is not.
    """
    for name in (*RANKS, *COUNTS):
        value = os.environ.get(name, "0")
        if not value.isdecimal():
            raise MirrorError(f"{name}={value} in the environment is no whole number: unset {name}.")


class RunFolder(Callback):
    """Makes sure of a run's folder before anything is written there: it can be written, holds nothing but what Hydra
    itself begins with, and no other process runs there, until this one ends."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Called by Hydra before a sweep, which looks after its folders itself."""
        _follower(config)

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Called by Hydra before it makes the folder; it swallows errors here, but not an exit."""
        if _follower(config):  # it shares the first process's folder
            return
        folder, resume = Path(config.hydra.run.dir), bool(config.get("resume"))
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
            if not _held.enter_context(hold_lock(folder)):
                setting = "resume" if resume else "hydra.run.dir"
                sys.exit(f"error: {setting}={folder} is in use by another run: wait for its end, or choose another.")
        except OSError as error:
            sys.exit(f"error: hydra.run.dir={folder} cannot be written ({error.strerror}): choose another folder.")


def _follower(config: DictConfig) -> bool:
    """Whether this is another process of a run than the first, which makes the folder; exits where it only seems so."""
    named = [f"{name}={os.environ[name]}" for name in RANKS if int(os.environ.get(name, 0)) > 0]
    trainer = config.get("trainer")
    counts = [int(os.environ.get(name, 1)) for name in COUNTS]
    if named and max(trainer.devices * trainer.nodes if trainer else 1, *counts) < 2:
        sys.exit(
            f"error: {named[0]} in the environment says that another process leads this run, which has one alone: "
            f"unset {named[0].partition('=')[0]}."
        )
    return bool(named)
