"""Hydra's grid sweeper, which skips finished runs, whatever the launcher. Nothing heavy is imported here."""

import logging
import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, RangeSweep
from omegaconf import OmegaConf, open_dict

from mirror.config import Strategy
from mirror.config.compose import run_id
from mirror.errors import MirrorError
from mirror.runs.registry import LEFT, hold_lock, identity, read_run, runs_in, strangers, usual_seconds
from mirror.sweeps.progress import progress

log = logging.getLogger(__name__)

QUIET = ("trainer.progress=false", "hydra.job_logging.root.handlers=[file]")
"""For parallel runs: their messages go to their logs, and the terminal shows the sweep."""
QUICK = 10.0
"""Assumed seconds for a quick run while none has finished."""


@dataclass
class Job:
    """A run to start: its overrides, its identity and its folder."""

    overrides: list[str]
    name: str
    folder: Path

    @property
    def axes(self) -> str:
        """Its name for the user."""
        return " ".join(
            override for override in self.overrides if override not in QUIET and not override.startswith("trial=")
        )


class Grid(BasicSweeper):
    """Hydra's grid, which skips finished runs.

    Args:
        max_batch_size: runs that are handed to the launcher together; None is all.
        params: the axes.
        grids: several grids, each with ``params`` too; a run that stands in two of them runs once.
    """

    def __init__(
        self,
        max_batch_size: int | None = None,
        params: dict[str, str] | None = None,
        grids: list[dict[str, str]] | None = None,
    ) -> None:
        super().__init__(max_batch_size, params)
        self.grids = grids

    def sweep(self, arguments: list[str]) -> None:
        """Run what is missing of the grid.

        Raises:
            MirrorError: the grid is empty or too large, another sweep runs in the folder, or runs failed.
        """
        assert self.config is not None
        if self.max_batch_size is not None and (type(self.max_batch_size) is not int or self.max_batch_size < 1):
            raise MirrorError(
                f"hydra.sweeper.max_batch_size={self.max_batch_size}: give a number, at least 1, or null."
            )
        if self.config.resume:
            raise MirrorError(f"resume={self.config.resume} goes on with one run and cannot be swept: leave out -m.")
        folder = Path(self.config.hydra.sweep.dir)
        earlier = runs_in(folder)
        jobs = self._jobs(arguments, usual_seconds(list(earlier.values())))
        states = [earlier.get(job.name, {}).get("status") for job in jobs]
        settled = {"finished"} if self.config.retry_failed else {"finished", "failed"}
        missing = [job for job, state in zip(jobs, states, strict=True) if state not in settled]
        log.info(
            "%d runs in %s: %d finished already, %d failed earlier, %d to run",
            len(jobs), folder, states.count("finished"), states.count("failed"), len(missing),
        )  # fmt: skip
        with only_sweep(folder):
            broken = self._launch(missing)
        self._report(jobs, folder, broken)

    def _jobs(self, arguments: list[str], seconds: float | None) -> list[Job]:
        """The runs of the sweep, each once."""
        assert self.config is not None
        grids = [
            self._parse([*(f"{key}={value}" for key, value in axes.items()), *self._parse_config(), *arguments])
            for axes in self.grids or [{}]
        ]
        count = sum(_size(grid) for grid in grids)
        if count == 0:
            raise MirrorError("The sweep has no runs: one of its axes is empty.")
        if count > self.config.max_runs:
            each = f"at {seconds:.0f} s each" if seconds else f"if each took {QUICK:.0f} s"
            time = f"{_duration(count * (seconds or QUICK))} {each}, one after another"
            raise MirrorError(f"The sweep has {count:,} runs ({time}): if you mean it, add max_runs={count}.")
        jobs: dict[str, Job] = {}
        for grid in grids:
            (combinations,) = self.split_arguments(grid, None)
            for overrides in combinations:
                job = self._job(overrides, len(jobs))
                jobs.setdefault(job.name, job)
        return list(jobs.values())

    def _parse(self, overrides: list[str]) -> list[Override]:
        assert self.hydra_context is not None
        return OverridesParser.create(config_loader=self.hydra_context.config_loader).parse_overrides(overrides)

    def _job(self, overrides: Sequence[str], number: int) -> Job:
        """The run that these overrides make."""
        assert self.config is not None
        assert self.hydra_context is not None
        parallel = not isinstance(self.launcher, BasicLauncher)
        quiet = [*QUIET, *overrides] if parallel else list(overrides)
        config = self.hydra_context.config_loader.load_sweep_config(self.config, quiet)
        if config.trainer.strategy is not Strategy.auto:
            name = config.trainer.strategy.value
            raise MirrorError(
                f"trainer={name} cannot run inside a sweep, since every process would start the sweep again: sweep "
                "with trainer=gpu, or start one command for each run, as in "
                f"for seed in 1 2 3; do python scripts/train.py trainer={name} seed=$seed; done"
            )
        with open_dict(config):
            config.hydra.job.num = number
        return Job(quiet, run_id(config), Path(config.hydra.sweep.dir) / config.hydra.sweep.subdir)

    def _launch(self, jobs: Sequence[Job]) -> str | None:
        """Run the jobs; returns the error that stopped the launcher, if any."""
        assert self.launcher is not None
        assert self.config is not None
        jobs = [job for job in jobs if self._cleared(job)]
        if not jobs:
            return None
        OmegaConf.save(self.config, Path(self.config.hydra.sweep.dir) / "multirun.yaml")
        size = self.max_batch_size or len(jobs)
        with progress([job.folder for job in jobs], shown=not isinstance(self.launcher, BasicLauncher)):
            for start in range(0, len(jobs), size):
                batch = jobs[start : start + size]
                try:
                    self.launcher.launch([job.overrides for job in batch], initial_job_idx=start)
                except Exception as error:  # a worker that was killed, a queue that refused
                    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        return None

    def _cleared(self, job: Job) -> bool:
        """Remove what this very run has left where it was killed or failed, which would mix with what it leaves now;
        False where a process of a sweep that was killed is still at it.

        Raises:
            MirrorError: the folder holds something else, which stays.
        """
        assert self.config is not None
        folder, begun = job.folder, _begun(job)
        if read_run(folder) and not begun:
            raise MirrorError(f"{folder} holds a run with other settings: choose hydra.sweep.dir=….")
        start = [str(self.config.hydra.output_subdir), f"{self.config.hydra.job.name}.log"]
        if others := strangers(folder, *start, *(LEFT if begun else ())):
            raise MirrorError(
                f"The sweep would run in {folder}, which holds {others[0]} that it did not make: move that away, or "
                "choose another hydra.sweep.dir=… or hydra.sweep.subdir=…."
            )
        with hold_lock(folder) as held:
            if not held:
                log.warning("%s is left to the process that runs it since an earlier start", folder)
                return False
            if (read_run(folder) or {}).get("status") == "finished":
                raise MirrorError(f"{folder} holds a finished run already: choose hydra.sweep.dir=….")
            shutil.rmtree(folder, ignore_errors=True)
        return True

    def _report(self, jobs: Sequence[Job], folder: Path, broken: str | None) -> None:
        """Say how the runs ended, from what they recorded.

        Raises:
            MirrorError: some did not finish.
        """
        ended = runs_in(folder)
        unfinished = [job for job in jobs if ended.get(job.name, {}).get("status") != "finished"]
        for job in unfinished:
            run = ended.get(job.name)
            reason = run.get("error", "it did not end") if run else "it did not begin"
            log.info("not finished: %s (%s): %s", job.axes, job.folder, reason)
        finished = len(jobs) - len(unfinished)
        log.info("%d of %d runs finished; to compare them: python scripts/report.py %s", finished, len(jobs), folder)
        if broken:
            raise MirrorError(f"The launcher stopped ({broken}): start the sweep again, finished runs are kept.")
        if unfinished:
            raise MirrorError(
                f"{len(unfinished)} of {len(jobs)} runs did not finish, as listed above: start the sweep again with "
                "retry_failed=true."
            )


@contextmanager
def only_sweep(folder: Path) -> Iterator[None]:
    """Create a folder and keep other sweeps out of it; a killed process no longer does."""
    with ExitStack() as held:
        try:
            ours = held.enter_context(hold_lock(folder))
        except OSError as error:
            raise MirrorError(
                f"hydra.sweep.dir={folder} cannot be written ({error.strerror}): choose another."
            ) from error
        if not ours:
            raise MirrorError(f"A sweep runs in {folder} already: wait for it, or choose hydra.sweep.dir=….")
        yield


def _size(grid: Sequence[Override]) -> int:
    """Combinations of the axes; an axis that is named twice counts once, with its last values."""
    axes: dict[str, int] = {}
    for override in grid:
        swept = override.is_sweep_override()
        axes[override.get_key_element()] = _length(override) if swept else 1
    return math.prod(axes.values())


def _length(axis: Override) -> int:
    """Values of an axis, counted without making them: a range may have a billion.

    Raises:
        MirrorError: it is an interval, or a range that does not end.
    """
    if not axis.is_discrete_sweep():
        raise MirrorError(f"{axis.input_line} is drawn from by sweep=optuna alone: write choice(…) or range(…).")
    swept = axis.value()
    if not isinstance(swept, RangeSweep) or swept.start is None or swept.stop is None:
        return len(list(axis.sweep_string_iterator()))
    try:
        return max(0, math.ceil((swept.stop - swept.start) / swept.step))
    except (ArithmeticError, ValueError) as error:
        raise MirrorError(f"{axis.input_line} does not end: give it finite bounds and a step other than 0.") from error


def _duration(seconds: float) -> str:
    hours, minutes = divmod(math.ceil(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _begun(job: Job) -> bool:
    """Whether the folder is one in which this very run began before, by its record or by what Hydra wrote first."""
    if (run := read_run(job.folder)) and identity(run["config"]) == job.name:
        return True
    try:
        return run_id(OmegaConf.load(job.folder / ".hydra" / "config.yaml")) == job.name  # type: ignore[arg-type]
    except Exception:  # there is none, or it is not mirror's and may hold anything
        return False
