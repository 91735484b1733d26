"""Every setting, its default and its range: the one place for each.

The YAML files under ``conf/`` hold choices among these settings; Hydra checks names and types against the
dataclasses, and ``mirror.config.compose`` makes plain objects of them, which check their ranges.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

from omegaconf import II

from mirror.errors import MirrorError


# Members are in lower case because OmegaConf matches what a user types with a member's name.
class Task(Enum):
    """What the encoder is for; ``conf/task`` says which choices follow from it."""

    sentence = "sentence"
    phrase = "phrase"
    word = "word"


class Pooling(Enum):
    """How the token vectors of a text become one vector."""

    cls = "cls"
    mean = "mean"
    """Mean over the real tokens, special ones included, as in sentence-transformers."""
    first_last = "first_last"
    """Mean over the tokens and over the first and the last layer (SimCSE's ``avg_first_last``)."""
    last_two = "last_two"
    """Mean over the tokens and over the last two layers."""
    max = "max"
    mean_padded = "mean_padded"
    """The Mirror-BERT authors' "mean": padding counts too. For reproduction only."""


class SpanUnit(Enum):
    """What the span mask counts: the paper masks characters (section 2.1)."""

    character = "character"
    token = "token"
    word = "word"


class Sample(Enum):
    """Which texts are taken where the source holds more than ``data.size``."""

    random = "random"
    first = "first"


class Builtin(Enum):
    """Texts that need no file and no download."""

    words = "words"
    """The most frequent words of ``data.language``, from wordfreq."""
    pydocs = "pydocs"
    """Sentences of the documentation of Python and of the installed scientific packages."""


class SearchIndex(Enum):
    """How the nearest vectors are found."""

    exact = "exact"
    """The query is compared with every vector."""
    hnsw = "hnsw"
    """A graph over the vectors (Malkov & Yashunin 2018), for many millions; needs faiss."""


class LossForm(Enum):
    """InfoNCE with the positive in the denominator (NT-Xent) or without it (decoupled)."""

    nt_xent = "nt_xent"
    decoupled = "decoupled"


class Schedule(Enum):
    """Course of the learning rate after the warm-up."""

    constant = "constant"
    linear = "linear"
    cosine = "cosine"
    wsd = "wsd"
    """Constant, then a fall to zero over the last fifth of the steps: a run can be made longer until the fall."""


class TokenizerKind(Enum):
    """BERT's kind of tokenizer, or RoBERTa's; the model's architecture goes with it."""

    wordpiece = "wordpiece"
    bpe = "bpe"
    """On bytes: nothing is unknown."""


class MaskUnit(Enum):
    """What masked language modelling hides as a whole."""

    token = "token"
    word = "word"
    span = "span"
    """Several words in a row (SpanBERT)."""


class Start(Enum):
    """The embeddings that pre-training starts from."""

    random = "random"
    ppmi = "ppmi"
    """Word vectors counted and factorised from the text, and sinusoids for the positions."""


class Accelerator(Enum):
    """Where training runs."""

    auto = "auto"
    cpu = "cpu"
    gpu = "gpu"


class Strategy(Enum):
    """One process, or one for each device."""

    auto = "auto"
    ddp = "ddp"
    fsdp = "fsdp"
    """The devices share the weights out among themselves (FSDP2): for models that one device cannot hold."""


class Precision(Enum):
    """``auto`` is bfloat16 where the hardware multiplies it natively, else float32."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


class Select(Enum):
    """Which weights a run keeps: the last ones, as the paper, or the best on ``eval.validation``."""

    last = "last"
    best = "best"


class Tracker(Enum):
    """Where the curves go."""

    csv = "csv"
    wandb = "wandb"
    tensorboard = "tensorboard"
    mlflow = "mlflow"


class WandbMode(Enum):
    """``auto`` is what WANDB_MODE says, else online where a key is set up and offline elsewhere. Never a prompt."""

    auto = "auto"
    online = "online"
    offline = "offline"


def _check(ok: bool, setting: str, value: object, rule: str) -> None:
    if not ok:
        raise MirrorError(f"{setting}={value} is out of range: it must be {rule}.")


def _limit(setting: str, tokens: int | None) -> None:
    _check(tokens is None or tokens >= 3, setting, tokens, "at least 3, or null")


def _rate(setting: str, value: float) -> None:
    _check(0.0 <= value < 1.0, setting, value, "at least 0 and below 1")


@dataclass
class ModelConfig:
    """The pretrained model."""

    path: str = "bert-base-uncased"
    """Hub name, local folder, or ``bundled:mini``."""
    pooling: Pooling = Pooling.cls
    max_tokens: int | None = None
    """Longest text the saved encoder reads, in tokens; null is what the model takes, 512 at most."""
    learning_rate: float = 2e-5
    """The rate that suits this model (the paper's is for base models); ``optim.lr`` follows it."""
    temperature: float = 0.04
    """The temperature that suits this model on sentences and phrases (the paper's is for base models);
    ``temperature=sentence`` and ``temperature=phrase`` use it."""
    drophead: float = 0.2
    """The drophead rate that suits this model (authors: 0.2 for BERT, 0.05 for RoBERTa); ``aug=drophead`` uses it."""

    def __post_init__(self) -> None:
        if not self.path.strip():
            raise MirrorError("model.path is empty: give a hub name or a folder.")
        _limit("model.max_tokens", self.max_tokens)
        _check(self.learning_rate > 0, "model.learning_rate", self.learning_rate, "above 0")
        _check(0 < self.temperature <= 100, "model.temperature", self.temperature, "above 0 and at most 100")
        _rate("model.drophead", self.drophead)


@dataclass
class AugConfig:
    """What makes the two views of a text differ (paper, sections 2.1 and 2.2)."""

    span_k: int = 5
    """Length of the masked span in ``unit``s, on one random side of each pair; 0 is no input augmentation."""
    unit: SpanUnit = SpanUnit.character
    min_chars: int = 30
    """Shorter texts are left whole (30 in the authors' code)."""
    dropout: float = 0.1
    drophead: float = 0.0
    """Share of attention heads dropped for each text (Zhou et al. 2020)."""
    # The quirks of the authors' code, each a switch for ablations; see conf/aug/official.yaml.
    literal_mask: bool = False
    """Insert the string [MASK] whatever the tokenizer's mask token is."""
    spaced_mask: bool = False
    """Put a space on either side of the mask."""
    first_match: bool = False
    """Mask the first occurrence of the drawn span's characters, not the drawn place."""
    spare_last: bool = False
    """Never mask the last character."""

    def __post_init__(self) -> None:
        _check(0 <= self.span_k <= 1000, "aug.span_k", self.span_k, "from 0 (off) to 1000")
        _check(self.min_chars >= 0, "aug.min_chars", self.min_chars, "0 or more")
        _rate("aug.dropout", self.dropout)
        _rate("aug.drophead", self.drophead)


@dataclass
class DataConfig:
    """The raw texts."""

    path: str | None = None
    """A file (txt, csv, tsv, jsonl, json, parquet; also .gz and .zst) or a hub data set; null is ``builtin``."""
    builtin: Builtin = Builtin.words
    """The texts where no path is given."""
    name: str | None = None
    """Configuration of the hub data set."""
    split: str = "train"
    """Of the hub data set."""
    column: str | None = None
    """Column that holds the texts; null is the only text column, or one called text or sentence."""
    pair_column: str | None = None
    """Column with a given positive for each text, in place of the text itself."""
    pair_separator: str | None = None
    """Splits a line into a text and its given positive, as the authors' ``a||b`` files."""
    language: str = "en"
    """Of the built-in words; several as ``en+de``, for an encoder of both."""
    size: int | None = 10_000
    """Texts to train on (paper: 10k, best between 10k and 20k); null is all."""
    sample: Sample = Sample.random
    deduplicate: bool = True
    exclude_tests: bool = False
    """Leave out texts that stand, exactly or nearly, in a set of ``eval=``."""

    def __post_init__(self) -> None:
        if self.path is not None and not self.path.strip():
            raise MirrorError("data.path is not set: add data.path=… to the command, a file or a hub data set.")
        if self.size is not None:
            _check(self.size >= 2, "data.size", self.size, "at least 2, or null for all")
        if self.language != DataConfig.language and (self.path is not None or self.builtin is not Builtin.words):
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

    def __post_init__(self) -> None:
        _check(self.size >= 2, "batch.size", self.size, "at least 2, since the negatives come from the batch")
        _check(self.micro is None or self.micro >= 1, "batch.micro", self.micro, "at least 1, or null")
        _check(3 <= self.max_tokens <= 8192, "batch.max_tokens", self.max_tokens, "from 3 to 8192")
        _check(self.workers >= 0, "batch.workers", self.workers, "0 or more")


@dataclass
class LossConfig:
    """InfoNCE (paper, equation 1)."""

    temperature: float = 0.04
    form: LossForm = LossForm.nt_xent
    mask_duplicates: bool = True
    """Texts that stand twice in a batch are not negatives of each other."""

    def __post_init__(self) -> None:
        _check(0 < self.temperature <= 100, "loss.temperature", self.temperature, "above 0 and at most 100")


@dataclass
class OptimConfig:
    """AdamW."""

    lr: float = II("model.learning_rate")
    weight_decay: float = 0.01
    decay_all: bool = False
    """Decay norms and biases too, as the authors' code does."""
    schedule: Schedule = Schedule.constant
    warmup_steps: int = 0

    def __post_init__(self) -> None:
        _check(0 <= self.weight_decay < 1, "optim.weight_decay", self.weight_decay, "at least 0 and below 1")
        _check(self.warmup_steps >= 0, "optim.warmup_steps", self.warmup_steps, "0 or more")


@dataclass
class TrainerConfig:
    """Lightning's trainer."""

    accelerator: Accelerator = Accelerator.auto
    devices: int = 1
    nodes: int = 1
    strategy: Strategy = Strategy.auto
    precision: Precision = Precision.auto
    max_epochs: int = 1
    max_steps: int | None = None
    """Stop after so many steps, even within an epoch; pre-training takes exactly so many, whatever ``max_epochs``."""
    gradient_clip: float | None = None
    progress: bool = True

    def __post_init__(self) -> None:
        _check(self.devices >= 1, "trainer.devices", self.devices, "at least 1")
        _check(self.nodes >= 1, "trainer.nodes", self.nodes, "at least 1")
        _check(self.max_epochs >= 1, "trainer.max_epochs", self.max_epochs, "at least 1")
        if self.max_steps is not None:
            _check(self.max_steps >= 1, "trainer.max_steps", self.max_steps, "at least 1, or null")
        if self.gradient_clip is not None:
            _check(self.gradient_clip > 0, "trainer.gradient_clip", self.gradient_clip, "above 0, or null")
        if self.devices * self.nodes > 1 and self.strategy is Strategy.auto:
            raise MirrorError(f"trainer.devices={self.devices} needs one process each: add trainer=ddp.")


@dataclass
class LoggerConfig:
    """Trackers beside the CSV curve, which is always written."""

    trackers: list[Tracker] = field(default_factory=lambda: [Tracker.csv])
    project: str = "mirror"
    mode: WandbMode = WandbMode.auto
    group: str | None = None
    """Null is the sweep that the run belongs to."""
    job_type: str = "train"
    tags: list[str] = field(default_factory=list)


@dataclass
class EvalConfig:
    """What is measured, before and after training."""

    sets: list[str] = field(default_factory=list)
    """Names from ``mirror.evaluation.SETS``, files in ``data_dir`` such as ``bli/en-de``, and paths of .tsv files."""
    with_data_dir: list[str] = field(default_factory=list)
    """Further sets, measured where ``data_dir`` is given."""
    data_dir: str | None = None
    """Folder with ``sts/``, ``word/`` and others; null is the hub, where mirror finds the STS sets alone."""
    raw: list[Pooling] = field(default_factory=lambda: [Pooling.cls, Pooling.mean])
    """Poolings of the untouched model that the tuned encoder is compared with."""
    validation: str = "stsb-dev"
    """The set that ``select=best`` watches."""
    every: int = 10
    """Steps between two looks at the validation set."""
    dictionary: str | None = None
    """Concepts with their names, for files of mentions; null is the one beside them."""
    resamples: int = 1000
    """Bootstrap resamples for intervals and tests; 0 is none."""
    mteb: list[str] = field(default_factory=list)
    """Tasks of MTEB by its names, for ``scripts/evaluate.py``; their data come from the hub."""
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
        _check(self.every >= 1, "eval.every", self.every, "at least 1")
        _check(self.geometry_every >= 0, "eval.geometry_every", self.geometry_every, "0 (never) or more")
        ok = self.resamples == 0 or 100 <= self.resamples <= 10**6
        _check(ok, "eval.resamples", self.resamples, "0 (off), or from 100 to 1000000")
        if Pooling.mean_padded in self.raw:
            raise MirrorError("eval.raw cannot hold mean_padded: it has no meaning without fixed padding.")


@dataclass
class TrainConfig:
    """One training run: ``scripts/train.py``."""

    task: Task = Task.sentence
    model: ModelConfig = field(default_factory=ModelConfig)
    aug: AugConfig = field(default_factory=AugConfig)
    data: DataConfig = field(default_factory=DataConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    select: Select = Select.last
    checkpoint_every: int = 500
    """Steps between two checkpoints."""
    resume: str | None = None
    """Run folder of an interrupted run: goes on with its settings, from its last checkpoint."""
    seed: int = 42
    seeds: int = 1
    """Train and measure with so many seeds, from ``seed`` on; the texts are sampled once."""
    # Of a sweep alone.
    retry_failed: bool = False
    """Run those again that failed."""
    max_runs: int = 1000
    """A larger sweep is taken for a mistake."""
    trial: str | None = None
    """Set by a search: ``<storage>#<study>#<number>`` of the trial that the run reports its validation scores to."""

    def __post_init__(self) -> None:
        # Not in OptimConfig, where the schema still holds the reference to the model's rate.
        _check(0 < self.optim.lr < 1, "optim.lr", self.optim.lr, "above 0 and below 1")
        _check(self.checkpoint_every >= 1, "checkpoint_every", self.checkpoint_every, "at least 1")
        _check(0 <= self.seed < 2**32, "seed", self.seed, "from 0 to 4294967295")
        _check(1 <= self.seeds <= 2**32 - self.seed, "seeds", self.seeds, "at least 1")
        if self.seeds > 1 and self.trainer.strategy is not Strategy.auto:
            raise MirrorError(f"seeds={self.seeds} needs one process: train on one device, or start a run per seed.")
        if self.seeds > 1 and self.resume:
            raise MirrorError(f"resume={self.resume} trains {self.seeds} seeds: start the missing ones with seed=….")
        if self.data.exclude_tests and not self.eval.measured:
            raise MirrorError("data.exclude_tests=true needs eval=…, the sets whose texts are left out.")
        devices = self.trainer.devices * self.trainer.nodes
        if self.batch.size < devices:
            raise MirrorError(f"batch.size={self.batch.size} is less than the {devices} devices: each needs a text.")
        if self.model.pooling is Pooling.mean_padded and not self.batch.pad_to_max:
            raise MirrorError("model.pooling=mean_padded averages padding: it needs batch.pad_to_max=true.")
        if self.select is Select.best and not self.eval.validation:
            raise MirrorError("select=best needs eval.validation, the set to watch.")
        if self.select is Select.best and self.trainer.strategy is Strategy.fsdp:
            raise MirrorError("select=best looks at the encoder in between, not with trainer=fsdp: use trainer=ddp.")
        if self.eval.mteb:
            raise MirrorError("eval.mteb is for scripts/evaluate.py: leave it out, and evaluate the encoder after.")


@dataclass
class ArchitectureConfig:
    """The model to pre-train: a new one of these sizes, or one to continue from."""

    path: str | None = None
    """Hub name or local folder of a masked language model to continue from; its sizes stand, and its tokenizer."""
    layers: int = 4
    hidden: int = 256
    heads: int = 4
    intermediate: int = 1024
    positions: int = 512
    """Longest text that the model will take, in tokens."""
    dropout: float = 0.0
    """While pre-training; the saved model has the usual 0.1, which mirror tuning sets anew."""
    start: Start = Start.ppmi
    learning_rate: float = 1e-3
    """The peak rate that suits this size; ``optim.lr`` follows it."""

    def __post_init__(self) -> None:
        for name in ("layers", "hidden", "heads", "intermediate"):
            _check(getattr(self, name) >= 1, f"model.{name}", getattr(self, name), "at least 1")
        _check(self.positions >= 8, "model.positions", self.positions, "at least 8")
        if self.hidden % self.heads:
            raise MirrorError(f"model.hidden={self.hidden} cannot be shared out among model.heads={self.heads}.")
        _check(self.learning_rate > 0, "model.learning_rate", self.learning_rate, "above 0")
        _rate("model.dropout", self.dropout)


@dataclass
class TokenizerConfig:
    """The tokenizer: learnt from the texts, or given."""

    path: str | None = None
    """Hub name or local folder of a tokenizer; null learns one, or takes that of ``model.path``."""
    kind: TokenizerKind = TokenizerKind.wordpiece
    """Of a learnt tokenizer, and of the architecture of a new model."""
    vocab_size: int = 8192
    """Of a learnt tokenizer."""
    lowercase: bool = True
    """Of a learnt tokenizer."""

    def __post_init__(self) -> None:
        _check(100 <= self.vocab_size <= 2**20, "tokenizer.vocab_size", self.vocab_size, f"from 100 to {2**20}")


@dataclass
class MaskingConfig:
    """Dynamic masking: other tokens each time a text is seen (Devlin et al. 2019, section 3.1; Liu et al. 2019)."""

    share: float = 0.15
    """Of the tokens, to be guessed."""
    unit: MaskUnit = MaskUnit.token
    masked: float = 0.8
    """Of the tokens to be guessed, shown as the mask token."""
    random: float = 0.1
    """Of the tokens to be guessed, shown as a random token; the rest is shown as it is."""

    def __post_init__(self) -> None:
        _check(0 < self.share < 1, "masking.share", self.share, "above 0 and below 1")
        _check(0 <= self.masked <= 1, "masking.masked", self.masked, "from 0 to 1")
        _check(0 <= self.random <= 1 - self.masked, "masking.random", self.random, "from 0 to 1 - masking.masked")


@dataclass
class PretrainBatchConfig:
    """How texts become batches."""

    tokens: int = 4096
    """Tokens in a batch over all devices, special ones included."""
    max_tokens: int = 64
    """Longer texts are split into pieces of at most so many tokens."""
    workers: int = 0

    def __post_init__(self) -> None:
        _check(8 <= self.max_tokens <= 8192, "batch.max_tokens", self.max_tokens, "from 8 to 8192")
        _check(self.tokens >= self.max_tokens, "batch.tokens", self.tokens, "at least batch.max_tokens")
        _check(self.workers >= 0, "batch.workers", self.workers, "0 or more")


@dataclass
class HeldOutConfig:
    """The texts that the model is measured on while it learns."""

    texts: int = 500
    every: int = 500
    """Steps between two looks at them."""

    def __post_init__(self) -> None:
        _check(self.texts >= 0, "held_out.texts", self.texts, "0 (off) or more")
        _check(self.every >= 1, "held_out.every", self.every, "at least 1")


@dataclass
class PretrainConfig:
    """Masked language modelling: ``scripts/pretrain.py``."""

    model: ArchitectureConfig = field(default_factory=ArchitectureConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    masking: MaskingConfig = field(default_factory=MaskingConfig)
    bag_of_words: float = 0.0
    """Weight of a second loss: the mean vector of a text predicts the words in it (Ma et al. 2024). 1 serves a model
    that is to be mirror-tuned; 0 is masked language modelling alone."""
    data: DataConfig = field(default_factory=lambda: DataConfig(size=None))
    batch: PretrainBatchConfig = field(default_factory=PretrainBatchConfig)
    held_out: HeldOutConfig = field(default_factory=HeldOutConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    checkpoint_every: int = 500
    """Steps between two checkpoints."""
    half: bool = False
    """Save the weights in half precision."""
    resume: str | None = None
    """Run folder of an interrupted run: goes on with its settings, from its last checkpoint."""
    seed: int = 42

    def __post_init__(self) -> None:
        _check(0 < self.optim.lr < 1, "optim.lr", self.optim.lr, "above 0 and below 1")
        _check(self.bag_of_words >= 0, "bag_of_words", self.bag_of_words, "0 (off) or more")
        _check(self.checkpoint_every >= 1, "checkpoint_every", self.checkpoint_every, "at least 1")
        _check(0 <= self.seed < 2**32, "seed", self.seed, "from 0 to 4294967295")
        if self.batch.max_tokens > self.model.positions:
            raise MirrorError(
                f"batch.max_tokens={self.batch.max_tokens} is more than model.positions={self.model.positions}."
            )
        if self.data.exclude_tests:
            raise MirrorError("data.exclude_tests means nothing to pre-training, which measures no sets: leave it out.")
        if self.trainer.strategy is Strategy.fsdp:
            raise MirrorError("trainer=fsdp is for mirror tuning: pre-train with trainer=ddp.")
        if self.data.pair_column or self.data.pair_separator:
            raise MirrorError("data.pair_column and data.pair_separator mean nothing to pre-training: leave them out.")


@dataclass
class EvaluateConfig:
    """One evaluation: ``scripts/evaluate.py``."""

    encoder: Any = "???"
    """Saved encoder, hub name or local folder; or several in brackets, ``[one,another]``."""
    pooling: Pooling | None = None
    """For models that were saved without one; null shows them by each of ``eval.raw``."""
    max_tokens: int | None = None
    eval: EvalConfig = field(default_factory=EvalConfig)

    @property
    def encoders(self) -> list[str]:
        """The encoders to measure."""
        return [str(name) for name in self.encoder] if isinstance(self.encoder, list) else [str(self.encoder)]

    def __post_init__(self) -> None:
        if not self.encoders or len(set(self.encoders)) < len(self.encoders):
            raise MirrorError("encoder=[…] is empty or names one twice: give each encoder once.")
        _limit("max_tokens", self.max_tokens)


@dataclass
class SearchConfig:
    """The texts nearest in meaning to a query: ``scripts/search.py``."""

    query: str = "???"
    input: str | None = None
    """Text file, one text a line; null searches the documentation of Python and the installed scientific packages."""
    encoder: str | None = None
    """Saved encoder, hub name or local folder; null is the newest sentence encoder under ``outputs``."""
    outputs: str = "outputs"
    top: int = 5
    """Answers to show."""
    keep: bool = True
    """Keep the texts' vectors in ``outputs/vectors``, so that the next question does not wait for them."""
    index: SearchIndex = SearchIndex.exact

    def __post_init__(self) -> None:
        if not self.query.strip():
            raise MirrorError("query is empty: write what you look for behind the command.")
        _check(self.top >= 1, "top", self.top, "at least 1")
        if self.index is not SearchIndex.exact and not self.keep:
            raise MirrorError(f"index={self.index.value} is built once and kept: set keep=true, or index=exact.")


@dataclass
class EncodeConfig:
    """Texts to vectors: ``scripts/encode.py``."""

    encoder: str = "???"
    input: str = "???"
    """Text file, one text a line."""
    output: str = "???"
    """File of vectors, .npy, float32, one row a line."""
    pooling: Pooling | None = None
    max_tokens: int | None = None

    def __post_init__(self) -> None:
        _limit("max_tokens", self.max_tokens)


@dataclass
class ReportConfig:
    """One report over many runs: ``scripts/report.py``."""

    runs: list[str] = field(default_factory=lambda: ["outputs"])
    """Folders that hold runs, at any depth."""
    output: str | None = None
    """Folder of the report; null is ``report`` in the first of ``runs``."""
    title: str | None = None
    """Null is the folders' names."""
    baseline: str | None = None
    """The row that the others are tested against, by its settings: ``loss.temperature=0.04,aug=none``."""
    watch: bool = False
    """Write the report again and again while a sweep runs; Ctrl-C ends it."""
    every: int = 10
    """Seconds between two reports of ``watch``."""
    wandb: str | None = None
    """Also make a workspace in W&B that compares the runs: the user or team in whose account they lie."""

    def __post_init__(self) -> None:
        if not self.runs:
            raise MirrorError("runs is empty: write the folder of a sweep behind the command.")
        _check(self.every >= 1, "every", self.every, "at least 1")
        if self.wandb and self.watch:
            raise MirrorError(f"wandb={self.wandb} makes one workspace: leave out --watch, W&B shows new runs itself.")


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Plain settings by their full names, as on the command line."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def plain(config: Any) -> dict[str, Any]:
    """A settings dataclass as a plain dictionary, for JSON files, loggers and checkpoints."""

    def value(item: Any) -> Any:
        if isinstance(item, Enum):
            return item.value
        if isinstance(item, dict):
            return {key: value(entry) for key, entry in item.items()}
        if isinstance(item, list):
            return [value(entry) for entry in item]
        if isinstance(item, float) and not math.isfinite(item):
            return str(item)
        return item

    result = value(asdict(config))
    assert isinstance(result, dict)
    return result
