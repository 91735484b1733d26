"""A model with some of another's layers, as DistilBERT starts from BERT (Sanh et al. 2019)."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from mirror.errors import MirrorError

PER_LAYER = ("layer_types", "layers_block_type")
"""Lists in a configuration with an entry for each layer."""


def layer_stacks(backbone: Any) -> dict[str, nn.ModuleList]:
    """By name, the lists with an entry for each layer: one, or several where a layer is in pieces (XLM)."""
    return {
        stack: module
        for stack, module in backbone.named_modules()
        if isinstance(module, nn.ModuleList)
        and len(module) == backbone.config.num_hidden_layers
        and ".0." not in f".{stack}."
    }


def with_layers(backbone: Any, kept: Sequence[int], name: str) -> Any:
    """A new backbone of the same kind with the weights of the kept layers, in their order.

    Args:
        backbone: of transformers; stays as it is.
        kept: the numbers of the layers, from 0.
        name: what error messages call the model.

    Raises:
        MirrorError: it has fewer layers, or one that cannot stand in another's place, as ModernBERT's second at
            the bottom.
    """
    layers = backbone.config.num_hidden_layers
    if not isinstance(kept, Sequence) or not kept or not all(type(layer) is int for layer in kept):
        raise MirrorError(f"model.keep_layers={kept!r:.80}: give the numbers of the layers that stay, as in [0, 2].")
    if max(kept) >= layers:
        raise MirrorError(
            f"model.keep_layers={list(kept)} names layer {max(kept)}, and {name} has {layers} layers, from 0 to "
            f"{layers - 1}."
        )
    stacks = layer_stacks(backbone)
    config = copy.deepcopy(backbone.config)
    config.num_hidden_layers = len(kept)
    for entry in PER_LAYER:
        if isinstance(found := getattr(config, entry, None), list) and len(found) == layers:
            setattr(config, entry, [found[layer] for layer in kept])
    state = {}
    for weights, value in backbone.state_dict().items():
        stack = next((stack for stack in stacks if weights.startswith(f"{stack}.")), None)
        if stack is None:
            state[weights] = value
            continue
        layer, _, rest = weights.removeprefix(f"{stack}.").partition(".")
        if int(layer) in kept:
            state[f"{stack}.{list(kept).index(int(layer))}.{rest}"] = value
    try:
        with torch.random.fork_rng(devices=[]):  # what is drawn here is replaced
            smaller = type(backbone)(config)
        smaller.load_state_dict(state)
    except (RuntimeError, ValueError, TypeError, LookupError) as error:
        raise MirrorError(
            f"model.keep_layers={list(kept)}: the layers of {name} ({config.model_type}) do not stand in each other's "
            "place: leave it out, or keep others."
        ) from error
    return smaller.to(backbone.dtype).eval()
