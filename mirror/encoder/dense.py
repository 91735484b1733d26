"""Stages that follow the pooling: text vectors to text vectors."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Self

import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mirror.encoder.packing import TokenBlock
from mirror.encoder.stages import SETTINGS, WEIGHTS, Stage, read_json, write_json
from mirror.errors import MirrorError


class Dense(Stage):
    """A linear layer over the text's vector, with an activation: sentence-transformers' ``Dense``."""

    ACTIVATIONS: ClassVar[dict[str, type[nn.Module]]] = {
        f"torch.nn.modules.{kind.__module__.rpartition('.')[2]}.{kind.__name__}": kind
        for kind in (nn.Identity, nn.Tanh, nn.ReLU, nn.GELU, nn.Sigmoid)
    }

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias=bias)
        self.activation = activation or nn.Identity()

    def forward(self, vectors: Tensor, block: TokenBlock, layers: Sequence[Tensor]) -> Tensor:
        """(B, D) to (B, D')."""
        projected: Tensor = self.activation(self.linear(vectors))
        return projected

    def size(self, dimension: int) -> int:
        """Its own."""
        return self.linear.out_features

    def save(self, folder: Path) -> None:
        """Settings and weights."""
        names = {kind: name for name, kind in self.ACTIVATIONS.items()}
        write_json(
            folder / SETTINGS,
            {
                "in_features": self.linear.in_features,
                "out_features": self.linear.out_features,
                "bias": self.linear.bias is not None,
                "activation_function": names[type(self.activation)],
            },
        )
        save_file({name: tensor.contiguous() for name, tensor in self.state_dict().items()}, folder / WEIGHTS)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Load from its files.

        Raises:
            MirrorError: the activation is not known, or the files do not fit together.
        """
        settings = read_json(folder / SETTINGS)
        name = settings.get("activation_function", "torch.nn.modules.activation.Tanh")
        if name not in cls.ACTIVATIONS:
            raise MirrorError(
                f"{folder} has the activation {name}, which mirror does not run: use sentence-transformers."
            )
        sizes = settings["in_features"], settings["out_features"]
        stage = cls(*sizes, bias=settings.get("bias", True), activation=cls.ACTIVATIONS[name]())
        stage.load_state_dict(load_file(folder / WEIGHTS))
        return stage


class Normalize(Stage):
    """Vectors of length 1."""

    def forward(self, vectors: Tensor, block: TokenBlock, layers: Sequence[Tensor]) -> Tensor:
        """(B, D)."""
        return F.normalize(vectors, dim=-1)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Takes no settings: those that newer versions of sentence-transformers write are its defaults."""
        return cls()
