"""The optimizer of everything that learns: encoder, head, and what the loss owns. Chosen by ``optim=``.

One of a user's own is a function or class that takes ``params``, such as any of ``torch.optim``.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from torch import nn
from torch.optim import AdamW, Optimizer, RMSprop
from torch.optim.lr_scheduler import LRScheduler

from mirror.config import Rule
from mirror.config.parts import build, check_part


def _two_shares(betas: Sequence[float]) -> bool:
    return len(betas) == 2 and all(0 <= beta < 1 for beta in betas)


Betas = Annotated[tuple[float, float], Rule(_two_shares, "two numbers, each at least 0 and below 1")]


def adamw(
    params: Sequence[nn.Parameter],
    lr: Annotated[float, Rule(lambda rate: 0 < rate < 1, "above 0 and below 1")],
    weight_decay: Annotated[float, Rule(lambda decay: 0 <= decay < 1, "at least 0 and below 1")] = 0.01,
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
    groups = [
        {"params": [p for p in params if p.ndim > 1 or decay_all], "weight_decay": weight_decay},
        {"params": [p for p in params if p.ndim <= 1 and not decay_all], "weight_decay": 0.0},
    ]
    optimizer = AdamW([group for group in groups if group["params"]], lr=lr, betas=betas, fused=True)
    # A fused one would take fp16's scale off by itself, so that Lightning refuses to clip under autocast, in bf16 too.
    optimizer._step_supports_amp_scaling = False
    return optimizer


def rmsprop(
    params: Sequence[nn.Parameter],
    lr: Annotated[float, Rule(lambda rate: 0 < rate < 1, "above 0 and below 1")],
    decay: Annotated[float, Rule(lambda decay: 0 <= decay < 1, "at least 0 and below 1")] = 0.9,
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


def check_optimizer(optim: Mapping[str, Any], schedule: Mapping[str, Any]) -> None:
    """Check both parts before anything is read.

    Raises:
        MirrorError: one of them cannot be imported, or does not take its settings.
    """
    check_part(optim, "optim", "params")
    check_part(schedule, "schedule", "optimizer", "steps")


def optimizers(model: nn.Module, optim: Mapping[str, Any], schedule: Mapping[str, Any], steps: int) -> Any:
    """What Lightning's ``configure_optimizers`` returns: both parts, over all weights of ``model`` that learn."""
    optimizer = build(optim, "optim", Optimizer, params=[p for p in model.parameters() if p.requires_grad])
    scheduler = build(schedule, "schedule", LRScheduler, optimizer=optimizer, steps=steps)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
