"""AdamW and the course of its learning rate, for mirror tuning and for pre-training."""

from typing import Any

from torch import nn
from torch.optim import AdamW
from transformers import get_scheduler

from mirror.config import OptimConfig, Schedule

DECAY_SHARE = 0.2
"""Of the steps, in which ``wsd`` falls (Hägele et al. 2024: a fifth is enough)."""
_SCHEDULER = {
    Schedule.constant: "constant_with_warmup",
    Schedule.linear: "linear",
    Schedule.cosine: "cosine",
    Schedule.wsd: "warmup_stable_decay",
}


def adamw(model: nn.Module, config: OptimConfig, steps: int, betas: tuple[float, float] = (0.9, 0.999)) -> Any:
    """What Lightning's ``configure_optimizers`` returns.

    By default there is no weight decay on norms and biases, which are the vectors among the weights.
    """
    weights = [p for p in model.parameters() if p.requires_grad]
    decayed = [p for p in weights if p.ndim > 1 or config.decay_all]
    others = [p for p in weights if p.ndim <= 1 and not config.decay_all]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    optimizer = AdamW([group for group in groups if group["params"]], lr=config.lr, betas=betas, fused=True)
    # A fused one would take fp16's scale off by itself, so that Lightning refuses to clip under autocast, in bf16 too.
    optimizer._step_supports_amp_scaling = False
    options: dict[str, Any] = {}
    if config.schedule is Schedule.wsd:
        options = {"num_decay_steps": max(1, int(steps * DECAY_SHARE)), "decay_type": "linear"}
    scheduler = get_scheduler(
        _SCHEDULER[config.schedule],
        optimizer,
        num_warmup_steps=config.warmup_steps,
        num_training_steps=steps,
        scheduler_specific_kwargs=options,
    )
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
