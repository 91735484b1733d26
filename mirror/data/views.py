"""What makes the two views of a text differ: span masking of the input, dropout and drophead inside the model."""

import re
from collections.abc import Callable
from random import Random

import torch
from torch import Tensor, nn

from mirror.config import AugConfig, SpanUnit
from mirror.errors import MirrorError

Span = tuple[int, int]
"""Start and end of a unit within the raw string."""


def mask_span(text: str, rng: Random, aug: AugConfig, mask_token: str, token_spans: Callable[[str], list[Span]]) -> str:
    """Replace a random run of ``aug.span_k`` units of the raw string by the mask token (paper, section 2.1).

    Args:
        text: the raw string.
        rng: where the run starts is drawn from it; nothing is drawn where the text is left whole.
        aug: length and unit of the span, and the quirks of the authors' code.
        mask_token: the tokenizer's own.
        token_spans: the tokens of a string as spans, for ``aug.unit=token``.

    Returns:
        The masked string; the text itself where it is shorter than ``aug.min_chars`` or no longer than the span.
    """
    k = aug.span_k
    if k == 0 or len(text) < aug.min_chars:
        return text
    spans: list[Span]
    match aug.unit:
        case SpanUnit.character:
            spans = [(i, i + 1) for i in range(len(text))]
        case SpanUnit.token:
            spans = token_spans(text)
        case SpanUnit.word:
            spans = [match.span() for match in re.finditer(r"\S+", text)]
    if len(spans) <= k:
        return text
    first = rng.randrange(len(spans) - k + (0 if aug.spare_last else 1))
    start, end = spans[first][0], spans[first + k - 1][1]
    if aug.first_match:
        length, start = end - start, text.index(text[start:end])
        end = start + length
    mask = "[MASK]" if aug.literal_mask else mask_token
    if aug.spaced_mask:
        mask = f" {mask} "
    return text[:start] + mask + text[end:]


def set_dropout(backbone: nn.Module, rate: float) -> None:
    """Set every dropout inside a backbone: modules, and the rates that attention code reads from attributes."""
    for module in backbone.modules():
        if isinstance(module, nn.Dropout):
            module.p = rate
        for name, value in vars(module).items():
            if "dropout" in name and isinstance(value, float):
                setattr(module, name, rate)


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

    def __init__(self, backbone: nn.Module, rate: float) -> None:
        """Attach to every attention layer of ``backbone``.

        Raises:
            MirrorError: the backbone has no attention layer of a known form.
        """
        self.rate = rate
        self.text_index: Tensor | None = None  # (R, W), set before each forward pass, and so is the number of its texts
        self.texts = 0
        self.heads: int = getattr(getattr(backbone, "config", None), "num_attention_heads", 0)
        layers = [layer for name, layer in backbone.named_modules() if ATTENTION_OUTPUT.search(name)]
        if not layers or not self.heads:
            raise MirrorError(
                f"aug.drophead={rate} does not work with {type(backbone).__name__}: its attention layers are not "
                "known; set aug.drophead=0 and use aug.dropout."
            )
        self.handles = [layer.register_forward_pre_hook(self._drop) for layer in layers]

    def _drop(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if not layer.training or self.rate == 0:
            return None
        assert self.text_index is not None
        heads_in = inputs[0]  # (R, W, H * D)
        draw = torch.rand(self.texts + 1, self.heads, device=heads_in.device)  # one row is padding's
        keep = (draw >= self.rate) | (draw == draw.amax(dim=1, keepdim=True))
        scale = keep * (self.heads / keep.sum(dim=1, keepdim=True))  # (B + 1, H)
        per_token = scale.to(heads_in.dtype)[self.text_index]  # (R, W, H); padding, -1, takes the last row
        split = heads_in.unflatten(-1, (self.heads, -1)) * per_token.unsqueeze(-1)  # (R, W, H, D)
        return (split.flatten(-2), *inputs[1:])

    def remove(self) -> None:
        """Detach from the backbone."""
        for handle in self.handles:
            handle.remove()
