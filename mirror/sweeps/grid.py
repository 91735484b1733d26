"""Hydra's grid sweeper, which skips finished runs, whatever the launcher. Nothing heavy is imported here."""

import logging
import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf, open_dict

from mirror.config import Strategy
from mirror.config.compose import quoted, run_id
from mirror.errors import MirrorError
from mirror.runs import stop
from mirror.runs.code import changed_parts
from mirror.runs.registry import (
    LEFT,
    hold_lock,
    identity,
    interrupt_left,
    read_run,
    runs_in,
    strangers,
    usual_seconds,
)
from mirror.sweeps.axes import runs_of
from mirror.sweeps.jobs import Job
from mirror.sweeps.names import earlier_folder, folder_name
from mirror.sweeps.progress import duration, outcome, progress

log = logging.getLogger(__name__)

QUIET = ("hydra.job_logging.root.handlers=[file]",)
"""The messages of the runs go to their logs, and the terminal shows the sweep."""
SILENT = ("trainer.progress=false", *QUIET)
"""For parallel runs, whose bars would be drawn over each other."""
SUBDIR = "${run_id:}"
"""How ``conf/train.yaml`` names a run's folder; the axes are put before that."""
LEAKED = "ignore:resource_tracker:UserWarning"
"""Python's warning that workers which were stopped had semaphores, which it removes itself."""
QUICK = 10.0
"""Assumed seconds for a quick run while none has finished."""


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
        self.known: list[dict[str, Any]] = []
        """Runs whose seconds say how long the next will take."""

    def sweep(self, arguments: list[str]) -> None:
        """Run what is missing of the grid.

        Raises:
            MirrorError: the grid is empty or too large, another sweep runs in the folder, or runs failed.
        """
        assert self.config is not None
        if self.max_batch_size is not None and (type(self.max_batch_size) is not int or self.max_batch_size < 1):
            raise MirrorError(f"hydra.sweeper.max_batch_size={self.max_batch_size}: give a number above 0, or null.")
        if self.config.hydra.launcher.get("n_jobs") == 0:
            raise MirrorError("hydra.launcher.n_jobs=0 runs nothing: give a number above 0, or -1 for all cores.")
        if self.config.resume:
            raise MirrorError(f"resume={self.config.resume} goes on with one run and cannot be swept: leave out -m.")
        folder = Path(self.config.hydra.sweep.dir)
        earlier = runs_in(folder)
        self.known = list(earlier.values())
        jobs = self._jobs(arguments, usual_seconds(self.known))
        states = [earlier.get(job.name, {}).get("status") for job in jobs]
        settled = {"finished"} if self.config.retry_failed else {"finished", "failed"}
        changed = self._changed([earlier[job.name] for job in jobs if job.name in earlier])
        again = changed if self.config.retry_changed else set()
        missing = [job for job, state in zip(jobs, states, strict=True) if state not in settled or job.name in again]
        log.info(
            "%d runs in %s: %d finished already, %d failed earlier, %d to run",
            len(jobs), folder, states.count("finished"), states.count("failed"), len(missing),
        )  # fmt: skip
        with only_sweep(folder):
            broken = self._launch(missing)
        self._report(jobs, folder, broken)

    def _changed(self, runs: Iterable[dict[str, Any]]) -> set[str]:
        """The identities of finished runs whose own parts had other code, which the user is told."""
        assert self.config is not None
        ended = [run for run in runs if run["status"] in ("finished", "pruned")]
        found = {identity(run["config"]): changed_parts(run) for run in ended}
        changed = {name for name, modules in found.items() if modules}
        if changed:
            modules = ", ".join(sorted({module for modules in found.values() for module in modules}))
            way = "they run again" if self.config.retry_changed else "kept; retry_changed=true runs them again"
            log.warning("%d runs finished with other code of %s than there is now: %s", len(changed), modules, way)
        return changed

    def _jobs(self, arguments: list[str], seconds: float | None) -> list[Job]:
        """The runs of the sweep, each once."""
        assert self.config is not None
        grids = [
            self._parse([*(f"{key}={value}" for key, value in axes.items()), *self._parse_config(), *arguments])
            for axes in self.grids or [{}]
        ]
        count = sum(runs_of(grid) for grid in grids)
        if count == 0:
            raise MirrorError("The sweep has no runs: one of its axes is empty.")
        if count > self.config.max_runs:
            each = f"at {seconds:.0f} s each" if seconds else f"if each took {QUICK:.0f} s"
            time = f"{duration(count * (seconds or QUICK))} {each}, one after another"
            raise MirrorError(f"The sweep has {count:,} runs ({time}): if you mean it, add max_runs={count}.")
        jobs: dict[str, Job] = {}
        for grid in grids:
            (combinations,) = self.split_arguments(grid, None)
            axes = [override.get_key_element() for override in grid if override.is_sweep_override()]
            for overrides in combinations:
                job = self._job(overrides, len(jobs), axes)
                jobs.setdefault(job.name, job)
        return list(jobs.values())

    def _parse(self, overrides: list[str]) -> list[Override]:
        assert self.hydra_context is not None
        return OverridesParser.create(config_loader=self.hydra_context.config_loader).parse_overrides(overrides)

    def _job(self, overrides: Sequence[str], number: int, axes: Collection[str]) -> Job:
        """The run that these overrides make."""
        assert self.config is not None
        assert self.hydra_context is not None
        quiet = [*(QUIET if self.serial else SILENT), *overrides]
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
        folder, name = Path(config.hydra.sweep.dir), run_id(config)
        if OmegaConf.to_container(config.hydra.sweep, resolve=False)["subdir"] != SUBDIR:  # type: ignore[call-overload, index]
            subdir = str(config.hydra.sweep.subdir)
            if len(Path(subdir).parts) != 1 or subdir == "..":  # runs are looked for directly under the sweep's folder
                raise MirrorError(f"hydra.sweep.subdir={subdir} is no name of a folder in {folder}: give a name.")
            return Job(quiet, name, folder / subdir, axes)
        subdir = earlier_folder(folder, name) or folder_name(overrides, axes, name)
        return Job([*quiet, f"hydra.sweep.subdir={quoted(subdir)}"], name, folder / subdir, axes)

    @property
    def serial(self) -> bool:
        """Whether the runs follow each other in this process."""
        return isinstance(self.launcher, BasicLauncher)

    def _launch(self, jobs: Sequence[Job], first: int = 1, total: int | None = None, kind: str = "run") -> str | None:
        """Run the jobs; returns the error that stopped the launcher, if any.

        Args:
            jobs: what to run.
            first: number of the first of them, for the user.
            total: how many there will have been at the end; None for these alone.
            kind: what the user knows them as.

        Raises:
            KeyboardInterrupt: a signal ended the sweep; it says how to go on.
        """
        assert self.launcher is not None
        assert self.config is not None
        jobs = [job for job in jobs if self._cleared(job)]
        if not jobs:
            return None
        folder = Path(self.config.hydra.sweep.dir)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        # The launcher's own announcement of the runs, with all their overrides, which says less than ours.
        logging.getLogger(type(self.launcher).__module__.rpartition(".")[0]).setLevel(logging.WARNING)
        if not self.serial and LEAKED not in (warned := os.environ.get("PYTHONWARNINGS", "")):
            os.environ["PYTHONWARNINGS"] = f"{warned},{LEAKED}".lstrip(",")  # read by the processes to come
        size = 1 if self.serial else self.max_batch_size or len(jobs)
        last = total or len(jobs)
        with progress([job.folder for job in jobs], shown=not self.serial):
            for start in range(0, len(jobs), size):
                batch = jobs[start : start + size]
                if self.serial:
                    seconds = usual_seconds(self.known)
                    left = (
                        f", about {duration(seconds * (last - first - start + 1))} left" if seconds is not None else ""
                    )
                    log.info("%s %d of %d%s: %s", kind, first + start, last, left, batch[0].axes)
                try:
                    self.launcher.launch([job.overrides for job in batch], initial_job_idx=first - 1 + start)
                    if stop.received():  # the run ended by an error that a library made of the signal
                        raise KeyboardInterrupt
                except Exception as error:  # a worker that was killed, a queue that refused
                    if not stop.received():
                        return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
                    raise self._interrupted(batch, folder) from None
                except (KeyboardInterrupt, SystemExit):
                    raise self._interrupted(batch, folder) from None
                ended = [run for job in batch if (run := read_run(job.folder))]
                self.known += ended
                if self.serial:
                    log.info("  %s", outcome(ended[0]) if ended else "left no record")
        return None

    def _interrupted(self, jobs: Sequence[Job], folder: Path) -> KeyboardInterrupt:
        """Note it in the records of the runs whose processes ended without doing so."""
        with stop.held():
            interrupt_left([job.folder for job in jobs])
        finished = sum(run["status"] == "finished" for run in runs_in(folder).values())
        return KeyboardInterrupt(f"start the sweep again to go on, what is finished in {folder} is kept ({finished})")

    def _cleared(self, job: Job) -> bool:
        """Remove what this very run has left where it was killed or failed, which would mix with what it leaves now;
        False where a process of a sweep that was killed is still at it.

        Raises:
            MirrorError: the folder holds something else, which stays.
        """
        assert self.config is not None
        folder, begun = job.folder, job.begun()
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
            run = read_run(folder) or {}
            if run.get("status") == "finished" and not (self.config.retry_changed and changed_parts(run)):
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
        if finished:
            from mirror.report.runs import collect  # only now: a sweep composes its runs without these libraries
            from mirror.report.summary import summary_table

            if table := summary_table(collect([folder]).runs):
                log.info("%s", table)
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
