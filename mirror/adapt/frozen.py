"""Part of the weights learns, the rest stays as it was pretrained."""

from collections import defaultdict
from collections.abc import Container
from random import Random
from typing import Annotated

from mirror.adapt.base import Adaptation
from mirror.adapt.layers import check_layers, heights
from mirror.config import Rule
from mirror.encoder.encoder import MirrorEncoder
from mirror.errors import MirrorError

Layers = Annotated[int, Rule(lambda count: count >= 0, "0 or more")]


def freeze(encoder: MirrorEncoder, names: Container[str]) -> None:
    """Let these weights of the backbone learn no more."""
    for name, weights in encoder.backbone.named_parameters():
        if name in names:
            weights.requires_grad_(False)


class BitFit(Adaptation):
    """Of the backbone, the biases alone learn, those of the norms included (Ben Zaken et al. 2022)."""

    def check(self, encoder: MirrorEncoder) -> None:
        """Raises MirrorError if there are none."""
        if not any(_is_bias(name) for name, weights in encoder.backbone.named_parameters() if weights.requires_grad):
            raise MirrorError(
                f"adapt=bitfit trains biases, and {encoder.name} has none: choose another, such as adapt=lora."
            )

    def attach(self, encoder: MirrorEncoder) -> None:
        """Freeze the others."""
        freeze(encoder, {name for name, _ in encoder.backbone.named_parameters() if not _is_bias(name)})


def _is_bias(name: str) -> bool:
    return name.endswith("bias") and "relative_attention_bias" not in name


class Freeze(Adaptation):
    """The lower layers stay as they are.

    Args:
        layers: so many, from the bottom.
        embeddings: stay too.
    """

    def __init__(self, layers: Layers = 0, embeddings: bool = True) -> None:
        self.layers, self.embeddings = layers, embeddings

    def check(self, encoder: MirrorEncoder) -> None:
        """Raises MirrorError if there are fewer layers, or nothing is left that learns."""
        check_layers(self.layers, encoder)
        names = self._frozen(encoder)
        if all(name.removeprefix("backbone.") in names for name, w in encoder.named_parameters() if w.requires_grad):
            raise MirrorError(f"adapt.layers={self.layers} leaves nothing of {encoder.name} to learn: lower it.")

    def attach(self, encoder: MirrorEncoder) -> None:
        """Freeze them."""
        freeze(encoder, self._frozen(encoder))

    def _frozen(self, encoder: MirrorEncoder) -> set[str]:
        found = heights(encoder.backbone).items()
        return {name for name, height in found if (0 < height <= self.layers) or (height == 0 and self.embeddings)}


class Half(Adaptation):
    """In each layer half of the matrices learn, and all that is not one of them (after Hui et al. 2024, HFT, arXiv
    2404.18466, which chooses among attention and feed-forward apart).

    Where each epoch draws anew, the gradients of the others are computed and left out.

    Args:
        seed: decides which.
        epoch_steps: steps of an epoch.
        each_epoch: draw anew in each epoch.
    """

    def __init__(self, seed: int, epoch_steps: int, each_epoch: bool = False) -> None:
        self.seed, self.epoch_steps, self.each_epoch = seed, epoch_steps, each_epoch
        self._layers: list[list[str]] = []
        self._drawn: tuple[int, set[str]] = (-1, set())

    def attach(self, encoder: MirrorEncoder) -> None:
        """Draw, and freeze the others if they stay so."""
        layers: dict[int, list[str]] = defaultdict(list)
        found = heights(encoder.backbone)
        for name, weights in encoder.backbone.named_parameters():
            if weights.ndim > 1 and weights.requires_grad and found[name]:
                layers[found[name]].append(name)
        self._layers, self._drawn = list(layers.values()), (-1, set())
        if not self.each_epoch:
            freeze(encoder, self._others(0))

    def resting(self, step: int) -> Container[str]:
        """Half of the matrices, in each epoch others."""
        return self._others(step // self.epoch_steps) if self.each_epoch else ()

    def _others(self, epoch: int) -> set[str]:
        if self._drawn[0] != epoch:
            rng = Random(f"{self.seed} {epoch}")
            self._drawn = epoch, {name for names in self._layers for name in rng.sample(names, len(names) // 2)}
        return self._drawn[1]


class Gradual(Adaptation):
    """The top layer learns from the first step on, and one layer more after every so many steps, the embeddings last
    (Howard and Ruder 2018, ULMFiT, section 3.3, where it is an epoch).

    The gradients of the layers that do not learn yet are computed and left out.

    Args:
        every: steps between two layers.
    """

    def __init__(self, every: Annotated[int, Rule(lambda steps: steps >= 1, "at least 1")] = 10) -> None:
        self.every = every
        self._heights: dict[str, int] = {}

    def attach(self, encoder: MirrorEncoder) -> None:
        """Look where each weight stands."""
        self._heights = heights(encoder.backbone)

    def resting(self, step: int) -> Container[str]:
        """What lies below the layers that learn."""
        lowest = max(self._heights.values()) - step // self.every
        return {name for name, height in self._heights.items() if height < lowest}
