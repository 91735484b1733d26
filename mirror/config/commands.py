"""Settings of the commands that use encoders and runs: evaluate, encode, search, export, soup, report."""

from dataclasses import dataclass, field
from typing import Any

from mirror.config.checks import check, limit
from mirror.config.choices import Accelerator, Format, Pooling, Precision, Weights
from mirror.config.sections import EvalConfig
from mirror.errors import MirrorError

FIGURES = ("pdf", "svg", "png")
"""Formats of the report's figures for a paper."""
WEIGHTS = {
    Format.torch: (Weights.fp32, Weights.bf16, Weights.fp16),
    Format.onnx: (Weights.fp32, Weights.int8),
    Format.openvino: (Weights.fp32, Weights.fp16, Weights.int8),
    Format.static: (Weights.fp32, Weights.fp16, Weights.int8),
}
"""How the weights of each format can be saved."""


def _no_fp16(precision: Precision) -> None:
    check(precision is not Precision.fp16, "precision", precision.value, "auto, fp32 or bf16")


@dataclass
class EvaluateConfig:
    """One evaluation: ``scripts/evaluate.py``."""

    encoder: Any = "???"
    """Saved encoder, hub name or local folder; or several in brackets, ``[one,another]``."""
    pooling: Pooling | None = None
    """For models saved without a pooling; null measures them with each of ``eval.raw``."""
    max_tokens: int | None = None
    """Longer texts are cut; null is the encoder's own limit."""
    accelerator: Accelerator = Accelerator.auto
    precision: Precision = Precision.auto
    """``bf16`` where the hardware multiplies it natively is faster and rounds; ``auto`` is fp32."""
    mteb_results: str | None = "outputs/mteb"
    """Folder where MTEB keeps its results: what an encoder has there is not run again; null keeps none."""
    eval: EvalConfig = field(default_factory=EvalConfig)

    @property
    def encoders(self) -> list[str]:
        """The encoders to measure."""
        return [str(name) for name in self.encoder] if isinstance(self.encoder, list) else [str(self.encoder)]

    def __post_init__(self) -> None:
        _no_fp16(self.precision)
        if not self.encoders or len(set(self.encoders)) < len(self.encoders):
            raise MirrorError("encoder=[…] is empty or names one twice: give each encoder once.")
        limit("max_tokens", self.max_tokens)


@dataclass
class SearchConfig:
    """The texts nearest in meaning to a query: ``scripts/search.py``."""

    query: str = "???"
    """What to look for, in words."""
    input: str | None = None
    """Text file, one text a line; null searches the documentation of Python and the installed scientific packages."""
    encoder: str | None = None
    """Saved encoder, hub name or local folder; null is the newest sentence encoder under ``outputs``."""
    accelerator: Accelerator = Accelerator.auto
    precision: Precision = Precision.auto
    """``bf16`` where the hardware multiplies it natively is faster and rounds; ``auto`` is fp32."""
    outputs: str = "outputs"
    """Folder of the runs."""
    top: int = 5
    """Answers to show."""
    keep: bool = True
    """Keep the texts' vectors in ``outputs/vectors``, so that the next question does not wait for them."""

    def __post_init__(self) -> None:
        _no_fp16(self.precision)
        if not self.query.strip():
            raise MirrorError("query is empty: write what you look for behind the command.")
        check(self.top >= 1, "top", self.top, "at least 1")


@dataclass
class EncodeConfig:
    """Texts to vectors: ``scripts/encode.py``."""

    encoder: str = "???"
    """Saved encoder, hub name or local folder."""
    input: str = "???"
    """Text file, one text a line."""
    output: str = "???"
    """File of vectors, .npy, float32, one row a line."""
    pooling: Pooling | None = None
    """For a model saved without one; null is the encoder's own."""
    max_tokens: int | None = None
    """Longer texts are cut; null is the encoder's own limit."""
    accelerator: Accelerator = Accelerator.auto
    precision: Precision = Precision.auto
    """``bf16`` where the hardware multiplies it natively is faster and rounds; ``auto`` is fp32."""

    def __post_init__(self) -> None:
        _no_fp16(self.precision)
        limit("max_tokens", self.max_tokens)


@dataclass
class ExportConfig:
    """A smaller encoder: ``scripts/export.py``."""

    encoder: str = "???"
    """Saved encoder."""
    format: Format = Format.torch
    weights: Weights = Weights.fp32
    """How the weights are saved: ``fp16`` and ``bf16`` are half as large and rounded, ``int8`` a quarter."""
    dimensions: int | None = None
    """Length of the vectors, by PCA on the texts of ``input``, or on the tokens' vectors for ``format=static``; null
    leaves them as they are."""
    input: str | None = None
    """Text file, one text a line."""
    push: str | None = None
    """Repository on the Hugging Face hub, ``your-name/your-encoder``, that the encoder is committed to; with nothing
    else set, as it is. Needs a token (``hf auth login``)."""
    private: bool = True
    """Whether a repository that ``push`` makes is private."""
    accelerator: Accelerator = Accelerator.auto
    eval: EvalConfig = field(default_factory=EvalConfig)

    @property
    def smaller(self) -> bool:
        """Whether anything changes."""
        return self.format is not Format.torch or self.weights is not Weights.fp32 or self.dimensions is not None

    def __post_init__(self) -> None:
        if self.weights not in WEIGHTS[self.format]:
            there = ", ".join(weights.value for weights in WEIGHTS[self.format])
            raise MirrorError(f"format={self.format.value} has no weights={self.weights.value}: choose {there}.")
        static = self.format is Format.static
        if not self.smaller and self.push is None:
            raise MirrorError("Nothing gets smaller: add weights=bf16, weights=fp16, dimensions=…, format=… or push=….")
        check(self.dimensions is None or self.dimensions >= 1, "dimensions", self.dimensions, "at least 1, or null")
        if self.dimensions is not None and self.input is None and not static:
            raise MirrorError(f"dimensions={self.dimensions} is fitted on texts: add input=…, one text a line.")
        if self.input is not None and (static or self.dimensions is None):
            reason = "format=static needs no texts" if static else "only dimensions=… needs texts"
            raise MirrorError(f"input={self.input} is not read, {reason}: leave it out.")


@dataclass
class SoupConfig:
    """One encoder of several: ``scripts/soup.py``."""

    parts: list[str] = field(default_factory=list)
    """Saved encoders, or folders of runs."""
    greedy: bool = False
    """Leave out the parts that make the soup worse on ``eval.validation``, else all are in."""
    untouched: str | None = None
    """The model that they were tuned from: hub name or local folder; null mixes no more in."""
    weights: list[float] = field(default_factory=lambda: [0.25, 0.5, 0.75])
    """Shares of the soup in its mixtures with the untouched model; the best one is saved, or the soup itself."""
    accelerator: Accelerator = Accelerator.auto
    eval: EvalConfig = field(default_factory=EvalConfig)

    def __post_init__(self) -> None:
        if not self.parts or len(set(self.parts)) < len(self.parts):
            raise MirrorError("parts is empty or names one twice: write each encoder once behind the command.")
        if len(self.parts) == 1 and self.untouched is None:
            raise MirrorError("parts has one encoder: write another behind the command, or add untouched=MODEL.")
        for share in self.weights:
            check(0 <= share < 1, "weights", share, "at least 0 and below 1 each")


@dataclass
class ReportConfig:
    """One report over many runs: ``scripts/report.py``."""

    runs: list[str] = field(default_factory=lambda: ["outputs"])
    """Folders that hold runs, at any depth."""
    output: str | None = None
    """Folder of the report; null is ``report`` in the first of ``runs``."""
    title: str | None = None
    """Title of the report; null is the names of the folders."""
    baseline: str | None = None
    """The row that the others are tested against, by its settings: ``loss.temperature=0.04,aug=none``."""
    published: bool = False
    """Published figures of other backbones under the tables of the page."""
    figures: list[str] = field(default_factory=list)
    """Files of the figures for a paper, in ``figures/`` of the report: ``[pdf,svg,png]``; extra ``plots``."""
    labels: list[str] = field(default_factory=list)
    """What settings and sets are called in these and in LaTeX: ``"labels=['optim.lr=η','my-set=My set']"``."""
    watch: bool = False
    """Write the report again and again while a sweep runs; Ctrl-C ends it."""
    every: int = 10
    """Seconds between two reports of ``watch``."""
    wandb: str | None = None
    """Also make a workspace in W&B that compares the runs: the user or team whose account holds them."""

    def __post_init__(self) -> None:
        if not self.runs:
            raise MirrorError("runs is empty: write the folder of a sweep behind the command.")
        check(self.every >= 1, "every", self.every, "at least 1")
        for name in self.figures:
            if name not in FIGURES:
                raise MirrorError(f"figures=[{name}] is no format of figures: choose among {', '.join(FIGURES)}.")
        for text in self.labels:
            if "=" not in text:
                raise MirrorError(f"labels=[{text}] names nothing: write NAME=LABEL, as in \"labels=['optim.lr=η']\".")
        if self.wandb and self.watch:
            raise MirrorError(f"wandb={self.wandb} makes one workspace: leave out --watch, W&B shows new runs itself.")
