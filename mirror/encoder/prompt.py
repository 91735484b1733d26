"""Texts in a sentence of their own: the encoder reads the state of its mask token (PromptBERT)."""

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from mirror.config import Rule
from mirror.encoder.packing import ROW, TokenBlock, pad
from mirror.encoder.perturb import Perturbable
from mirror.encoder.stages import Stage
from mirror.errors import MirrorError

Template = Annotated[
    str,
    Rule(
        lambda text: text.count("{text}") == 1 == text.count("{mask}"),
        "a sentence that holds {text} and {mask} once each",
    ),
]


class MaskPooling(Stage):
    """A text stands in a template, and its vector is the last layer's state of the mask token there (Jiang et al. 2022,
    PromptBERT, arXiv 2201.04337; ``prompt_bert/models.py`` in kongds/Prompt-BERT).

    The template is a part of the encoder: whatever it encodes is put into it, and it is saved with the encoder.
    Sentence-transformers has no such module: the folder loads with mirror alone.

    Args:
        mask_id: of the tokenizer's mask token.
        template: holds ``{text}`` and ``{mask}``, once each.

    Raises:
        MirrorError: there is no mask token.
    """

    template: str

    def __init__(self, mask_id: int | None, template: Template = 'This sentence of "{text}" means {mask}.') -> None:
        super().__init__()
        if mask_id is None:
            raise MirrorError(
                "model/pooling=mask: the model's tokenizer has no mask token; choose another model or pooling."
            )
        self.mask_id, self.template = mask_id, template
        # A text may hold a mask token itself.
        self._last = template.index("{text}") < template.index("{mask}")

    def forward(self, vectors: Tensor, block: TokenBlock, layers: Sequence[Tensor]) -> Tensor:
        """(R, W, D) to (B, D)."""
        count, ids = len(block.texts), block.inputs["input_ids"].flatten()
        owner = block.text_index.flatten()
        owner = owner.where((owner >= 0) & (ids == self.mask_id), count)  # all other tokens are one more text, the last
        place = torch.arange(len(ids), device=ids.device)
        found = place.new_full((count + 1,), -1 if self._last else len(ids))
        found = found.scatter_reduce(0, owner, place, "amax" if self._last else "amin")
        return vectors.flatten(0, 1)[found[:count]]


class Denoising:
    """While it learns, a text's state of the mask token loses what the template alone would give, whose tokens behind
    the text stand at the same positions as with the text (PromptBERT; ``get_delta`` in ``prompt_bert/models.py`` of
    kongds/Prompt-BERT). Models without position ids get the template without the gap.

    Args:
        templates: one of each view.
    """

    def __init__(self, templates: Sequence[str]) -> None:
        self.templates = templates
        self._handle: RemovableHandle | None = None
        self._encoder: Perturbable | None = None

    def attach(self, encoder: Perturbable) -> None:
        """Hook the pooling at the mask token."""
        stage = next(stage for stage in encoder.pooling.stages if stage.template)
        self._frames = [encoder.layout.frame(template) for template in self.templates]
        self._first = encoder.layout.first_position(ROW)
        self._encoder, self._handle = encoder, stage.register_forward_hook(self._subtract)

    def _subtract(self, stage: Any, inputs: tuple[Any, ...], output: Tensor) -> Tensor | None:
        encoder, block = self._encoder, inputs[1]
        assert encoder is not None
        if not stage.training:
            return None
        owner = block.text_index.flatten()
        lengths = torch.bincount(owner[owner >= 0], minlength=len(block.texts))  # (B,), template included
        kinds, kind = torch.unique(torch.stack([block.views, lengths]), dim=1, return_inverse=True)  # (2, K), (B,)
        bare = self._bare(kinds.T.tolist()).to(output.device)
        arguments: dict[str, Any] = {**bare.inputs, "attention_mask": (bare.text_index >= 0).long()}
        if self._first is not None:
            arguments["position_ids"] = bare.position + self._first
        encoder.block = bare
        states = encoder.backbone(**arguments, return_dict=True).last_hidden_state
        encoder.block = block
        noise: Tensor = stage.forward(states, bare, [states])[bare.texts.argsort()]  # (K, D)
        rest: Tensor = output - noise[kind]
        return rest

    def _bare(self, kinds: list[list[int]]) -> TokenBlock:
        """Templates without a text, one for each view and length."""
        assert self._encoder is not None
        layout = self._encoder.layout
        frames = [self._frames[view] for view, _ in kinds]
        tokens = {name: [before[name] + after[name] for before, after in frames] for name in frames[0][0]}
        (block,) = pad(tokens, pad_id=layout.tokenizer.pad_token_id, cls_id=None, bucket=len(kinds))
        for row, text in enumerate(block.texts.tolist()):
            gap = kinds[text][1] - len(tokens["input_ids"][text])
            block.position[row, len(frames[text][0]["input_ids"]) :] += gap
        block.views = torch.tensor([kinds[text][0] for text in block.texts.tolist()])
        return block

    def detach(self) -> None:
        """Remove the hook."""
        if self._handle is not None:
            self._handle.remove()
        self._handle, self._encoder = None, None
