"""A larger model that begins with the weights of a smaller one."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from mirror.config import ArchitectureConfig
from mirror.errors import MirrorError

TYPES = ("bert", "roberta", "xlm-roberta")
"""Whose weights are named and laid out alike."""
EVEN = 0.5
"""Of a share: the rest is drawn. Even shares would let a unit's copies learn the same for ever."""


def grown(small: Any, sizes: ArchitectureConfig) -> Any:
    """A masked language model of the given sizes.

    Layers are stacked: the smaller model's stand on top of each other as often as needed (progressive stacking, Gong et
    al. 2019). Widths grow by copies of units, whose readers share out their weights among the copies, so that the wider
    model computes what the narrower one did (bert2BERT, Chen et al. 2022, function-preserving initialisation). The
    shares are drawn where the paper has even ones, so that the copies learn different things without dropout too.

    Args:
        small: a BERT or RoBERTa with its head; stays as it is.
        sizes: of the new model; its positions are the smaller model's.

    Raises:
        MirrorError: it is another kind of model, or does not fit into these sizes.
    """
    config = copy.deepcopy(small.config)
    _check(config, sizes)
    layers, width = config.num_hidden_layers, config.hidden_size
    config.num_hidden_layers, config.hidden_size = sizes.layers, sizes.hidden
    config.num_attention_heads, config.intermediate_size = sizes.heads, sizes.intermediate
    large = type(small)(config)
    small_parts, output = dict(small.named_modules()), large.get_output_embeddings()
    last_norm = _last_norm(large)
    with torch.no_grad():
        for name, part in large.named_modules():
            if not isinstance(part, nn.Linear | nn.Embedding | nn.LayerNorm):
                continue
            words = [str(int(word) % layers) if word.isdecimal() else word for word in name.split(".")]
            source = small_parts[".".join(words)]
            if part is output or isinstance(part, nn.Embedding):
                part.weight.copy_(source.weight[:, _copies(part.weight.shape[1], source.weight.shape[1])])
            elif isinstance(part, nn.Linear):
                part.weight.copy_(_widened(source.weight, part.weight.shape))
            else:
                part.weight.copy_(source.weight[_copies(len(part.weight), len(source.weight))])
            if (bias := getattr(part, "bias", None)) is not None:
                bias.copy_(source.bias[_copies(len(bias), len(source.bias))])
        # Scores are sums over the width: each unit counts as often as it has copies.
        last_norm.weight.mul_(width / sizes.hidden)
        last_norm.bias.mul_(width / sizes.hidden)
    return large


def _copies(large: int, small: int) -> Tensor:
    """(large,), the unit that each one is a copy of."""
    return torch.arange(large) % small


def _widened(weight: Tensor, shape: torch.Size) -> Tensor:
    """(O, I) to a larger shape: its rows repeated, each column shared out among the copies of its unit."""
    rows, columns = _copies(shape[0], weight.shape[0]), _copies(shape[1], weight.shape[1])
    if shape[1] == weight.shape[1]:
        return weight[rows]
    drawn = EVEN + torch.rand(shape)
    total = torch.zeros(shape[0], weight.shape[1]).index_add_(1, columns, drawn)
    return weight[rows][:, columns] * drawn / total[:, columns]


def _last_norm(model: Any) -> nn.LayerNorm:
    """What stands before the scores."""
    found: nn.LayerNorm = (
        model.lm_head.layer_norm if hasattr(model, "lm_head") else model.cls.predictions.transform.LayerNorm
    )
    return found


def _check(config: Any, sizes: ArchitectureConfig) -> None:
    """Refuse what cannot be grown, by the setting."""
    given = f"model.grow_from={sizes.grow_from}"
    if config.model_type not in TYPES:
        raise MirrorError(f"{given} is a {config.model_type}: give a BERT or RoBERTa.")
    for name, has, wanted in (
        ("layers", config.num_hidden_layers, sizes.layers),
        ("hidden", config.hidden_size, sizes.hidden),
    ):
        if wanted % has:
            raise MirrorError(
                f"model.{name}={wanted} is no multiple of the {has} of {given}: choose {2 * has}, or {has}."
            )
    heads = config.num_attention_heads * (sizes.hidden // config.hidden_size)
    if sizes.heads != heads:
        raise MirrorError(
            f"model.heads={sizes.heads} does not go with model.hidden={sizes.hidden} and {given}, whose heads keep "
            f"their size: set model.heads={heads}."
        )
    if sizes.intermediate < config.intermediate_size:
        raise MirrorError(
            f"model.intermediate={sizes.intermediate} is less than the {config.intermediate_size} of {given}: raise it."
        )
