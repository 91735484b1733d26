"""The optimizer of everything that learns: encoder, head, and what the loss owns. Chosen by ``optim=``.

One of a user's own is a function or class that takes ``params``, such as any of ``torch.optim``; where it also asks for
``hidden``, it is given the matrices within the backbone's layers. ``optim.layer_decay`` and ``optim.scale_with_batch``
are no settings of it: every optimizer has them, see ``mirror.training.rates``.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from torch import nn
from torch.optim import Adafactor, AdamW, Optimizer, RMSprop
from torch.optim.lr_scheduler import LRScheduler

from mirror.adapt.layers import heights
from mirror.config import Rule
from mirror.config.parts import TARGET, build, check_part, part_name
from mirror.errors import MirrorError
from mirror.training.rates import SCALE, grade, layer_decay, own_settings

LIBRARY = tuple(f"mirror.training.optimizer.{name}" for name in ("lamb", "lion", "muon"))
"""Optimizers of an extra."""


def _two_shares(betas: Sequence[float]) -> bool:
    return len(betas) == 2 and all(0 <= beta < 1 for beta in betas)


Rate = Annotated[float, Rule(lambda rate: 0 < rate < 1, "above 0 and below 1")]
Decay = Annotated[float, Rule(lambda decay: 0 <= decay < 1, "at least 0 and below 1")]
Betas = Annotated[tuple[float, float], Rule(_two_shares, "two numbers, each at least 0 and below 1")]


def adamw(
    params: Sequence[nn.Parameter],
    lr: Rate,
    weight_decay: Decay = 0.01,
    decay_all: bool = False,
    betas: Betas = (0.9, 0.999),
) -> Optimizer:
    """AdamW (Loshchilov & Hutter 2019).

    Args:
        params: the weights.
        lr: the learning rate.
        weight_decay: of the matrices.
        decay_all: decay norms and biases too, which are the vectors among the weights, as the authors' code does.
        betas: decay of the averages of the gradient and of its square.
    """
    optimizer = AdamW(_decaying(params, weight_decay, decay_all=decay_all), lr=lr, betas=betas, fused=True)
    # A fused one would take fp16's scale off by itself, so that Lightning refuses to clip under autocast, in bf16 too.
    optimizer._step_supports_amp_scaling = False
    return optimizer


def rmsprop(
    params: Sequence[nn.Parameter],
    lr: Rate,
    decay: Decay = 0.9,
    epsilon: Annotated[float, Rule(lambda size: 0 < size < 1, "above 0 and below 1")] = 1e-7,
) -> Optimizer:
    """RMSprop, with the constants of Keras.

    Args:
        params: the weights.
        lr: the learning rate.
        decay: of the average of the gradient's square; torch's default is 0.99.
        epsilon: is added to the root of that average; torch's default is 1e-8.
    """
    return RMSprop(params, lr=lr, alpha=decay, eps=epsilon)


def adafactor(
    params: Sequence[nn.Parameter],
    lr: Rate,
    weight_decay: Decay = 0.0,
    beta2_decay: Annotated[float, Rule(lambda power: power <= 0, "0 or less")] = -0.8,
    clip: Annotated[float, Rule(lambda clip: clip >= 1, "at least 1")] = 1.0,
) -> Optimizer:
    """Adafactor (Shazeer & Stern 2018) by torch: of a matrix's squared gradients it keeps one row and one column.

    Args:
        params: the weights.
        lr: the learning rate; torch multiplies it by the root mean square of each weight, but at least by 0.001.
        weight_decay: of the matrices.
        beta2_decay: the power of the step by which the average of the squared gradients grows longer.
        clip: largest root mean square of an update.
    """
    return Adafactor(_decaying(params, weight_decay), lr=lr, beta2_decay=beta2_decay, d=clip)


def lamb(
    params: Sequence[nn.Parameter], lr: Rate, weight_decay: Decay = 0.01, betas: Betas = (0.9, 0.999)
) -> Optimizer:
    """LAMB (You et al. 2020), by the library pytorch-optimizer: for large batches.

    Args:
        params: the weights.
        lr: the learning rate; each weight's is multiplied by its norm over that of its update.
        weight_decay: of the matrices.
        betas: decay of the averages of the gradient and of its square.
    """
    found: Optimizer = _library("lamb").Lamb(_decaying(params, weight_decay), lr=lr, betas=betas)
    return found


def lion(params: Sequence[nn.Parameter], lr: Rate, weight_decay: Decay = 0.01, betas: Betas = (0.9, 0.99)) -> Optimizer:
    """Lion (Chen et al. 2023), by the library pytorch-optimizer: the sign of an average of the gradients.

    Args:
        params: the weights.
        lr: the learning rate, several times lower than AdamW's.
        weight_decay: of the matrices.
        betas: of the average for this step, and of the one that is kept.
    """
    found: Optimizer = _library("lion").Lion(_decaying(params, weight_decay), lr=lr, betas=betas)
    return found


def muon(
    params: Sequence[nn.Parameter],
    hidden: Sequence[nn.Parameter],
    lr: Rate,
    weight_decay: Decay = 0.01,
    momentum: Decay = 0.95,
    betas: Betas = (0.9, 0.999),
) -> Optimizer:
    """Muon, by the library pytorch-optimizer: updates of the layers' matrices are made orthogonal, and scaled so that
    AdamW's rate suits them (Liu et al. 2025, "Muon is scalable for LLM training"); the other weights have AdamW.

    Args:
        params: the weights.
        hidden: the matrices within the layers.
        lr: the learning rate of both.
        weight_decay: of the matrices.
        momentum: of Muon.
        betas: of AdamW.
    """
    within = {id(weights) for weights in hidden}
    rest = _decaying([weights for weights in params if id(weights) not in within], weight_decay)
    groups: list[dict[str, Any]] = [{**group, "use_muon": False, "lr": lr, "betas": betas} for group in rest]
    if hidden:
        groups.insert(0, {"params": list(hidden), "weight_decay": weight_decay, "use_muon": True})
    library = _library("muon")
    found: Optimizer = library.Muon(groups, lr=lr, momentum=momentum, use_adjusted_lr=True)
    return found


def _decaying(params: Sequence[nn.Parameter], decay: float, *, decay_all: bool = False) -> list[dict[str, Any]]:
    """Two groups, of which the first decays: the matrices, or all weights."""
    groups = [
        {"params": [p for p in params if p.ndim > 1 or decay_all], "weight_decay": decay},
        {"params": [p for p in params if p.ndim <= 1 and not decay_all], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _library(name: str) -> Any:
    try:
        import pytorch_optimizer
    except ImportError as error:
        raise MirrorError(
            f"optim={name} needs the package pytorch-optimizer ({error}): pip install 'mirror-encoders[optimizers]'."
        ) from None
    return pytorch_optimizer


def check_optimizer(optim: Mapping[str, Any], schedule: Mapping[str, Any]) -> None:
    """Check both parts before anything is read.

    Raises:
        MirrorError: one of them cannot be imported, or does not take its settings.
    """
    if optim.get(SCALE) is not None:  # a training run has scaled its rate by now
        raise MirrorError(f"optim.{SCALE} counts texts, and a batch of pre-training rows of tokens: leave it out.")
    check_part(own_settings(optim), "optim", "params", "hidden")
    layer_decay(optim)
    if str(optim.get(TARGET)) in LIBRARY:
        _library(part_name(optim))
    check_part(schedule, "schedule", "optimizer", "steps")


def optimizers(
    model: nn.Module, backbone: nn.Module, optim: Mapping[str, Any], schedule: Mapping[str, Any], steps: int
) -> Any:
    """What Lightning's ``configure_optimizers`` returns: both parts, over all weights of ``model`` that learn.

    ``backbone`` has the layers that ``optim.layer_decay`` counts.
    """
    params = [p for p in model.parameters() if p.requires_grad]
    found = heights(backbone)
    hidden = [p for name, p in backbone.named_parameters() if p.requires_grad and p.ndim > 1 and found[name]]
    optimizer = build(own_settings(optim), "optim", Optimizer, params=params, hidden=hidden)
    grade(optimizer, model, backbone, layer_decay(optim))
    scheduler = build(schedule, "schedule", LRScheduler, optimizer=optimizer, steps=steps)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
