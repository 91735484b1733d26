"""The runs of a sweep: which are identical, how each ended, how far the sweep is."""

import hashlib
import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

from mirror.runs.atomic import SCRATCH, written_whole
from mirror.runs.record import CURVE, METRICS

NEUTRAL = (
    "hydra",
    "logger",
    "trainer.progress",
    "batch.workers",
    "retry_failed",
    "retry_changed",
    "max_runs",
    "resume",
    "checkpoint_every",
    "trial",
)
"""Settings that do not change a run's results."""

STUDY = "search.db"
"""Where ``sweep=optuna`` keeps its study, in the folder of the sweep."""
LOCK = ".lock"
LEFT = (
    METRICS, CURVE, f"{SCRATCH}*", "checkpoints", "best", "encoder", "seed-*", "cosines.png", "geometry.png",
    "errors.html", "tensorboard", "wandb",
)  # fmt: skip
"""What a run of ``scripts/train.py`` may write, besides what Hydra writes."""


def identity(config: Mapping[str, Any]) -> str:
    """Ten characters that identify the resolved settings of a run, given as plain values."""

    def essential(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
        return {
            key: essential(value, f"{prefix}{key}.") if isinstance(value, Mapping) else value
            for key, value in values.items()
            if prefix + key not in NEUTRAL
        }

    content = json.dumps(essential(config), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(content.encode()).hexdigest()[:10]


def read_run(folder: Path) -> dict[str, Any] | None:
    """What the run in a folder recorded; None where there is none, or only half of one."""
    try:
        content = json.loads((folder / METRICS).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    complete = isinstance(content, dict) and isinstance(content.get("config"), dict) and "status" in content
    return content if complete else None


def runs_in(folder: Path) -> dict[str, dict[str, Any]]:
    """The runs directly under a folder by identity, whatever their folders are called; of several, the finished one
    that started last."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob(f"*/{METRICS}")):
        content = read_run(path.parent)
        if content is not None:
            name = identity(content["config"])
            if name not in found or _rank(content) > _rank(found[name]):
                found[name] = content
    return found


def _rank(run: Mapping[str, Any]) -> tuple[bool, str]:
    return run["status"] == "finished", str(run.get("started", ""))


def strangers(folder: Path, *ours: str) -> list[str]:
    """Names in a folder other than the lock and those in ``ours``, which may be patterns."""
    if not folder.is_dir():
        return []
    names = sorted(path.name for path in folder.iterdir())
    return [name for name in names if not any(fnmatchcase(name, pattern) for pattern in (LOCK, *ours))]


@contextmanager
def hold_lock(folder: Path) -> Iterator[bool]:
    """Create a folder and hold its lock; yields False if another process holds it.

    The lock ends with the block, or with this process.
    """
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def interrupt_left(folders: Sequence[Path], patience: float = 5.0) -> None:
    """Record as interrupted the runs that still read as running though no process holds their folders.

    Args:
        folders: of the runs.
        patience: seconds that processes have to end; a run that goes on after them, as SLURM's do, stays as it is.
    """
    deadline = time.monotonic() + patience
    left = [folder for folder in folders if (read_run(folder) or {}).get("status") == "running"]
    while left:
        for folder in list(left):
            with hold_lock(folder) as ours:
                if not ours:
                    continue
                left.remove(folder)
                if (run := read_run(folder)) and run["status"] == "running":
                    ended = run | {"status": "interrupted", "error": "stopped with its sweep"}
                    with written_whole(folder / METRICS) as partial:
                        partial.write_text(json.dumps(ended, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        if time.monotonic() > deadline:
            return
        time.sleep(0.1)


@cache
def end_with_sweep() -> None:
    """Let this process, if it is a worker of a launcher such as joblib's, end within a second of its sweep, even where
    that is killed: what it has not recorded as finished is run again."""
    sweep = multiprocessing.parent_process()
    if sweep is None:
        return

    def watch() -> None:
        while os.getppid() == sweep.pid:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGKILL)  # nothing milder is sure to end a computation

    threading.Thread(target=watch, daemon=True).start()


def usual_seconds(runs: Sequence[Mapping[str, Any]]) -> float | None:
    """Median seconds of the finished runs; None if none has finished."""
    times = [run["seconds"]["total"] for run in runs if run["status"] == "finished" and "total" in run["seconds"]]
    return median(times) if times else None
