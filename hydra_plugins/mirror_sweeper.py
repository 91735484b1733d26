"""Hydra's sweeper for the sweeps of mirror: runs what is missing, whatever launcher runs it.

Hydra takes plugins from the namespace ``hydra_plugins`` alone, and imports them at every start: nothing heavy here.
"""

import logging
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf, open_dict

from mirror.compose import run_id
from mirror.config import Strategy
from mirror.errors import MirrorError
from mirror.sweeps import progress, read_run, runs_in, usual_seconds

log = logging.getLogger(__name__)

QUIET = ("trainer.progress=false", "hydra.job_logging.root.handlers=[file]")
"""For runs beside each other: what they say stands in their logs, and the terminal shows the sweep."""


@dataclass
class GridConf:
    """``hydra.sweeper`` of the training command."""

    _target_: str = "hydra_plugins.mirror_sweeper.Grid"
    max_batch_size: int | None = None
    params: dict[str, str] | None = None
    """The axes of a grid."""
    grids: list[dict[str, str]] | None = None
    """Several grids in one sweep, each with ``params``; a run that stands in two of them runs once."""


ConfigStore.instance().store(group="hydra/sweeper", name="grid", node=GridConf, provider="mirror")


@dataclass
class Job:
    """A run that is to be: its overrides, its identity and its folder."""

    overrides: list[str]
    name: str
    folder: Path

    @property
    def axes(self) -> str:
        """What a person calls it."""
        return " ".join(override for override in self.overrides if override not in QUIET)


class Grid(BasicSweeper):
    """Hydra's grid, which knows the runs that are finished."""

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
        from filelock import FileLock, Timeout

        assert self.config is not None
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
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / ".lock", blocking=False):
                broken = self._launch(missing)
        except Timeout:
            raise MirrorError(f"A sweep runs in {folder} already: wait for it, or choose hydra.sweep.dir=….") from None
        except OSError as error:
            raise MirrorError(
                f"hydra.sweep.dir={folder} cannot be written ({error.strerror}): choose another."
            ) from error
        self._report(jobs, folder, broken)

    def _jobs(self, arguments: list[str], seconds: float | None) -> list[Job]:
        """The runs of the sweep, each once."""
        assert self.config is not None
        assert self.hydra_context is not None
        loader = self.hydra_context.config_loader
        parser = OverridesParser.create(config_loader=loader)
        grids = [
            parser.parse_overrides(
                [*(f"{key}={value}" for key, value in axes.items()), *self._parse_config(), *arguments]
            )
            for axes in self.grids or [{}]
        ]
        count = sum(_size(grid) for grid in grids)
        if count == 0:
            raise MirrorError("The sweep has no runs: one of its axes is empty.")
        if count > self.config.max_runs:
            time = f" ({_duration(count * seconds)} at {seconds:.0f} s each, one after another)" if seconds else ""
            raise MirrorError(f"The sweep has {count:,} runs{time}: if you mean it, add max_runs={count}.")
        jobs: dict[str, Job] = {}
        parallel = not isinstance(self.launcher, BasicLauncher)
        for grid in grids:
            (combinations,) = self.split_arguments(grid, None)
            for overrides in combinations:
                quiet = [*QUIET, *overrides] if parallel else list(overrides)
                config = loader.load_sweep_config(self.config, quiet)
                if config.trainer.strategy is Strategy.ddp:
                    raise MirrorError(
                        "trainer=ddp cannot run inside a sweep, since every process would start the sweep again: sweep "
                        "with trainer=gpu, or start one command for each run, as in "
                        "for seed in 1 2 3; do python scripts/train.py trainer=ddp seed=$seed; done"
                    )
                with open_dict(config):
                    config.hydra.job.num = len(jobs)
                name = run_id(config)
                jobs.setdefault(name, Job(quiet, name, Path(config.hydra.sweep.dir) / config.hydra.sweep.subdir))
        return list(jobs.values())

    def _launch(self, jobs: Sequence[Job]) -> str | None:
        """Run them; what broke the launcher, if something did."""
        assert self.launcher is not None
        assert self.config is not None
        if not jobs:
            return None
        for job in jobs:  # what a killed or failed run has left would mix with what the new one leaves
            if (read_run(job.folder) or {}).get("status") == "finished":
                raise MirrorError(f"{job.folder} holds a finished run with other settings: choose hydra.sweep.dir=….")
            shutil.rmtree(job.folder, ignore_errors=True)
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


def _size(grid: Sequence[Override]) -> int:
    """Combinations of the axes; an axis that is named again replaces the first."""
    axes: dict[str, int] = {}
    for override in grid:
        swept = override.is_discrete_sweep() if override.is_sweep_override() else False
        axes[override.get_key_element()] = len(list(override.sweep_string_iterator())) if swept else 1
    return math.prod(axes.values())


def _duration(seconds: float) -> str:
    hours, minutes = divmod(math.ceil(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
