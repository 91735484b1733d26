"""How a command begins and ends: settings composed, one sentence for a mistake, the exit status that shells know."""

import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mirror.cli import agent
from mirror.cli.arguments import at_home, flags_first, with_paths
from mirror.cli.completion import FLAGS, complete_own
from mirror.cli.folder import check_ranks, let_first_speak, locks, ranks, spoken_for
from mirror.cli.refusals import refusal
from mirror.cli.terminal import readable
from mirror.config.compose import COMPOSITION_ERRORS, CONF, one_sentence, register_schemas, resumed, settings
from mirror.errors import MirrorError, PrunedError
from mirror.runs import stop
from mirror.runs.record import called, has_checkpoint, record_failure
from mirror.runs.registry import end_with_sweep, read_run
from mirror.version import __version__

log = logging.getLogger(__name__)


def start(
    name: str,
    run: Callable[[Any], None],
    *,
    leaves_record: bool = True,
) -> None:
    """Compose the settings and run; a user's mistake ends with one sentence and status 1."""
    if sys.argv[1:] == ["--version"]:  # Hydra would tell its own
        print(f"mirror {__version__}")
        return
    failed: list[str] = []
    ways_on: list[str] = []

    def read(config: DictConfig) -> Any:
        if not config.get("resume"):
            try:
                return settings(config)
            except OmegaConfBaseException as error:  # such as ${x}, which OmegaConf resolves only now
                raise MirrorError(one_sentence(error, name, sys.argv[1:])) from error
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
        except (MirrorError, OSError) as error:
            told = error if isinstance(error, MirrorError) else refusal(error, sys.argv[1:])
            if told is None or stop.received():
                raise
            if told.__cause__ is None:  # with one, such as a full memory, it may be met by this process alone
                let_first_speak()
            log.error("error: %s", told)
            if leaves_record and not spoken_for():
                record_failure(folder, plain(config), told)
            failed.append(str(told))  # a sweep goes on with its next run
        except BaseException as error:
            if _stopped_by(error) is None:
                raise
            if leaves_record:
                record_failure(folder, plain(config), KeyboardInterrupt())
                ways_on.append(_way_on(name, folder, config))  # a sweep has its own
            if isinstance(error, Exception):  # a library's own, of which Hydra would tell
                raise KeyboardInterrupt from error
            raise

    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra lets its errors through, and they are told here
    try:
        with locks, _stoppable(ways_on):
            readable()
            sys.argv[1:] = with_paths(at_home(flags_first(sys.argv[1:])))
            register_schemas()
            sys.path.append(os.getcwd())  # where a user's own parts may lie; behind all else: nothing is shadowed
            check_ranks()
            if FLAGS & {*sys.argv}:
                complete_own(name)
            hydra.main(version_base="1.3", config_path=str(CONF), config_name=name)(job)()
            sys.stdout.flush()
    except COMPOSITION_ERRORS as error:
        if isinstance(error, ValueError) and not isinstance(error, COMPOSITION_ERRORS[:2]) and _reached(job, error):
            raise
        _refuse(one_sentence(error, name, sys.argv[1:]))
    except MirrorError as error:  # of a sweep, which lists its failed runs itself, or of the environment
        _refuse(str(error))
    except BrokenPipeError:  # the reader, such as head, has had enough; nothing is flushed into the void at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        if (told := refusal(error, sys.argv[1:])) is None:
            raise
        _refuse(str(told))
    if failed:
        sys.exit(1)


def _refuse(reason: str) -> NoReturn:
    """End with a sentence."""
    let_first_speak()
    sys.exit(f"error: {reason}")


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
            if not ranks():  # Lightning takes WORLD_SIZE away when it has ended its processes
                told = [str(error)] if isinstance(error, KeyboardInterrupt) and error.args else ways_on  # a sweep's own
                print(": ".join(["interrupted", *told]), file=sys.stderr)
            agent.end_by(number)
            sys.exit(128 + number)


def _stopped_by(error: BaseException) -> int | None:
    """The signal that ended a command, of which libraries may have made an exit or an error of their own."""
    return stop.received() or (signal.SIGINT if isinstance(error, KeyboardInterrupt) else None)


def _way_on(name: str, folder: Path, config: DictConfig) -> str:
    """What to do about a run that a signal has ended."""
    if (read_run(folder) or {}).get("status") == "finished":
        return f"the run in {folder} was finished already"
    if has_checkpoint(folder) and config.get("seeds", 1) == 1:
        return f"go on with {' '.join(called(name))} resume={folder}"
    return "there is no checkpoint to go on from, start again"


def _reached(job: Callable[..., None], error: BaseException) -> bool:
    """Whether an error comes from the run itself and not from composing its settings."""
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code is job.__code__:
            return True
        trace = trace.tb_next
    return False


@contextmanager
def importing() -> Iterator[None]:
    """Collect no garbage while modules are imported, and never look for any among them afterwards: that took almost a
    third of a short run (benchmarks/results/notes.md)."""
    if "torch" in sys.modules:  # a later run of a sweep: what the earlier ones left is to be collected
        yield
        return
    gc.disable()
    try:
        yield
    except BaseException:
        logging.getLogger("torch").setLevel(logging.WARNING)  # half imported, it would tell statistics at the exit
        raise
    finally:
        gc.freeze()
        gc.enable()
