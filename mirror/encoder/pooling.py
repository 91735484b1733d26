"""Token vectors to text vectors: an encoder's stages, one after the other, by name or as a part."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from mirror.config import Pooling
from mirror.config.parts import build
from mirror.config.sections import named_pooling
from mirror.encoder.dense import Normalize
from mirror.encoder.packing import TokenBlock
from mirror.encoder.stages import LayerMix, Stage, TokenPooling

LAYERED = (Pooling.first_last, Pooling.last_two, Pooling.layers)
"""Named poolings that look at several layers."""
MODES = {
    Pooling.cls: ("cls",),
    Pooling.max: ("max",),
    Pooling.concat: ("cls", "max", "mean"),
    Pooling.mean_padded: ("mean_padded",),
}
"""How the tokens are pooled; by default their mean."""


class TextPooling(nn.Module):
    """All stages of an encoder.

    Args:
        stages: in their order; one of them makes text vectors of token vectors.
        name: in tables and on the model card.
        hidden: size D of the backbone's states.
    """

    def __init__(self, stages: Sequence[Stage], name: str, hidden: int) -> None:
        super().__init__()
        self.stages, self.name, self.hidden, self.dimension = nn.ModuleList(stages), name, hidden, hidden
        for stage in stages:
            self.dimension = stage.size(self.dimension)
        self.layered = any(stage.layered for stage in stages)
        self.template = next((stage.template for stage in stages if stage.template), None)
        """What a text is put into before it is encoded."""

    def followed_by(self, stage: Stage, name: str) -> "TextPooling":
        """These stages and one more."""
        return TextPooling([*self.stages, stage], f"{self.name}+{name}", self.hidden)

    def without_last(self) -> "TextPooling":
        """These stages but the last one."""
        return TextPooling([*self.stages][:-1], self.name.rpartition("+")[0] or self.name, self.hidden)

    def forward(self, layers: Sequence[Tensor], block: TokenBlock) -> Tensor:
        """The vectors of a block's texts, (B, D), from the outputs of the layers, each (R, W, D)."""
        vectors = layers[-1]
        for stage in self.stages:
            vectors = stage(vectors, block, layers)
        return vectors


def make_pooling(
    choice: Pooling | str | Mapping[str, Any],
    *,
    hidden: int,
    layers: int,
    mask_id: int | None = None,
    cls_last: bool = False,
    normalize: bool = False,
) -> TextPooling:
    """The stages that a setting names.

    Args:
        choice: a name, or a part: ``_target_`` and its settings. A part that asks for ``hidden``, ``layers`` or
            ``mask_id`` is given these.
        hidden: size D of the backbone's states.
        layers: of the backbone.
        mask_id: of the tokenizer's mask token, if it has one.
        cls_last: the CLS token ends the text.
        normalize: scale the vectors to length 1 at the end.

    Raises:
        MirrorError: the part cannot be built, or is no ``Stage``.
    """
    stages: list[Stage] = []
    if isinstance(choice, Mapping):
        stage: Stage = build(choice, "model.pooling", Stage, hidden=hidden, layers=layers, mask_id=mask_id)
        name = type(stage).__name__
        stages.append(stage)
    else:
        pooling = Pooling(named_pooling("pooling", choice))
        name = pooling.value
        if pooling in LAYERED:
            stages.append(LayerMix(layer_weights(pooling, layers), trainable=pooling is Pooling.layers))
        stages.append(TokenPooling(*MODES.get(pooling, ("mean",)), cls_last=cls_last))
    if normalize:
        stages.append(Normalize())
    return TextPooling(stages, name, hidden)


def layer_weights(pooling: Pooling, layers: int) -> list[float]:
    """Weights of the layers' outputs in a layered pooling, first layer first; the embeddings take no part."""
    if pooling is Pooling.layers:
        return [1.0] * layers  # where learning begins
    weights = [0.0] * layers
    # A model of one layer has that one for both.
    for index in (0, layers - 1) if pooling is Pooling.first_last else range(max(layers - 2, 0), layers):
        weights[index] = 1.0
    return weights


def stage_name(stages: Sequence[Stage], layers: int) -> str:
    """The name of a pooling that was read from a folder: a name of the settings, or its classes."""
    stages = [stage for stage in stages if not isinstance(stage, Normalize)]
    match stages:
        case [TokenPooling(modes=modes), *more]:
            names = [pooling.value for pooling, own in MODES.items() if own == modes] or ["+".join(modes)]
        case [LayerMix(layer_weights=None, fixed=fixed), TokenPooling(modes=("mean",)), *more]:
            names = [pooling.value for pooling in LAYERED if layer_weights(pooling, layers) == fixed]
        case [LayerMix(), TokenPooling(modes=("mean",)), *more]:
            names = [Pooling.layers.value]
        case _:
            names, more = [], []
    if not names:
        return "+".join(type(stage).__name__ for stage in stages)
    return "+".join([names[0], *(type(stage).__name__ for stage in more)])
