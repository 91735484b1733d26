"""Settings of a pre-training run, ``scripts/pretrain.py``."""

from dataclasses import dataclass, field, replace
from typing import Any

from mirror.config.checks import check, rate
from mirror.config.choices import MaskUnit, Start, Strategy, TokenizerKind
from mirror.config.sections import MAX_WORKERS, DataConfig, LoggerConfig, TrainerConfig
from mirror.errors import MirrorError

MOST_LAYERS = 1000
"""Of a model, new or loaded."""


@dataclass
class ArchitectureConfig:
    """The model to pre-train: a new one of these sizes, or one to continue from."""

    path: str | None = None
    """Hub name or local folder of a masked language model to continue from, with its sizes and its tokenizer."""
    grow_from: str | None = None
    """Folder or hub name of a smaller BERT or RoBERTa: the new model of the sizes below begins with its weights, its
    layers copied on top of each other and its units side by side, and has its tokenizer."""
    layers: int = 4
    """Layers of the transformer."""
    hidden: int = 256
    """Length of a token's vector."""
    heads: int = 4
    """Attention heads of a layer."""
    intermediate: int = 1024
    """Units between the two matrices of a layer's feed-forward part."""
    positions: int = 512
    """Longest text that the model will take, in tokens."""
    dropout: float = 0.0
    """Used in pre-training; the saved model has the usual 0.1, and mirror tuning sets its own."""
    start: Start = Start.ppmi
    learning_rate: float = 1e-3
    """The peak rate that suits this size; ``optim.lr`` follows it."""

    def __post_init__(self) -> None:
        for name, most in {"layers": MOST_LAYERS, "hidden": 2**16, "heads": 2**10, "intermediate": 2**18}.items():
            check(1 <= getattr(self, name) <= most, f"model.{name}", getattr(self, name), f"from 1 to {most}")
        check(8 <= self.positions <= 2**20, "model.positions", self.positions, f"from 8 to {2**20}")
        if self.hidden % self.heads:
            raise MirrorError(f"model.hidden={self.hidden} cannot be divided among model.heads={self.heads}.")
        if self.path and self.grow_from:
            raise MirrorError(
                f"model.path={self.path} is continued as it is, model.grow_from={self.grow_from} begins a larger "
                "model: leave one of them out."
            )
        check(self.learning_rate > 0, "model.learning_rate", self.learning_rate, "above 0")
        rate("model.dropout", self.dropout)

    @property
    def begins_with(self) -> tuple[str, str] | None:
        """The setting that names a model to begin with, and the model."""
        found = {"model.path": self.path, "model.grow_from": self.grow_from}
        return next(((setting, name) for setting, name in found.items() if name), None)

    def weights(self, vocabulary: int) -> int:
        """About so many numbers make a new model: its matrices, with the embeddings of the vocabulary and positions."""
        layer = 4 * self.hidden**2 + 2 * self.hidden * self.intermediate
        return self.layers * layer + (vocabulary + self.positions) * self.hidden


@dataclass
class TokenizerConfig:
    """The tokenizer: learnt from the texts, or given."""

    path: str | None = None
    """Hub name or local folder of a tokenizer; null learns one, or takes that of ``model.path``."""
    kind: TokenizerKind = TokenizerKind.wordpiece
    """Kind of a learnt tokenizer, and architecture of a new model."""
    vocab_size: int = 8192
    """Of a learnt tokenizer."""
    lowercase: bool = True
    """Of a learnt tokenizer."""

    def __post_init__(self) -> None:
        check(100 <= self.vocab_size <= 2**20, "tokenizer.vocab_size", self.vocab_size, f"from 100 to {2**20}")


@dataclass
class MaskingConfig:
    """Dynamic masking: other tokens each time a text is seen (Devlin et al. 2019, section 3.1; Liu et al. 2019)."""

    share: float = 0.15
    """Share of the tokens that the model must predict."""
    unit: MaskUnit = MaskUnit.token
    masked: float = 0.8
    """Share of these tokens that are shown as the mask token."""
    random: float = 0.1
    """Share of these tokens that are shown as a random token; the rest is shown unchanged."""
    final_share: float | None = None
    """The share at the last step, to which ``share`` moves evenly: 0.15 with a ``share`` of 0.3 (Ankner et al. 2024).
    Null keeps ``share``."""

    def __post_init__(self) -> None:
        check(0 < self.share < 1, "masking.share", self.share, "above 0 and below 1")
        ok = self.final_share is None or 0 < self.final_share < 1
        check(ok, "masking.final_share", self.final_share, "above 0 and below 1, or null")
        check(0 <= self.masked <= 1, "masking.masked", self.masked, "from 0 to 1")
        check(0 <= self.random <= 1 - self.masked, "masking.random", self.random, "from 0 to 1 - masking.masked")

    def at(self, done: float) -> "MaskingConfig":
        """The masking where a share ``done`` of the run, from 0 to 1, is over."""
        if self.final_share is None:
            return self
        return replace(self, share=self.share + (self.final_share - self.share) * done)


@dataclass
class PretrainBatchConfig:
    """How texts become batches."""

    tokens: int = 4096
    """Tokens in a batch over all devices, special ones included."""
    max_tokens: int = 64
    """Longer texts are split into pieces of at most so many tokens."""
    workers: int = 0
    """Processes that prepare batches; 0 is the run's own."""

    def __post_init__(self) -> None:
        check(8 <= self.max_tokens <= 8192, "batch.max_tokens", self.max_tokens, "from 8 to 8192")
        check(self.tokens >= self.max_tokens, "batch.tokens", self.tokens, "at least batch.max_tokens")
        check(0 <= self.workers <= MAX_WORKERS, "batch.workers", self.workers, f"from 0 to {MAX_WORKERS}")


@dataclass
class BagConfig:
    """What the bags of words hold, beside a text's own words; see ``bag_of_words``."""

    neighbours: bool = False
    """The words of the pieces before and after it in the same text, too, as skip-thoughts look beyond a sentence (Kiros
    et al. 2015; FastSent, Hill et al. 2016)."""
    sample: float | None = None
    """Words that make up a larger share of the text than this are left out at random, each with the probability
    1 - sqrt(sample / share) (word2vec, Mikolov et al. 2013, section 2.3); 1e-3 suits. Null keeps all."""

    def __post_init__(self) -> None:
        ok = self.sample is None or 0 < self.sample <= 1
        check(ok, "bags.sample", self.sample, "above 0 and at most 1, or null")


@dataclass
class HeldOutConfig:
    """Held-out texts on which the model is measured during training."""

    texts: int = 500
    """So many texts of the corpus are not trained on; 0 measures nothing."""
    every: int = 500
    """Steps between two measurements."""

    def __post_init__(self) -> None:
        check(self.texts >= 0, "held_out.texts", self.texts, "0 (off) or more")
        check(self.every >= 1, "held_out.every", self.every, "at least 1")


@dataclass
class PretrainConfig:
    """Masked language modelling: ``scripts/pretrain.py``."""

    objective: Any = field(default_factory=dict)
    """See ``mirror.pretraining.objectives``."""
    model: ArchitectureConfig = field(default_factory=ArchitectureConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    masking: MaskingConfig = field(default_factory=MaskingConfig)
    bag_of_words: float = 0.0
    """Weight of a further loss: the mean vector of a text predicts the words in it (Ma et al. 2024). 1 suits a model
    that will be mirror-tuned; 0 is masked language modelling alone."""
    bags: BagConfig = field(default_factory=BagConfig)
    data: DataConfig = field(default_factory=lambda: DataConfig(size=None))
    batch: PretrainBatchConfig = field(default_factory=PretrainBatchConfig)
    held_out: HeldOutConfig = field(default_factory=HeldOutConfig)
    optim: Any = field(default_factory=dict)
    """See ``mirror.training.optimizer``."""
    schedule: Any = field(default_factory=dict)
    """See ``mirror.training.schedule``."""
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    average_last: float = 0
    """The saved weights are the mean over so many steps at the end of the run; below 1 it is a share of the steps, 0
    saves the last weights. It suits a rate that does not fall to zero, as ``schedule=constant``."""
    checkpoint_every: int = 500
    """Steps between two checkpoints."""
    half: bool = False
    """Save the weights in half precision."""
    resume: str | None = None
    """Run folder of an interrupted run: goes on with its settings, from its last checkpoint."""
    seed: int = 42
    """Everything drawn at random follows from it."""

    def __post_init__(self) -> None:
        self.objective = self.objective or {"_target_": "mirror.pretraining.objectives.mlm.MaskedLanguageModelling"}
        check(self.trainer.max_epochs >= 1, "trainer.max_epochs", self.trainer.max_epochs, "at least 1")
        check(self.bag_of_words >= 0, "bag_of_words", self.bag_of_words, "0 (off) or more")
        if not self.bag_of_words and self.bags != BagConfig():
            raise MirrorError("bags says what the bags of words hold, and there are none: set bag_of_words=1.")
        ok = self.average_last >= 0 and (self.average_last < 1 or self.average_last == int(self.average_last))
        check(ok, "average_last", self.average_last, "a number of steps, or a share of them below 1")
        check(self.checkpoint_every >= 1, "checkpoint_every", self.checkpoint_every, "at least 1")
        check(0 <= self.seed < 2**32, "seed", self.seed, "from 0 to 4294967295")
        if self.batch.max_tokens > self.model.positions:
            raise MirrorError(
                f"batch.max_tokens={self.batch.max_tokens} is more than model.positions={self.model.positions}."
            )
        begins_with = self.model.begins_with
        if begins_with and self.tokenizer.kind is not TokenizerConfig.kind:
            raise MirrorError(
                f"tokenizer.kind={self.tokenizer.kind.value} is for a new model, and {'='.join(begins_with)} has its "
                "own tokenizer: leave one of them out."
            )
        if self.data.exclude_tests:
            raise MirrorError("data.exclude_tests means nothing to pre-training, which measures no sets: leave it out.")
        if self.trainer.strategy is Strategy.fsdp:
            raise MirrorError("trainer=fsdp is for mirror tuning: pre-train with trainer=ddp.")
