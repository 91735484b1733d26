"""Low-rank matrices beside the frozen ones, by the library peft; merged into them after the training."""

from collections.abc import Sequence
from typing import Annotated, Any

import torch.nn.functional as F
from torch import Tensor, nn

from mirror.adapt.base import Adaptation
from mirror.config import Rule
from mirror.encoder.encoder import MirrorEncoder
from mirror.errors import MirrorError

TARGETS = (
    ("query", "value"),  # BERT, RoBERTa, XLM-R, ELECTRA, ERNIE, ALBERT
    ("query_proj", "value_proj"),  # DeBERTa-v2 and -v3
    ("q_lin", "v_lin"),  # DistilBERT, XLM
    ("q", "v"),  # MPNet
    ("in_proj",),  # DeBERTa
    ("Wqkv",),  # ModernBERT
)
"""The linear layers that make an architecture's queries and values, which Hu et al. 2022 adapt (section 4.2)."""
NAMES_SHOWN = 12


class Lora(Adaptation):
    """W + alpha / rank · B A in the place of W; A and B learn, W does not (Hu et al. 2022, LoRA).

    Args:
        rank: of the product.
        alpha: its scale, times the rank.
        dropout: on the input of A; the rate of ``aug`` leaves it alone.
        targets: ends of the names of linear layers; null is those of the architecture's queries and values.
    """

    adds_weights = True

    def __init__(
        self,
        rank: Annotated[int, Rule(lambda rank: rank >= 1, "at least 1")] = 8,
        alpha: Annotated[float, Rule(lambda alpha: alpha > 0, "above 0")] = 16.0,
        dropout: Annotated[float, Rule(lambda rate: 0 <= rate < 1, "at least 0 and below 1")] = 0.0,
        targets: list[str] | None = None,
    ) -> None:
        self.rank, self.alpha, self.dropout, self.targets = rank, alpha, dropout, targets

    def check(self, encoder: MirrorEncoder) -> None:
        """Raises MirrorError if peft is not installed, or a target is not there."""
        _peft()
        self._layers(encoder)

    def attach(self, encoder: MirrorEncoder) -> None:
        """Put the matrices in; B begins as 0, so that the vectors are the same at first."""
        peft, backbone = _peft(), encoder.backbone
        names = self._layers(encoder)
        config = peft.LoraConfig(r=self.rank, lora_alpha=self.alpha, target_modules=names, lora_dropout=0.0)
        peft.inject_adapter_in_model(config, backbone)
        for name in names:
            (layer := backbone.get_submodule(name)).lora_dropout.update({"default": InputDropout(self.dropout)})
            layer.to(encoder.device)

    def detach(self, encoder: MirrorEncoder) -> None:
        """Add their product to the matrices, and take them out: the folder of the encoder loads anywhere."""
        from peft.tuners.lora import LoraLayer

        backbone = encoder.backbone
        for name, layer in [*backbone.named_modules()]:
            if isinstance(layer, LoraLayer):
                layer.merge()
                backbone.set_submodule(name, layer.get_base_layer())
        vars(backbone).pop("peft_config", None)

    def _layers(self, encoder: MirrorEncoder) -> list[str]:
        """The full names of the layers."""
        linear = [name for name, module in encoder.backbone.named_modules() if isinstance(module, nn.Linear)]
        linear = [name for name in linear if not name.startswith("pooler")]
        if self.targets is None:
            found = next((names for names in TARGETS if all(_ending(linear, name) for name in names)), None)
            if found is None:
                raise MirrorError(
                    f"adapt=lora does not know the queries and values of {encoder.name}: give adapt.targets=[…], "
                    f"among {_kinds(linear)}."
                )
            return [name for target in found for name in _ending(linear, target)]
        for target in self.targets:
            if not _ending(linear, target):
                raise MirrorError(
                    f"adapt.targets has {target}, and {encoder.name} has no linear layer of that name: choose among "
                    f"{_kinds(linear)}."
                )
        return list(dict.fromkeys(name for target in self.targets for name in _ending(linear, target)))


class InputDropout(nn.Module):
    """Dropout whose rate the perturbations of a run do not set: they set every ``nn.Dropout``."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, inputs: Tensor) -> Tensor:
        """Any shape."""
        return F.dropout(inputs, self.share, self.training)


def _ending(names: Sequence[str], target: str) -> list[str]:
    return [name for name in names if f".{name}".endswith(f".{target}")]


def _kinds(names: Sequence[str]) -> str:
    return ", ".join(sorted({name.rpartition(".")[2] for name in names})[:NAMES_SHOWN]) or "none"


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise MirrorError(
            f"adapt=lora needs the package peft ({error}): pip install 'mirror-encoders[peft]'."
        ) from None
    return peft
