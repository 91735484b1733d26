"""The course of the learning rate over the steps of a run. Chosen by ``schedule=``.

A ``warmup_steps`` below 1 is a share of the steps.

One of a user's own is a function or class that takes ``optimizer`` and, where it asks for it, the number of ``steps``,
such as any of ``torch.optim.lr_scheduler``.
"""

import logging
from typing import Annotated, Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from transformers import get_scheduler

from mirror.config import Rule

DECAY_SHARE = 0.2
"""Of the steps, in which ``wsd`` falls (Hägele et al. 2024: a fifth is enough)."""

log = logging.getLogger(__name__)


def _steps_or_share(steps: float) -> bool:
    return steps >= 0 and (steps < 1 or steps == int(steps))


Warmup = Annotated[float, Rule(_steps_or_share, "a number of steps, or a share of them below 1")]


def constant(optimizer: Optimizer, steps: int, warmup_steps: Warmup = 0) -> LRScheduler:
    """A linear ramp over ``warmup_steps``, then the same rate to the end."""
    return _scheduler("constant_with_warmup", optimizer, steps, warmup_steps)


def linear(optimizer: Optimizer, steps: int, warmup_steps: Warmup = 10) -> LRScheduler:
    """A linear ramp, then a linear fall to zero."""
    return _scheduler("linear", optimizer, steps, warmup_steps)


def cosine(optimizer: Optimizer, steps: int, warmup_steps: Warmup = 10) -> LRScheduler:
    """A linear ramp, then a fall to zero along a cosine."""
    return _scheduler("cosine", optimizer, steps, warmup_steps)


def wsd(optimizer: Optimizer, steps: int, warmup_steps: Warmup = 10) -> LRScheduler:
    """A linear ramp, the same rate, and a linear fall to zero over the last fifth of the steps."""
    fall = {"num_decay_steps": max(1, int(steps * DECAY_SHARE)), "decay_type": "linear"}
    return _scheduler("warmup_stable_decay", optimizer, steps, warmup_steps, **fall)


def stepped(
    optimizer: Optimizer,
    every: Annotated[int, Rule(lambda steps: steps >= 1, "at least 1")] = 500,
    factors: Annotated[
        tuple[float, ...], Rule(lambda factors: min(factors, default=-1) >= 0, "0 or more each, at least one")
    ] = (
        0.8,
        0.6,
        0.4,
        0.2,
    ),
) -> LRScheduler:
    """The rate times the next of ``factors`` after every so many steps; the last one stays.

    Args:
        optimizer: whose rate it is.
        every: steps with the same rate.
        factors: of the rate, one after the other.

    As in Keras's ``PiecewiseConstantDecay`` the step with the number of a boundary, counted from 0, still has the rate
    before it.
    """
    return LambdaLR(optimizer, lambda step: (1.0, *factors)[min(max(step - 1, 0) // every, len(factors))])


def slanted(
    optimizer: Optimizer,
    steps: int,
    cut: Annotated[float, Rule(lambda share: 0 < share < 1, "above 0 and below 1")] = 0.1,
    ratio: Annotated[float, Rule(lambda ratio: ratio >= 1, "at least 1")] = 32.0,
) -> LRScheduler:
    """A short steep ramp and a long fall, the slanted triangle of ULMFiT (Howard and Ruder 2018, equation 3).

    Args:
        optimizer: has the highest rate.
        steps: of the run, T.
        cut: the share of the steps in which the rate grows.
        ratio: how much smaller the lowest rate is than the highest.
    """
    peak = int(steps * cut)

    def share(step: int) -> float:
        # The paper's 1 - (t - peak) / (peak (1 / cut - 1)), but for rounding; at a peak of 0 that divides by 0.
        p = step / peak if step < peak else max(0.0, 1 - (step - peak) / (steps - peak))
        return (1 + p * (ratio - 1)) / ratio

    return LambdaLR(optimizer, share)


def _scheduler(name: str, optimizer: Optimizer, steps: int, warmup_steps: float, **options: Any) -> LRScheduler:
    """One of transformers' schedules."""
    warmup_steps = int(warmup_steps if warmup_steps >= 1 else warmup_steps * steps)
    if warmup_steps >= steps:
        log.warning(
            "schedule.warmup_steps=%d is not less than the %d steps of the run: the rate never reaches optim.lr.",
            warmup_steps,
            steps,
        )
    scheduler: LRScheduler = get_scheduler(
        name,
        optimizer,
        num_warmup_steps=warmup_steps,
        num_training_steps=steps,
        scheduler_specific_kwargs=options,
    )
    return scheduler
