"""Settings of a training run, ``scripts/train.py``: names, types, defaults and ranges.

The sections ``aug``, ``loss``, ``auxiliary``, ``head``, ``adapt``, ``optim``, ``post``, ``schedule`` and ``perturb``
are parts: see ``mirror.config.parts``.
"""

from dataclasses import dataclass, field
from typing import Any

from mirror.config.checks import check, rate
from mirror.config.choices import Pooling, Select, Strategy, Task
from mirror.config.sections import (
    RATES,
    BatchConfig,
    DataConfig,
    EvalConfig,
    LoggerConfig,
    ModelConfig,
    TrainerConfig,
)
from mirror.errors import MirrorError


@dataclass
class TrainConfig:
    """One training run: ``scripts/train.py``."""

    task: Task = Task.sentence
    model: ModelConfig = field(default_factory=ModelConfig)
    aug: Any = field(default_factory=dict)
    """The view maker, see ``mirror.data.views``, and the rates ``dropout`` and ``drophead`` (paper, section 2.2)."""
    perturb: Any = None
    """A further perturbation of the network; see ``mirror.encoder.perturb``."""
    loss: Any = field(default_factory=dict)
    """See ``mirror.losses.infonce``."""
    teacher: Any = None
    """Encoder that ``loss=distil`` or ``loss=ranking`` learns from, hub name or local folder; or several in brackets,
    ``[one,another]``."""
    auxiliary: Any = None
    """A second loss beside it; see ``mirror.losses.auxiliary``."""
    head: Any = None
    """A projection head that the loss sees the vectors through; see ``mirror.losses.heads``."""
    post: Any = None
    """What is fitted on the training texts' vectors after the training; see ``mirror.encoder.post``."""
    adapt: Any = None
    """Which weights learn; see ``mirror.adapt``."""
    optim: Any = field(default_factory=dict)
    """See ``mirror.training.optimizer``."""
    schedule: Any = field(default_factory=dict)
    """The course of the learning rate; see ``mirror.training.schedule``."""
    data: DataConfig = field(default_factory=DataConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    select: Select = Select.last
    checkpoint_every: int = 500
    """Steps between two checkpoints."""
    resume: str | None = None
    """Run folder of an interrupted run: goes on with its settings, from its last checkpoint."""
    seed: int = 42
    """Everything drawn at random follows from it."""
    seeds: int = 1
    """Train and measure with so many seeds, from ``seed`` on; the texts are sampled once."""
    # Only for sweeps.
    retry_failed: bool = False
    """Run those again that failed."""
    retry_changed: bool = False
    """Run those again that finished with other code of one's own parts than there is now."""
    max_runs: int = 1000
    """A larger sweep is refused as a likely mistake."""
    trial: str | None = None
    """Set by a search: ``<storage>#<study>#<number>`` of the trial that the run reports its validation scores to."""

    @property
    def validated(self) -> str | None:
        """The set that is scored while training."""
        return self.eval.validation if self.select is Select.best else self.eval.curve

    @property
    def views(self) -> dict[str, Any]:
        """The part of ``aug`` that is the view maker."""
        return {name: value for name, value in self.aug.items() if name not in RATES}

    @property
    def perturbation_rates(self) -> dict[str, Any]:
        """The other part: dropout as in the paper where a file says nothing."""
        return {name: self.aug.get(name, default) for name, default in RATES.items()}

    def __post_init__(self) -> None:
        for name, value in self.perturbation_rates.items():
            if not isinstance(value, int | float):
                raise MirrorError(f"aug.{name}={value} is no number: give a rate, at least 0 and below 1.")
            rate(f"aug.{name}", value)
        check(self.checkpoint_every >= 1, "checkpoint_every", self.checkpoint_every, "at least 1")
        check(0 <= self.seed < 2**32, "seed", self.seed, "from 0 to 4294967295")
        check(self.seeds >= 1, "seeds", self.seeds, "at least 1")
        if self.seed + self.seeds > 2**32:
            raise MirrorError(f"seeds={self.seeds} from seed={self.seed} on goes beyond 4294967295: lower seed.")
        if self.seeds > 1 and self.trainer.strategy is not Strategy.auto:
            raise MirrorError(f"seeds={self.seeds} needs one process: train on one device, or start a run per seed.")
        if self.seeds > 1 and self.resume:
            raise MirrorError(f"resume={self.resume} trains {self.seeds} seeds: start the missing ones with seed=….")
        if self.teacher and "teacher" not in self.loss:
            raise MirrorError(f"teacher={self.teacher} is not read by this loss: add loss=distil or loss=ranking.")
        if self.data.exclude_tests and not self.eval.measured:
            raise MirrorError("data.exclude_tests=true needs eval=…, the sets whose texts are left out.")
        devices = self.trainer.devices * self.trainer.nodes
        if self.batch.size < devices:
            raise MirrorError(f"batch.size={self.batch.size} is less than the {devices} devices: each needs a text.")
        if self.model.pooling == Pooling.mean_padded.value and not self.batch.pad_to_max:
            raise MirrorError("model.pooling=mean_padded averages padding: it needs batch.pad_to_max=true.")
        if self.trainer.max_epochs == 0 and (self.validated or self.trainer.max_steps or self.resume):
            raise MirrorError(
                "trainer.max_epochs=0 trains nothing: leave out select=best, eval.curve, trainer.max_steps and "
                "resume=, or set at least one epoch."
            )
        if self.select is Select.best and not self.eval.validation:
            raise MirrorError("select=best needs eval.validation, the set to watch.")
        if self.select is Select.best and self.eval.curve not in (None, self.eval.validation):
            raise MirrorError(
                f"select=best follows eval.validation={self.eval.validation}: leave out eval.curve={self.eval.curve}, "
                "or choose the same set."
            )
        if self.validated and self.trainer.strategy is Strategy.fsdp:
            raise MirrorError(
                "select=best and eval.curve score the encoder in between, not with trainer=fsdp: use trainer=ddp."
            )
        if self.eval.mteb:
            raise MirrorError("eval.mteb is for scripts/evaluate.py: leave it out, and evaluate the encoder after.")
