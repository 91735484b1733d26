"""Reads runs from the disk, finished or not: their settings and their results."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from mirror.config import flat
from mirror.evaluation.resampling import Floats
from mirror.evaluation.sets.sts import AVERAGE, sts_average
from mirror.runs.record import METRICS, TUNED, by_step, called, headline
from mirror.runs.registry import identity, read_run

LOG_CHARACTERS = 4000
"""Most characters of a run's log shown on the page, from its end."""
_YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass
class Sample:
    """The results of one seed of a run."""

    seed: int
    scores: dict[str, float]
    """By set, the figure that the field quotes, × 100; and ``AVERAGE`` where the seven sets are there."""
    loss: float | None
    """At the end."""


@dataclass
class Run:
    """One run."""

    folder: Path
    status: str
    error: str | None
    settings: dict[str, Any]
    """Every setting by its full name."""
    typed: dict[str, str]
    """The settings as they were typed: overrides of the command line or of the sweep."""
    choices: dict[str, str | None]
    """The option of each group."""
    samples: list[Sample]
    raw: dict[str, dict[str, float]]
    """Scores of the untouched model, by pooling and set."""
    sets: dict[str, int]
    """Size of each test set."""
    transductive: frozenset[str]
    """Sets with texts that were trained on."""
    geometry: dict[str, float]
    """Alignment and uniformity of the tuned encoder, where measured."""
    cosines: dict[str, Any]
    seconds: dict[str, float]
    version: str
    commit: str | None = None
    """Of the working directory, and whether it was changed since."""
    parts: dict[str, str] = field(default_factory=dict)
    """Digests of the modules of a user's own."""
    resampled: dict[str, Floats] = field(repr=False, default_factory=dict)
    """By set, the tuned encoder's figure on each bootstrap resample, (B,); empty in records that have not kept it."""
    content: dict[str, Any] = field(repr=False, default_factory=dict)

    @property
    def name(self) -> str:
        """Its folder."""
        return self.folder.name

    @property
    def command(self) -> str:
        """What repeats it, alone."""
        if not self.typed:
            return shlex.join(["python", *self.content.get("command", [])])
        words = [
            f"{key}={value}" for key, value in self.typed.items() if key not in ("sweep", "trainer.progress", "trial")
        ]
        return shlex.join([*called("train"), *self._config_dir(), *words])

    def _config_dir(self) -> list[str]:
        """The folder of a user's own parts, as it was given: Hydra does not keep it among the overrides."""
        given = [str(word) for word in self.content.get("command", [])]
        for word, following in zip(given, [*given[1:], ""], strict=True):
            if word.startswith("--config-dir="):
                return [word]
            if word in ("--config-dir", "-cd"):
                return [word, following]
        return []

    @property
    def group(self) -> str | None:
        """The sweep that trackers know it by."""
        return self.settings.get("logger.group")

    @property
    def frame(self) -> tuple[str, tuple[tuple[str, int], ...]]:
        """Runs are compared only within one version of mirror and on the same test sets."""
        return self.version, tuple(self.sets.items())

    def log(self) -> str:
        """The end of its log."""
        for path in sorted(self.folder.glob("*.log")):
            if path.is_file():
                return path.read_text(encoding="utf-8", errors="replace")[-LOG_CHARACTERS:]
        return ""

    def curve(self) -> list[tuple[int, float]]:
        """Steps, counted from 0, and losses; none where they cannot be read."""
        try:
            return by_step(self.folder)
        except (OSError, ValueError, KeyError):
            return []


@dataclass
class Found:
    """Everything under some folders."""

    runs: list[Run]
    problems: list[str]
    """What was left out, and why; a sentence each."""


def collect(folders: Sequence[Path]) -> Found:
    """Read every run under the folders; what is not one of mirror's runs is named and left out."""
    runs: list[Run] = []
    problems: list[str] = []
    seen: dict[tuple[str, Any], Path] = {}
    for path in (path for folder in folders for path in sorted(folder.rglob(METRICS))):
        content = read_run(path.parent)
        if content is None:
            problems.append(f"{path} is half-written or not of mirror: left out.")
        elif not {"loss", "aug"} <= content["config"].keys():
            problems.append(f"{path} is no training run: left out.")
        else:
            try:
                run = _run(path.parent, content)
            except (StopIteration, LookupError, TypeError, ValueError, AttributeError, RecursionError):
                problems.append(f"{path} holds figures of another kind than mirror writes: left out.")
                continue
            key = (identity(content["config"]), run.frame)
            if run.status == "finished" and seen.setdefault(key, run.folder) != run.folder:
                problems.append(f"{run.folder} repeats {seen[key]}, setting for setting: counted once.")
            else:
                runs.append(run)
    return Found(sorted(runs, key=lambda run: run.samples[0].seed), [*problems, *_other_code(runs)])


def _other_code(runs: Sequence[Run]) -> list[str]:
    """A sentence for each module of a user's own that was not the same in all finished runs."""
    digests: dict[str, set[str]] = {}
    for run in runs:
        if run.status == "finished":
            for module, digest in run.parts.items():
                digests.setdefault(module, set()).add(digest)
    return [
        f"The code of {module} was not the same in all runs ({len(found)} versions): they are compared as one, unless "
        "the sweep is started again with retry_changed=true."
        for module, found in digests.items()
        if len(found) > 1
    ]


def _run(folder: Path, content: dict[str, Any]) -> Run:
    scores = content.get("scores") or {}
    tuned = scores.get(TUNED, {})
    typed, choices = _asked(folder)
    seed = int(content["config"].get("seed", 0))
    if content.get("seeds"):
        samples = [
            Sample(int(number), _headlines(content, one.get("scores", {})), _last_loss(one))
            for number, one in content["seeds"].items()
        ]
    else:
        samples = [Sample(seed, _headlines(content, tuned), _last_loss(content))]
    if not isinstance(content["status"], str):
        raise TypeError("status is no text")
    if not isinstance(content.get("cosines") or {}, Mapping):
        raise TypeError("cosines is no table")
    code = content.get("code") or {}
    overlaps = (content.get("contamination") or {}).get(TUNED, {})
    return Run(
        folder=folder,
        status=content["status"],
        error=content.get("error"),
        settings={key: json.dumps(item) if isinstance(item, list) else item for key, item in flat(content["config"])},
        typed=typed,
        choices=choices,
        samples=samples,
        raw={column: _headlines(content, sets) for column, sets in scores.items() if column != TUNED},
        sets={name: int(score["pairs"]) for name, score in tuned.items()},
        transductive=frozenset(n for n, found in overlaps.items() if found.get("exact", 0) + found.get("near", 0) > 0),
        geometry=_figures((content.get("geometry") or {}).get(TUNED)),
        cosines=content.get("cosines") or {},
        seconds=_figures(content.get("seconds")),
        version=str((content.get("versions") or {}).get("mirror", "?")),
        commit=code["commit"] + " and changes" * bool(code.get("changed")) if code.get("commit") else None,
        parts=dict(code.get("parts") or {}),
        resampled={
            name: np.array(figures.split(), dtype=np.float64)
            for name, figures in (content.get("resampled") or {}).get(TUNED, {}).items()
        },
        content=content,
    )


def _figures(values: Any) -> dict[str, float]:
    return {name: float(figure) for name, figure in (values or {}).items() if figure is not None}


def _last_loss(content: Mapping[str, Any]) -> float | None:
    last = (content.get("loss") or {}).get("last")
    return None if last is None else float(last)


def _headlines(content: Mapping[str, Any], sets: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The headline figure of each set, and the STS average where all seven sets are there."""
    values = {name: float(score[headline(content, name, score)]) for name, score in sets.items()}
    average = sts_average(values)
    return values if average is None else values | {AVERAGE: average}


def _asked(folder: Path) -> tuple[dict[str, str], dict[str, str | None]]:
    """What Hydra stores with a run: the overrides and the options of the groups."""
    try:
        overrides = yaml.load((folder / ".hydra" / "overrides.yaml").read_text(encoding="utf-8"), _YAML) or []
        stored = yaml.load((folder / ".hydra" / "hydra.yaml").read_text(encoding="utf-8"), _YAML)
        choices = stored["hydra"]["runtime"]["choices"]
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        return {}, {}
    return {key.lstrip("+"): value for key, _, value in (text.partition("=") for text in overrides)}, dict(choices)
