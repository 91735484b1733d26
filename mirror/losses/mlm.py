"""Masked language modelling of a batch's views, beside another loss (SimCSE, DeCLUTR)."""

from dataclasses import replace
from typing import Annotated, Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AutoModelForMaskedLM
from transformers.modeling_outputs import BaseModelOutput

from mirror.config import Rule
from mirror.data.batches import MirroredBatch, Parts
from mirror.encoder import hub
from mirror.encoder.backbone import load_weights, quiet
from mirror.encoder.encoder import MirrorEncoder
from mirror.encoder.packing import TokenBlock
from mirror.errors import MirrorError
from mirror.losses.base import Components, Loss
from mirror.losses.embedder import Embedder
from mirror.losses.gather import draw_together, world_size

MASKED, RANDOM = 0.8, 0.1
"""Of the tokens to guess, so many are masked and so many swapped; the others stay (Devlin et al. 2019)."""


class MaskedLanguageModel(Loss):
    """``weight`` times the mean cross entropy, in nats, of masked tokens of all views.

    A further pass through the backbone reads the views with their masks, and the head that the model came with guesses
    (Gao et al. 2021, ``simcse/models.py``; ``mask_tokens`` in ``train.py``). The head learns too and is left behind
    when the encoder is saved.

    Args:
        embedder: tells the model; is not kept.
        weight: of the cross entropy in the sum of the losses (``--mlm_weight`` of SimCSE: 0.1).
        share: probability that a token is to be guessed; never a special one.

    Raises:
        MirrorError: the model has no head that fills in masks, or no mask.
    """

    special: Tensor  # (vocabulary,), true for special tokens

    def __init__(
        self,
        embedder: Embedder,
        weight: Annotated[float, Rule(lambda weight: 0 < weight <= 1000, "above 0 and at most 1000")] = 0.1,
        share: Annotated[float, Rule(lambda share: 0 < share < 1, "above 0 and below 1")] = 0.15,
    ) -> None:
        super().__init__()
        self.weight, self.share = weight, share
        self.head = MaskHead(embedder.encoder)
        tokenizer = embedder.encoder.tokenizer
        self.mask_id, self.vocabulary = tokenizer.mask_token_id, len(tokenizer)
        special = torch.zeros(embedder.encoder.backbone.get_input_embeddings().num_embeddings, dtype=torch.bool)
        special[tokenizer.all_special_ids] = True
        self.register_buffer("special", special, persistent=False)

    def forward(self, embed: Embedder, batch: MirroredBatch) -> Components:
        """The weighted loss, and ``mlm``, the cross entropy."""
        parts = [part for parts in batch.sides for part in parts]
        draws = self._draws(batch.text_ids, parts)  # (3, VN, T)
        losses, counts, first = [], [], 0
        for part in parts:
            size = sum(len(block.texts) for block in part)
            for block in part:
                seen, chosen = self._masked(block, draws[:, first : first + size])
                wanted = block.inputs["input_ids"].flatten()[chosen]  # (K,)
                losses.append(self._loss(embed.encoder, seen, chosen, wanted, again=len(parts) > 1))
                counts.append(len(wanted))
            first += size
        total = torch.tensor(sum(counts), device=draws.device)
        if world_size() > 1:
            dist.all_reduce(total)
        mlm = torch.stack(losses).sum() / total.clamp(min=1) * world_size()
        return {"loss": self.weight * mlm, "mlm": mlm.detach()}

    @staticmethod
    def _draws(text_ids: Tensor, parts: Parts) -> Tensor:
        """Three uniform draws for each token of this device's views, (3, VN, T); T tokens are in the longest of all.

        Every device draws for all texts, so that a text's masks do not depend on who has it.
        """
        draw = draw_together(text_ids.shape[1], text_ids.device)
        longest = torch.stack([_within(block).max() for part in parts for block in part]).max() + 1
        if world_size() > 1:
            dist.all_reduce(longest, dist.ReduceOp.MAX)
        size = (3, len(text_ids), draw.total, int(longest))
        draws = torch.rand(size, generator=torch.Generator().manual_seed(draw.seed))
        return draws.to(text_ids.device)[:, :, draw.own].flatten(1, 2)

    def _masked(self, block: TokenBlock, draws: Tensor) -> tuple[TokenBlock, Tensor]:
        """What the model sees of a block, and the places among its R * W tokens that it is to guess, (K,).

        ``draws`` are those of the part that the block belongs to, (3, texts, T).
        """
        ids = block.inputs["input_ids"]  # (R, W)
        within = _within(block)
        # Of padding, some text's: it is not chosen anyway.
        choose, kind, other = draws[:, block.texts[block.text_index.clamp(min=0)], within]  # (R, W) each
        chosen = (choose < self.share) & (block.text_index >= 0) & ~self.special[ids]
        swapped = torch.where(kind < MASKED, self.mask_id, (other * self.vocabulary).long())
        seen = torch.where(chosen & (kind < MASKED + RANDOM), swapped, ids)
        inputs = {**block.inputs, "input_ids": seen}
        return replace(block, inputs=inputs), chosen.flatten().nonzero()[:, 0]

    def _loss(self, encoder: MirrorEncoder, seen: TokenBlock, places: Tensor, wanted: Tensor, *, again: bool) -> Tensor:
        """The sum of the cross entropies; of several parts each is encoded ``again`` for its gradient."""

        def loss(places: Tensor) -> Tensor:
            (states,) = encoder.states(seen, layered=False)  # (R, W, D)
            scores = self.head(states.flatten(0, 1)[places])  # (K, vocabulary)
            return F.cross_entropy(scores.float(), wanted, reduction="sum")

        if not (again and torch.is_grad_enabled()):
            return loss(places)
        found: Tensor = checkpoint(loss, places, use_reentrant=False)
        return found

    def describe(self) -> str:
        """Weight and share."""
        return f"masked language modelling, weight {self.weight:g}, {100 * self.share:g} % of the tokens"


def _within(block: TokenBlock) -> Tensor:
    """Each token's place in its text, (R, W); position ids begin at another number in some models."""
    return block.position - block.position.min()


class MaskHead(nn.Module):
    """States to scores over the vocabulary: what a masked language model has above its backbone.

    Args:
        encoder: its folder is read again for the head. Where the model ties the two, the head's last matrix is the
            embeddings of the encoder's own backbone.

    Raises:
        MirrorError: there is no head, or no mask.
    """

    def __init__(self, encoder: MirrorEncoder) -> None:
        super().__init__()
        given = f"auxiliary=mlm: {encoder.name}"
        refusal = f"{given} has no head that fills in masks: leave auxiliary out, or give a masked language model."
        if encoder.tokenizer.mask_token_id is None:
            raise MirrorError(refusal)
        try:
            with quiet():
                model, missing = load_weights(AutoModelForMaskedLM, hub.source_of(encoder.name, "model.path"), given)
        except ValueError as error:  # transformers has no masked language model of this type
            raise MirrorError(refusal) from error
        if missing:
            raise MirrorError(refusal)
        scores = model.get_output_embeddings()
        if model.config.tie_word_embeddings and scores is not None:
            scores.weight = encoder.backbone.get_input_embeddings().weight
        self.states = _Given()
        setattr(model, model.base_model_prefix, self.states)  # its own backbone goes
        self.model: Any = model

    def forward(self, states: Tensor) -> Tensor:
        """(K, D) to (K, vocabulary)."""
        self.states.output = BaseModelOutput(last_hidden_state=states[None])
        nothing = torch.zeros(1, len(states), dtype=torch.long, device=states.device)
        found: Tensor = self.model(input_ids=nothing, return_dict=True).logits[0]
        return found


class _Given(nn.Module):
    """In the place of a backbone: hands on what it is given."""

    output: BaseModelOutput

    def forward(self, *_: Any, **__: Any) -> BaseModelOutput:
        return self.output
