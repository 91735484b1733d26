"""The record of a run, ``metrics.json``: written from its first second on, so that a run that dies is on record.

The results are under these keys; a *column* is an encoder with one pooling, such as ``raw mean`` or ``tuned``:

- ``scores``: by column and set, the figures × 100 by protocol, and ``pairs``; over several seeds, their means.
- ``headlines``: by set, the protocol whose figure the field quotes, one of those in ``scores``.
- ``parts``: by column and set, the headline figure of each part (source, part of speech), where a set has parts.
- ``certainty``: by column and set (and ``average of 7``), the bootstrap ``interval``; over several seeds also each
  figure (``seeds``), ``sd`` and Student's ``seed_interval``.
- ``resampled``: of the last column, by set, the figure on each bootstrap resample, with blanks between. The draws
  follow from the set's name, so that two runs can be compared pair by pair.
- ``comparisons``: a list of two columns on one set; see ``mirror.evaluation.certainty.Comparison``.
- ``contamination``: by column and set; see ``mirror.evaluation.contamination.Overlap``.
- ``geometry``: by column; see ``mirror.evaluation.geometry.Geometry``.
- ``geometry_curve``: the same figures while training, by ``step``, of the run's own seed.
- ``cosines``: by column and set, histograms of the cosine similarities.
- ``seeds``: where there are several, by seed its ``steps``, ``loss`` and ``scores``.
- ``mteb``: by column and task, MTEB's main score × 100.
- ``suited``: settings that followed the model because nobody chose them, and whose they are (``source``).
- ``trainable``: of the encoder and its head, the ``parameters``, how many of them ``learn`` in any step, their
  ``share``, and the ``optimizer_bytes`` that the optimizer keeps for all that learns.
- ``columns``: of an evaluation, the path of each column's encoder.
- ``code``: the ``commit`` of the working directory, whether it was ``changed`` since, and digests of a user's own
  ``parts``; see ``mirror.runs.code``.
"""

import csv
import json
import os
import platform
import resource
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mirror.errors import MirrorError, PrunedError
from mirror.runs import stop
from mirror.runs.atomic import reason_of, written_whole
from mirror.runs.code import code_of
from mirror.version import __version__

METRICS = "metrics.json"
CHECKPOINTS = "checkpoints"
"""Folder within a run's folder, removed once the run is finished."""
ENCODER = "encoder"
"""Folder of the encoder within a run's folder."""
CURVE = "curve"
"""Folder of the loss curve, ``metrics.csv``."""
TUNED = "tuned"
"""The column of the tuned encoder."""
TRAINABLE = "trainable"
"""Key of what learns."""
PACKAGES = (
    "torch", "pytorch-lightning", "transformers", "tokenizers", "datasets", "hydra-core", "numpy", "scipy", "pandas",
    "wordfreq",
)  # fmt: skip
"""Packages whose versions decide whether a run can be repeated; the documentation of some is a training text."""


class RunRecord:
    """The record of one run; as a context manager it notes how the run ends.

    Args:
        folder: where ``metrics.json`` goes; None keeps the record in memory.
        config: the resolved settings, as plain values.
        started: when the command was given, in seconds since the epoch.
    """

    def __init__(self, folder: Path | None, config: dict[str, Any], started: float | None = None) -> None:
        self.path = folder / METRICS if folder else None
        self.started = started or time.time()
        self.content: dict[str, Any] = {
            "status": "running",
            "started": datetime.fromtimestamp(self.started, UTC).isoformat(timespec="seconds"),
            "command": sys.argv,
            "seed": config.get("seed"),
            "scores": {},
            "seconds": {},
            "versions": {"mirror": __version__, "python": platform.python_version(), **_versions()},
            "code": code_of(config),
            "machine": {
                "system": platform.platform(),
                "processor": platform.machine(),
                "cores": os.cpu_count(),
            },
            "config": config,
        }

    def __enter__(self) -> Self:
        self.write()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with stop.held():
            self._end(kind, error)

    def _end(self, kind: type[BaseException] | None, error: BaseException | None) -> None:
        if kind is None:
            self.content["status"] = "finished"
        elif issubclass(kind, PrunedError):
            self.content["status"], self.content["error"] = "pruned", f"pruned: {error}"
        elif issubclass(kind, MirrorError) or not (stop.received() or issubclass(kind, KeyboardInterrupt | SystemExit)):
            self.content["status"], self.content["error"] = "failed", f"{kind.__name__}: {error}"
        else:
            by = "SIGTERM" if stop.received() == signal.SIGTERM else "the user"
            self.content["status"], self.content["error"] = "interrupted", f"stopped by {by}"
        self.content["seconds"]["total"] = round(time.time() - self.started, 3)
        self.content["peak_memory_mib"] = round(_peak_memory_mib())
        with suppress(MirrorError) if error else nullcontext():  # of a full disk, the first error is enough
            self.write()

    def __setitem__(self, key: str, value: Any) -> None:
        self.content[key] = value

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time spent inside to ``seconds[name]``."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            seconds = self.content["seconds"]
            seconds[name] = round(seconds.get(name, 0.0) + time.perf_counter() - begin, 3)

    def write(self) -> None:
        """Replace the file in one step: a reader never sees half of it.

        Raises:
            MirrorError: the disk is full, or the folder cannot be written.
        """
        if self.path is None:
            return
        try:
            with written_whole(self.path) as partial:
                partial.write_text(json.dumps(self.content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        except OSError as error:
            raise not_written(self.path.parent, error, METRICS) from error


def headline(content: Mapping[str, Any], name: str, score: Mapping[str, float]) -> str:
    """The headline protocol of a set: what the run recorded, or ``all`` or the first one in older records.

    Args:
        content: of ``metrics.json``.
        name: of the set.
        score: its figures by protocol.
    """
    recorded = content.get("headlines", {}).get(name)
    if recorded is not None:
        return str(recorded)
    return "all" if "all" in score else next(key for key in score if key != "pairs")


def has_checkpoint(folder: Path) -> bool:
    """Whether ``resume=`` finds a checkpoint."""
    return any((folder / CHECKPOINTS).glob("*.ckpt"))


def not_written(folder: Path, error: BaseException, name: str = "") -> MirrorError:
    """The error for a file that cannot be written, for example on a full disk."""
    return MirrorError(
        f"{folder / name} cannot be written ({reason_of(error)}): free some space, then {way_on(folder)}."
    )


def called(name: str) -> list[str]:
    """How a command is called from this folder: by its script where there is one, else as installed."""
    script = Path("scripts", f"{name}.py")
    return ["python", script.as_posix()] if script.is_file() else [f"mirror-{name}"]


def way_on(folder: Path) -> str:
    """What to do about a run that has ended before its end."""
    return f"go on with resume={folder}" if has_checkpoint(folder) else "start again"


def record_failure(folder: Path, config: dict[str, Any], error: BaseException) -> None:
    """Record why a run failed before it had a record; an existing record stays."""
    if not (folder / METRICS).exists():
        with suppress(type(error)), RunRecord(folder, config):
            raise error


def by_step(folder: Path, figure: str = "loss") -> list[tuple[int, float]]:
    """Step, counted from 0, and figure from the CSV logs of a run and of its interrupted beginnings."""
    found: dict[int, float] = {}
    for path in sorted((folder / CURVE).glob("metrics*.csv"), key=lambda path: (path.name == "metrics.csv", path.name)):
        with path.open(encoding="utf-8") as file:
            found |= {int(row["step"]): float(row[figure]) for row in csv.DictReader(file) if row.get(figure)}
    return sorted(found.items())


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _peak_memory_mib() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
