"""The parts that the settings of a run name: checked before anything is read, built when what they are given is
there."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch import nn

from mirror.adapt import Adaptation
from mirror.adapt.base import Full
from mirror.config import TrainConfig
from mirror.config.parts import build, check_part, part_name
from mirror.data.texts import handed
from mirror.data.views import Views
from mirror.encoder.encoder import MirrorEncoder
from mirror.encoder.perturb import DropHead, Dropout, Perturbation
from mirror.encoder.stages import Stage
from mirror.losses.auxiliary import Beside
from mirror.losses.base import Loss
from mirror.losses.embedder import Embedder
from mirror.training.module import MirrorModule
from mirror.training.optimizer import check_optimizer
from mirror.training.rates import scaled


def check_parts(config: TrainConfig) -> None:
    """Check every part against its signature before anything is read.

    Raises:
        MirrorError: a part cannot be imported, or does not take its settings.
    """
    check_part(config.views, "aug", "layout", "max_tokens", "template")
    check_part(config.loss, "loss", "embedder")
    check_optimizer(scaled(config.optim, config.batch.size), config.schedule)
    if config.adapt:
        check_part(config.adapt, "adapt", "seed", "epoch_steps")
    if config.auxiliary:
        check_part(config.auxiliary, "auxiliary", "embedder")
    if config.head:
        check_part(config.head, "head", "dimension")
    if config.post:
        check_part(config.post, "post", "vectors")
    if config.perturb:
        check_part(config.perturb, "perturb")
    if isinstance(config.model.pooling, Mapping):
        check_part(config.model.pooling, "model.pooling", "hidden", "layers", "mask_id")
    if config.data.source:
        check_part(config.data.source, "data.source", *handed(config.data))


def perturbations(config: TrainConfig, views: Views) -> list[Perturbation]:
    """Dropout and drophead by their rates in ``aug``, what the view maker brings, and the part ``perturb``."""
    rates = config.perturbation_rates
    found: list[Perturbation] = [Dropout(rates["dropout"])]
    if rates["drophead"]:
        found.append(DropHead(rates["drophead"]))
    found += views.perturbations()
    if config.perturb:
        part: Perturbation = build(config.perturb, "perturb", Perturbation)  # type: ignore[type-abstract]
        found.append(part)
    return found


def build_adaptation(config: TrainConfig, epoch_steps: int) -> Adaptation:
    """How the weights move that the settings describe, in epochs of so many steps."""
    if not config.adapt:  # a run of an earlier version, or one without a command line
        return Full()
    return build(config.adapt, "adapt", Adaptation, seed=config.seed, epoch_steps=epoch_steps)


def build_module(config: TrainConfig, encoder: MirrorEncoder, adaptation: Adaptation | None = None) -> MirrorModule:
    """The training step that the settings describe; new weights are drawn from torch's random state.

    Raises:
        MirrorError: a part does not take its settings.
    """
    head = build(config.head, "head", nn.Module, dimension=encoder.dimension) if config.head else None
    embedder = Embedder(encoder, head)
    loss: Loss = build(config.loss, "loss", Loss, embedder=embedder)
    if config.auxiliary:
        loss = Beside(loss, build(config.auxiliary, "auxiliary", Loss, embedder=embedder))
    optim = scaled(config.optim, config.batch.size)
    return MirrorModule(encoder, loss, head, optim, config.schedule, config.seed, adaptation)


def build_post(config: TrainConfig, vectors: NDArray[np.float32]) -> Stage:
    """The stage that ``post`` fits on the training texts' vectors, (N, D)."""
    return build(config.post, "post", Stage, vectors=vectors)


def pooling_name(config: TrainConfig) -> str:
    """What the tuned encoder's pooling is called in tables."""
    choice = config.model.pooling
    return part_name(choice) if isinstance(choice, Mapping) else choice
