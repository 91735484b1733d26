"""InfoNCE at several depths with the gradients stopped between groups of layers (LoCo)."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from mirror.config import LossForm, Rule
from mirror.data.batches import MirroredBatch
from mirror.encoder.encoder import MirrorEncoder
from mirror.encoder.kept_layers import layer_stacks
from mirror.errors import MirrorError
from mirror.losses.base import Components, Loss, check_two_views
from mirror.losses.embedder import Embedder
from mirror.losses.infonce import info_nce
from mirror.losses.teacher import layer_poolings


class Local(Loss):
    """The mean of InfoNCE at the end of each group of two layers; a group shares its second layer with the next one,
    and its gradients end at its first one (LoCo, Xiong et al. 2020, section 3.2).

    The last group's vector is the encoder's own, with its projection head; the others are the layer's states pooled
    by the encoder's kind of token pooling, CLS or mean. A shared layer is computed twice, with the same dropout. All
    groups' activations are held, so this saves no memory here.

    Args:
        embedder: tells the layers.
        temperature: divides the cosine similarities.
        form: see ``mirror.losses.infonce.InfoNCE``.
        mask_duplicates: texts that stand twice in a batch are not negatives of each other.

    Raises:
        MirrorError: the model has fewer than three layers, which is one group, or its layers share their weights.
    """

    layered = True
    whole = True  # the layers are parted during the forward pass alone, and gradient caching repeats it later

    def __init__(
        self,
        embedder: Embedder,
        temperature: Annotated[float, Rule(lambda t: 0 < t <= 100, "above 0 and at most 100")] = 0.04,
        form: LossForm = LossForm.nt_xent,
        mask_duplicates: bool = True,
    ) -> None:
        super().__init__()
        self.temperature, self.form, self.mask_duplicates = temperature, form, mask_duplicates
        count = len(layer_stack(embedder.encoder))
        if count < 3:
            raise MirrorError(
                f"loss=local: {embedder.encoder.name} has {count} layers, and two are one group, without anything to "
                "stop between: use loss=infonce, or a model of three layers or more."
            )
        token = "cls" if embedder.encoder.pooling.name.startswith("cls") else "mean"
        self.poolings = layer_poolings(embedder.encoder, range(1, count - 1), token)

    def forward(self, embed: Embedder, batch: MirroredBatch) -> Components:
        """The loss, and its part at each depth: ``layer_2`` is the one after the second layer.

        Raises:
            MirrorError: the batch has other than two views of each text.
        """
        check_two_views(batch)
        with groups_apart(embed.encoder):
            top, *lower = embed.with_layers(batch, self.poolings)  # (2, N, D), (2, N, H) each
        parts = {
            f"layer_{depth}": info_nce(
                vectors, batch.text_ids, self.temperature, form=self.form, mask_duplicates=self.mask_duplicates
            )
            for depth, vectors in enumerate([*lower, top], start=2)
        }
        return {"loss": torch.stack([*parts.values()]).mean(), **parts}

    def negatives(self, texts: int) -> int:
        """As in InfoNCE."""
        return 2 * texts - 2

    def describe(self) -> str:
        """Form, temperature and the number of groups."""
        groups = len(self.poolings) + 1
        return f"InfoNCE ({self.form.value}) in {groups} groups of layers, temperature {self.temperature}"


def layer_stack(encoder: MirrorEncoder) -> nn.ModuleList:
    """The layers of the backbone, from the bottom.

    Raises:
        MirrorError: they are not one list: all are one and the same (ALBERT), or each is in pieces (XLM).
    """
    stacks = list(layer_stacks(encoder.backbone).values())
    if len(stacks) == 1 and len(stacks[0]) > 1:
        return stacks[0]
    raise MirrorError(f"loss=local wants a model with a list of several layers, which {encoder.name} has not.")


@contextmanager
def groups_apart(encoder: MirrorEncoder) -> Iterator[None]:
    """Inside, the gradient of a layer's output ends at the input of the layer below it.

    A shared layer has two outputs of equal values: one, with the graph of the layer below, is what poolings see; the
    other, computed from a detached input, is what the layer above reads.
    """
    layers = list(layer_stack(encoder))
    with ExitStack() as hooks:
        for shared, above in pairwise(layers[1:]):
            for handle in _split(shared, above):
                hooks.callback(handle.remove)
        yield


def _split(shared: nn.Module, above: nn.Module) -> list[Any]:
    drawn: dict[str, Any] = {}

    def before(layer: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        drawn["state"] = _random_state(inputs[0].device)

    def after(layer: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        device = inputs[0].device
        later = _random_state(device)
        _set_random_state(device, drawn["state"])  # the same dropout
        drawn["apart"] = _states(layer.forward(inputs[0].detach(), *inputs[1:], **named))
        _set_random_state(device, later)

    def replace(layer: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
        return (drawn.pop("apart"), *inputs[1:]), named

    return [
        shared.register_forward_pre_hook(before, with_kwargs=True),
        shared.register_forward_hook(after, with_kwargs=True),
        above.register_forward_pre_hook(replace, with_kwargs=True),
    ]


def _states(output: Any) -> Tensor:
    """A layer's states, of a layer that returns them alone or first of several."""
    states: Tensor = output if isinstance(output, Tensor) else output[0]
    return states


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_random_state(device: torch.device, state: Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
