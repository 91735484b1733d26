"""The learning rate of each weight: by its layer, and by the size of the batch; and what an optimizer keeps of it."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from mirror.adapt.layers import heights
from mirror.config import check
from mirror.errors import MirrorError

LAYER_DECAY, SCALE = "layer_decay", "scale_with_batch"
"""Settings of ``optim`` beside those of the optimizer itself, so that every optimizer has them."""


def own_settings(optim: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the optimizer itself."""
    return {name: value for name, value in optim.items() if name not in (LAYER_DECAY, SCALE)}


def layer_decay(optim: Mapping[str, Any]) -> float:
    """What the rate is multiplied by from each layer to the one below it.

    Raises:
        MirrorError: it is no share.
    """
    decay = optim.get(LAYER_DECAY, 1.0)
    check(isinstance(decay, int | float) and 0 < decay <= 1, f"optim.{LAYER_DECAY}", decay, "above 0 and at most 1")
    return float(decay)


def scaled(optim: Mapping[str, Any], batch: int) -> dict[str, Any]:
    """The optimizer's settings for a batch of so many texts: the linear scaling rule (Goyal et al. 2017, section 2.1),
    where ``optim.scale_with_batch`` is the size that ``optim.lr`` is meant for.

    Raises:
        MirrorError: it is no number of texts, or there is no rate to scale.
    """
    usual = optim.get(SCALE)
    rest = {name: value for name, value in optim.items() if name != SCALE}
    if usual is None:
        return rest
    check(type(usual) is int and usual >= 1, f"optim.{SCALE}", usual, "at least 1 (a number of texts), or null")
    if not isinstance(rest.get("lr"), int | float):
        raise MirrorError(f"optim.{SCALE}={usual} scales optim.lr, which is not set: add optim.lr=….")
    return {**rest, "lr": rest["lr"] * batch / usual}


def grade(optimizer: Optimizer, model: nn.Module, backbone: nn.Module, decay: float) -> None:
    """Give the top layer and what stands above it the optimizer's rate, and each layer below it ``decay`` times that
    of the one above, the embeddings the lowest (discriminative fine-tuning, Howard and Ruder 2018, section 3.2).

    Args:
        optimizer: has taken no step.
        model: whose weights it has, those of copies of the backbone among them.
        backbone: has the layers.
        decay: the factor; 1 changes nothing.
    """
    if decay == 1:
        return
    found = heights(backbone)
    top = max(found.values())
    below = {id(weights): top - _height(name, found, top) for name, weights in model.named_parameters()}
    groups: list[dict[str, Any]] = []
    for group in optimizer.param_groups:
        for depth in sorted({below[id(weights)] for weights in group["params"]}):
            chosen = [weights for weights in group["params"] if below[id(weights)] == depth]
            groups.append({**group, "params": chosen, "lr": group["lr"] * decay**depth})
    optimizer.param_groups[:] = groups


def _height(name: str, found: Mapping[str, int], top: int) -> int:
    parts = name.split(".")
    known = (".".join(parts[start:]) for start in range(len(parts)))
    return next((found[own] for own in known if own in found), top)


def state_bytes(optimizer: Optimizer) -> int:
    """Memory of what an optimizer keeps for its weights."""
    kept = (value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor))
    return sum(value.numel() * value.element_size() for value in kept)
