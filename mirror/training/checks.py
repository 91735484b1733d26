"""What a loaded model cannot do, told before it is measured and trained."""

from collections.abc import Sequence
from itertools import islice

from mirror.config import Strategy, TrainConfig
from mirror.config.parts import part_name
from mirror.data.rows import Pair
from mirror.encoder.encoder import MirrorEncoder
from mirror.errors import MirrorError
from mirror.training.parts import build_adaptation, build_module

LOOKED_AT = 1000
"""Texts that tell whether they are pairs."""


def check_model(config: TrainConfig, encoder: MirrorEncoder, texts: int) -> None:
    """Check the settings of a run against its model; ``texts`` is the number of training texts.

    Raises:
        MirrorError: the model cannot follow one.
    """
    if config.batch.max_tokens > encoder.max_tokens:
        raise MirrorError(
            f"batch.max_tokens={config.batch.max_tokens} is more than the {encoder.max_tokens} that {encoder.name} "
            "takes: lower it."
        )
    if config.trainer.strategy is Strategy.fsdp and encoder.pooling.layered:
        raise MirrorError(
            f"trainer=fsdp hides the layers that model.pooling={encoder.pooling.name} reads: use trainer=ddp, or "
            "model.pooling=mean."
        )
    learnt = any(weights.requires_grad for weights in encoder.pooling.parameters())
    if config.trainer.max_epochs == 0 and learnt and not isinstance(config.model.pooling, str):
        raise MirrorError(
            f"trainer.max_epochs=0 trains nothing, and model.pooling={encoder.pooling.name} has weights to learn: "
            "train, or choose another pooling."
        )
    size = (config.post or {}).get("dimensions")
    most = min(encoder.dimension, texts - 1)
    if isinstance(size, int) and size > most:
        raise MirrorError(
            f"post.dimensions={size}: {texts} texts with vectors of {encoder.dimension} span {most} at most; lower it, "
            "or give more texts."
        )


def check_adaptation(config: TrainConfig, encoder: MirrorEncoder) -> None:
    """The same for the way in which its weights move."""
    adaptation = build_adaptation(config, epoch_steps=1)
    if config.trainer.strategy is Strategy.fsdp and adaptation.adds_weights:
        raise MirrorError(f"trainer=fsdp shares no added weights out: use trainer=ddp with {part_name(config.adapt)}.")
    adaptation.check(encoder)


def check_loss(config: TrainConfig, encoder: MirrorEncoder, pairs: Sequence[Pair]) -> None:
    """The same for what the loss or the head does not take, which are built for it."""
    if config.trainer.max_epochs:
        in_all = len(pairs) * config.trainer.max_epochs
        in_all = min(in_all, (config.trainer.max_steps or in_all) * min(config.batch.size, len(pairs)))
        loss = build_module(config, encoder).loss
        if config.trainer.strategy is Strategy.fsdp and loss.layered:
            raise MirrorError("trainer=fsdp hides the layers that this loss looks at: use trainer=ddp.")
        if config.batch.micro and loss.whole:
            raise MirrorError(
                f"batch.micro={config.batch.micro}: {part_name(config.loss)} encodes a batch as a whole; leave it out."
            )
        if loss.paired and all(text == other for text, other in islice(pairs, LOOKED_AT)):
            raise MirrorError(
                f"{loss.paired} needs pairs of texts, and these are single ones: set data.pair_column or "
                "data.pair_separator, or leave it out."
            )
        loss.check_run(in_all)
