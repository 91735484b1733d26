"""The sections of settings that commands are made of: names, types, defaults and ranges."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from mirror.config.checks import check, limit, rate
from mirror.config.choices import Accelerator, Pooling, Precision, Sample, Strategy, Tracker, WandbMode
from mirror.errors import MirrorError

RATES = {"dropout": 0.1, "drophead": 0.0}
"""Of ``aug``, what perturbs the network: shares of units, and of attention heads (Zhou et al. 2020)."""


MAX_WORKERS = 128
"""Processes that prepare batches; more only wait for each other."""


LONGEST_TAG, NOT_IN_PROJECTS = 64, "/\\#?%:"
"""What W&B takes as a tag, and not in the name of a project."""


def named_pooling(setting: str, name: object) -> str:
    """The name of a pooling, checked."""
    known = [pooling.value for pooling in Pooling]
    value = name.value if isinstance(name, Pooling) else name
    if value not in known:
        raise MirrorError(f"{setting}={name} is no pooling: choose among {', '.join(known)}, or name a part.")
    return str(value)


@dataclass
class ModelConfig:
    """The pretrained model."""

    path: str = "bert-base-uncased"
    """Hub name, local folder, or ``bundled:mini``."""
    pooling: Any = "cls"
    """A name, see ``Pooling``, or a part; ``model/pooling=`` chooses one of its files."""
    max_tokens: int | None = None
    """Longest text the saved encoder reads, in tokens; null is what the model takes, 512 at most."""
    keep_layers: list[int] | None = None
    """Layers of the model that stay, from 0, such as ``[0,2,4]``: a smaller model to start from; null is all."""
    learning_rate: float = 2e-5
    """The rate that suits this model (the paper's is for base models); ``optim.lr`` follows it."""
    temperature: float = 0.04
    """The temperature that suits this model (the paper's is for base models); ``loss.temperature`` follows it, and
    ``temperature=word`` sets the one for words."""
    drophead: float = 0.2
    """The drophead rate that suits this model (authors: 0.2 for BERT, 0.05 for RoBERTa); ``aug=drophead`` uses it."""

    def __post_init__(self) -> None:
        if not self.path.strip():
            raise MirrorError("model.path is empty: give a hub name or a folder.")
        if not isinstance(self.pooling, Mapping):
            self.pooling = named_pooling("model.pooling", self.pooling)
        limit("model.max_tokens", self.max_tokens)
        kept = self.keep_layers
        if kept is not None and (not kept or kept[0] < 0 or kept != sorted({*kept})):
            raise MirrorError(f"model.keep_layers={kept}: give the layers that stay, from 0, upwards and each once.")
        check(self.learning_rate > 0, "model.learning_rate", self.learning_rate, "above 0")
        check(0 < self.temperature <= 100, "model.temperature", self.temperature, "above 0 and at most 100")
        rate("model.drophead", self.drophead)


@dataclass
class DataConfig:
    """The raw texts."""

    path: str | None = None
    """A file (txt, csv, tsv, jsonl, json, parquet; also .gz and .zst) or a hub data set; null is ``source``."""
    source: Any = None
    """A part that gives the texts where no path is given; see ``mirror.data.sources``."""
    name: str | None = None
    """Configuration of the hub data set."""
    split: str = "train"
    """Of the hub data set."""
    column: str | None = None
    """Column that holds the texts; null is the only text column, or one called text or sentence."""
    pair_column: str | None = None
    """Column with a given positive for each text, instead of the text itself."""
    pair_separator: str | None = None
    """Splits a line into a text and its given positive, as the authors' ``a||b`` files."""
    language: str = "en"
    """Of the built-in words; several as ``en+de``, for an encoder of both."""
    size: int | None = 10_000
    """Texts to train on (paper: 10k, best between 10k and 20k); null is all."""
    sample: Sample = Sample.random
    deduplicate: bool = True
    """Take each text once."""
    exclude_tests: bool = False
    """Leave out texts that stand, exactly or nearly, in a set of ``eval=``."""

    def __post_init__(self) -> None:
        if self.path is not None and not self.path.strip():
            raise MirrorError("data.path is not set: add data.path=… to the command, a file or a hub data set.")
        if self.size is not None:
            check(self.size >= 2, "data.size", self.size, "at least 2, or null for all")
        if self.language != DataConfig.language and (self.path is not None or self.source is None):
            raise MirrorError(
                f"data.language={self.language} chooses built-in words, which are not read here: add data=words."
            )
        if self.pair_column and self.pair_separator:
            raise MirrorError("data.pair_column and data.pair_separator exclude each other: set one of them.")
        if self.pair_separator == "":
            raise MirrorError("data.pair_separator is empty: give the characters between the texts, such as '||'.")


@dataclass
class BatchConfig:
    """How texts become batches."""

    size: int = 200
    """Texts in a batch over all devices; each comes twice."""
    micro: int | None = None
    """Texts that each device encodes at a time, by gradient caching: memory no longer grows with the batch, for one
    more forward pass; null is all at once."""
    max_tokens: int = 50
    """Longer training texts are cut."""
    pack: bool = True
    """Lay several texts into one row, without padding, where the model allows it."""
    pad_to_max: bool = False
    """Always pad to ``max_tokens``, as the authors' code does."""
    drop_last: bool = False
    """Leave out the last, smaller batch of an epoch."""
    workers: int = 0
    """Processes that prepare batches; 0 is the run's own."""

    def __post_init__(self) -> None:
        check(self.size >= 2, "batch.size", self.size, "at least 2, since the negatives come from the batch")
        check(self.micro is None or self.micro >= 1, "batch.micro", self.micro, "at least 1, or null")
        check(3 <= self.max_tokens <= 8192, "batch.max_tokens", self.max_tokens, "from 3 to 8192")
        check(0 <= self.workers <= MAX_WORKERS, "batch.workers", self.workers, f"from 0 to {MAX_WORKERS}")


@dataclass
class TrainerConfig:
    """Lightning's trainer."""

    accelerator: Accelerator = Accelerator.auto
    devices: int = 1
    """On each machine; more than one needs ``trainer=ddp`` or ``trainer=fsdp``."""
    nodes: int = 1
    """Machines."""
    strategy: Strategy = Strategy.auto
    precision: Precision = Precision.auto
    max_epochs: int = 1
    """0 trains nothing: the model as it is, for a pooling or what is fitted after it."""
    max_steps: int | None = None
    """Stop after so many steps, even within an epoch; pre-training takes exactly so many, whatever ``max_epochs``."""
    gradient_clip: float | None = None
    """Longest gradient, as a norm over all weights; null clips nothing."""
    progress: bool = True
    """Show a progress bar."""

    def __post_init__(self) -> None:
        check(self.devices >= 1, "trainer.devices", self.devices, "at least 1")
        check(self.nodes >= 1, "trainer.nodes", self.nodes, "at least 1")
        check(self.max_epochs >= 0, "trainer.max_epochs", self.max_epochs, "0 or more")
        if self.max_steps is not None:
            check(self.max_steps >= 1, "trainer.max_steps", self.max_steps, "at least 1, or null")
        if self.gradient_clip is not None:
            check(self.gradient_clip > 0, "trainer.gradient_clip", self.gradient_clip, "above 0, or null")
        if self.devices * self.nodes > 1 and self.strategy is Strategy.auto:
            several = f"nodes={self.nodes}" if self.nodes > 1 else f"devices={self.devices}"
            raise MirrorError(f"trainer.{several} needs a process for each device: add trainer=ddp.")


@dataclass
class LoggerConfig:
    """Trackers besides the CSV curve, which is always written."""

    trackers: list[Tracker] = field(default_factory=lambda: [Tracker.csv])
    project: str = "mirror"
    """Of W&B; MLflow's experiment."""
    mode: WandbMode = WandbMode.auto
    group: str | None = None
    """Null is the sweep that the run belongs to."""
    job_type: str = "train"
    """Of W&B."""
    name: str | None = None
    """Null is the name of the run's folder."""
    tags: list[str] = field(default_factory=list)
    """Of W&B."""
    choices: dict[str, str] = field(default_factory=dict)
    """By group, the option that the command line composed, so that runs can be grouped by it; set by itself."""

    def __post_init__(self) -> None:
        wrong = [tag for tag in self.tags if not 1 <= len(tag.strip()) <= LONGEST_TAG]
        if wrong:
            raise MirrorError(f"logger.tags holds {wrong[0]!r:.80}: a tag has from 1 to {LONGEST_TAG} characters.")
        if not self.project.strip() or set(self.project) & set(NOT_IN_PROJECTS):
            raise MirrorError(
                f"logger.project={self.project} is no name of a project: it must not be empty, nor hold any of "
                f"{' '.join(NOT_IN_PROJECTS)}."
            )


@dataclass
class EvalConfig:
    """What is measured, before and after training."""

    sets: list[str] = field(default_factory=list)
    """Names from ``mirror.evaluation.SETS``, files in ``data_dir`` such as ``bli/en-de``, and paths of .tsv files."""
    with_data_dir: list[str] = field(default_factory=list)
    """Further sets, measured where ``data_dir`` is given."""
    data_dir: str | None = field(default_factory=lambda: os.environ.get("MIRROR_DATA") or None)
    """Folder with ``sts/``, ``word/`` and others, by default that of the variable ``MIRROR_DATA``; null is the hub,
    where mirror finds the STS sets alone."""
    raw: list[Any] = field(default_factory=lambda: ["cls", "mean"])
    """Poolings of the untouched model that the tuned encoder is compared with; its own is one more."""
    validation: str = "stsb-dev"
    """The set that ``select=best`` watches."""
    curve: str | None = None
    """A set whose score is followed while training; ``select=best`` follows ``validation``."""
    every: int = 10
    """Steps between two scores of the set that is followed; it is scored after the last step too."""
    dictionary: str | None = None
    """Concepts with their names, for files of mentions; null is the one in the same folder."""
    resamples: int = 1000
    """Bootstrap resamples for intervals and tests; 0 is none."""
    kinds: list[str] = field(default_factory=list)
    """Modules with further kinds of test files; see ``mirror.evaluation.sets``."""
    mteb: list[str] = field(default_factory=list)
    """Tasks and benchmarks of MTEB by its names, for ``scripts/evaluate.py``; their data come from the hub."""
    errors: bool = False
    """Show where the encoders err, in tables and in ``errors.html``."""
    neighbours: list[str] = field(default_factory=list)
    """Words whose nearest texts in the sets are shown."""
    geometry_every: int = 10
    """Steps between two looks at the geometry of the space while training; 0 is never."""
    audit: bool = True
    """Look for the sets' texts among the training texts."""

    @property
    def measured(self) -> list[str]:
        """The sets to measure on."""
        return [*self.sets, *(self.with_data_dir if self.data_dir else [])]

    def __post_init__(self) -> None:
        check(self.every >= 1, "eval.every", self.every, "at least 1")
        check(self.geometry_every >= 0, "eval.geometry_every", self.geometry_every, "0 (never) or more")
        ok = self.resamples == 0 or 100 <= self.resamples <= 10**6
        check(ok, "eval.resamples", self.resamples, "0 (off), or from 100 to 1000000")
        files = {PurePath(name).stem: name for name in self.sets if name.endswith(".tsv")}
        if self.validation in files and self.validation not in self.sets:
            raise MirrorError(
                f"eval.validation={self.validation} is shown so, but the set is named {files[self.validation]}: set "
                f"eval.validation={files[self.validation]}."
            )
        # A pooling with weights of its own gives an untouched model nothing to compare with: it is passed over.
        self.raw = [named_pooling("eval.raw", name) for name in self.raw if not isinstance(name, Mapping)]
        if Pooling.mean_padded.value in self.raw:
            raise MirrorError("eval.raw cannot hold mean_padded: it has no meaning without fixed padding.")
