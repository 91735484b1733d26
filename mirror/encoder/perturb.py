"""What makes the network give two vectors for one text during training: dropout and drophead.

A perturbation is attached to an encoder before training and detached after it. One of a user's own needs the same two
methods: ``_target_: my_package.MyPerturbation`` in a file of the group ``perturb``.
"""

import re
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from mirror.encoder.packing import TokenBlock
from mirror.errors import MirrorError


class Perturbable(Protocol):
    """What a perturbation may look at: a ``MirrorEncoder``."""

    backbone: Any
    pooling: Any
    layout: Any
    block: TokenBlock | None
    """The block being encoded, for hooks that must tell its texts apart."""


@runtime_checkable
class Perturbation(Protocol):
    """Changes how an encoder computes in training mode."""

    def attach(self, encoder: Perturbable) -> None:
        """Begin. ``encoder.block`` is the block being encoded, for hooks that must tell its texts apart."""

    def detach(self) -> None:
        """Leave the encoder as it was."""


class Dropout:
    """Every dropout inside the backbone at one rate: modules, and the rates that attention code reads from
    attributes."""

    def __init__(self, rate: float) -> None:
        """``rate`` is a share of the units."""
        self.rate = rate
        self._before: list[tuple[nn.Module, str, float]] = []

    def attach(self, encoder: Perturbable) -> None:
        """Set the rates."""
        self._before = set_dropout(encoder.backbone, self.rate)

    def detach(self) -> None:
        """Restore the model's own rates."""
        for module, name, value in self._before:
            setattr(module, name, value)
        self._before = []


def set_dropout(backbone: nn.Module, rate: float) -> list[tuple[nn.Module, str, float]]:
    """Set every dropout inside a backbone; returns the former rates as (module, attribute, rate)."""
    before: list[tuple[nn.Module, str, float]] = []
    for module in backbone.modules():
        names = [name for name, value in vars(module).items() if "dropout" in name and isinstance(value, float)]
        if isinstance(module, nn.Dropout):
            names.append("p")
        for name in names:
            before.append((module, name, getattr(module, name)))
            setattr(module, name, rate)
    return before


ATTENTION_OUTPUT = re.compile(
    r"(attention\.output\.dense"  # BERT, RoBERTa, XLM-R, ELECTRA, ERNIE, DeBERTa
    r"|attention\.out_lin"  # DistilBERT
    r"|attention\.dense"  # ALBERT
    r"|attn\.o"  # MPNet
    r"|attn\.Wo)$"  # ModernBERT
)
"""The linear layer that mixes the heads' outputs: its input is the heads, side by side."""


class DropHead:
    """Drops whole attention heads during training (Zhou et al. 2020; the paper's section 2.2).

    Each text draws its own heads in each layer, packed with others in a row or not, so that the two views of a
    text differ. The kept heads are scaled by heads / kept. At least one head is always kept: the one that drew the
    largest number, so that the scale is finite.
    """

    def __init__(self, rate: float) -> None:
        """``rate`` is a share of the heads."""
        self.rate, self.heads = rate, 0
        self._handles: list[RemovableHandle] = []
        self._encoder: Perturbable | None = None

    def attach(self, encoder: Perturbable) -> None:
        """Hook every attention layer.

        Raises:
            MirrorError: the backbone has no attention layer of a known form.
        """
        backbone, rate = encoder.backbone, self.rate
        self.heads = getattr(getattr(backbone, "config", None), "num_attention_heads", 0)
        layers = [layer for name, layer in backbone.named_modules() if ATTENTION_OUTPUT.search(name)]
        if not layers or not self.heads:
            raise MirrorError(
                f"aug.drophead={rate} does not work with {type(backbone).__name__}: its attention layers are not "
                "known; set aug.drophead=0 and use aug.dropout."
            )
        self._encoder = encoder
        self._handles = [layer.register_forward_pre_hook(self._drop) for layer in layers]

    def _drop(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if not layer.training or self.rate == 0:
            return None
        assert self._encoder is not None
        block = self._encoder.block
        assert block is not None
        heads_in = inputs[0]  # (R, W, H * D)
        draw = torch.rand(len(block.texts) + 1, self.heads, device=heads_in.device)  # one row is padding's
        keep = (draw >= self.rate) | (draw == draw.amax(dim=1, keepdim=True))
        scale = keep * (self.heads / keep.sum(dim=1, keepdim=True))  # (B + 1, H)
        per_token = scale.to(heads_in.dtype)[block.text_index]  # (R, W, H); padding, -1, takes the last row
        split = heads_in.unflatten(-1, (self.heads, -1)) * per_token.unsqueeze(-1)  # (R, W, H, D)
        return (split.flatten(-2), *inputs[1:])

    def detach(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._encoder = [], None


class EmbeddingCutoff:
    """Some features of a text's embeddings, or all features of some of its tokens, are 0 (Yan et al. 2021, ConSERT;
    ``_cutoff_embeddings`` in ``transformers/modeling_bert.py`` of yym6472/ConSERT).

    Each text draws its own in each step, packed with others in a row or not. As in the authors' code, what is cut is
    the output of the embeddings' layer norm, and a token that is cut is still seen by the others.
    """

    def __init__(self, features: Sequence[float], tokens: Sequence[float]) -> None:
        """Shares of the features and of the tokens, special ones included, one of each for each view."""
        self.features, self.tokens = features, tokens
        self._handle: RemovableHandle | None = None
        self._encoder: Perturbable | None = None

    def attach(self, encoder: Perturbable) -> None:
        """Hook the embeddings.

        Raises:
            MirrorError: the backbone does not add its embeddings up in one layer.
        """
        embeddings = getattr(encoder.backbone, "embeddings", None)
        if not isinstance(embeddings, nn.Module) or isinstance(embeddings, nn.Embedding):
            raise MirrorError(
                f"aug=cutoff does not work with {type(encoder.backbone).__name__}, which has no layer of all its "
                "embeddings: set aug=none, or aug.left=shuffle aug.right=none."
            )
        self._encoder, self._handle = encoder, embeddings.register_forward_hook(self._cut)

    def _cut(self, layer: nn.Module, inputs: Any, output: Tensor) -> Tensor | None:
        if not layer.training:
            return None
        assert self._encoder is not None
        block = self._encoder.block
        assert block is not None
        count, device, size = len(block.texts), output.device, output.shape[-1]
        owner = block.text_index.flatten()  # (R * W,)
        owner = owner.where(owner >= 0, count)  # padding is one more text, the last, and stays
        views = torch.cat([block.views, block.views.new_zeros(1)])  # (B + 1,)
        few = torch.tensor([int(rate * size) for rate in self.features], device=device)[views]
        few[count] = 0
        ranks = torch.rand(count + 1, size, device=device).argsort(dim=1).argsort(dim=1)
        keep = (ranks >= few[:, None])[owner]  # (R * W, D)
        lengths = torch.bincount(owner, minlength=count + 1)  # (B + 1,)
        most = torch.tensor([[int(rate * n) for n in range(len(owner) + 1)] for rate in self.tokens], device=device)
        few = most[views, lengths]
        few[count] = 0
        order = torch.rand(len(owner), device=device).argsort()
        order = order[owner[order].argsort(stable=True)]  # text by text, the tokens of each at random
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order), device=device) - (lengths.cumsum(0) - lengths)[owner[order]]
        keep &= (place >= few[owner])[:, None]
        return output * keep.view_as(output)

    def detach(self) -> None:
        """Remove the hook."""
        if self._handle is not None:
            self._handle.remove()
        self._handle, self._encoder = None, None
