"""A text rebuilt from its vector by a weak decoder, beside masked language modelling (RetroMAE, Xiao et al. 2022)."""

from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mirror.config import Pooling, Rule
from mirror.encoder.backbone import longest_text
from mirror.encoder.encoder import MirrorEncoder
from mirror.encoder.packing import TokenBlock
from mirror.encoder.stages import TokenPooling
from mirror.errors import MirrorError
from mirror.pretraining.corpus import MaskedBatch
from mirror.pretraining.embeddings import sinusoids
from mirror.pretraining.heads import STD, VocabularyHead
from mirror.pretraining.objectives.base import Objective, Reading, Term, over_devices, true_ids
from mirror.pretraining.reader import MaskReader

LONGEST = 8192
"""Tokens of the longest text that ``batch.max_tokens`` allows."""
HIDDEN_UNITS = 4
"""Units of the decoder's feed-forward part over the width, as in BERT."""


class RetroMAE(Objective):
    """The cross entropy of the masked tokens, plus that of a decoder of one layer.

    The decoder sees the text's vector and the text with most of its tokens masked, too few to guess the others from:
    what it lacks, the vector must hold. Both losses count alike, as in the authors' ``src/pretrain/modeling.py``.
    The decoder has the model's token embeddings; its positions are fixed waves and its head is its own, where the
    authors have the model's.

    Args:
        model: is trained.
        encoder: its backbone with its tokenizer.
        share: of the tokens masked for the decoder (the paper: 0.5 to 0.7).
        pooling: ``mean`` or ``cls``, which makes the vector (the paper: ``cls``).
        enhanced: every token is guessed, each from others drawn for it alone (the paper's enhanced decoding); takes
            about twice as long.

    Raises:
        MirrorError: the token embeddings are not as wide as the states.
    """

    def __init__(
        self,
        model: Any,
        encoder: MirrorEncoder,
        share: Annotated[float, Rule(lambda share: 0 < share < 1, "above 0 and below 1")] = 0.5,
        pooling: Annotated[Pooling, Rule(lambda p: p in (Pooling.mean, Pooling.cls), "mean or cls")] = Pooling.mean,
        enhanced: bool = False,
    ) -> None:
        super().__init__()
        embeddings, width = model.get_input_embeddings(), int(model.config.hidden_size)
        if embeddings.embedding_dim != width:
            raise MirrorError(
                f"objective=retromae needs token embeddings as wide as the states: {encoder.name} has "
                f"{embeddings.embedding_dim} and {width}."
            )
        self.share, self.enhanced = share, enhanced
        if pooling is Pooling.cls:
            self.pooling = pooling
        self._vector = TokenPooling(pooling.value)
        self.decoder = DecoderLayer(width, int(model.config.num_attention_heads))
        self.norm = nn.LayerNorm(width)
        self.head = VocabularyHead(width, model.get_output_embeddings())
        longest = min(longest_text(encoder.backbone, encoder.tokenizer), LONGEST)
        waves = sinusoids(longest, width, float(embeddings.weight.detach().std()) / 2)
        self.register_buffer("waves", waves)  # kept in checkpoints: a run that goes on begins with other embeddings
        self.mask_id = encoder.tokenizer.mask_token_id
        special = torch.zeros(embeddings.num_embeddings, dtype=torch.bool)
        special[encoder.tokenizer.all_special_ids] = True
        self.register_buffer("special", special, persistent=False)

    waves: Tensor  # (positions, D)
    special: Tensor  # (vocabulary,), true for special tokens

    def forward(self, reader: MaskReader, batch: MaskedBatch) -> Reading:
        """Both losses; the second is ``decoder``."""
        reading = super().forward(reader, batch)
        losses, counts = [], []
        for block, places, targets, states in zip(
            batch.blocks, batch.places, batch.targets, reading.states, strict=True
        ):
            ids = true_ids(block, places, targets)
            vectors = self._vector(states, block, ())  # (B, D)
            wanted, decoded = self.decoded(reader.model, block, ids, vectors)
            scores = self.head(decoded, reader.model.get_output_embeddings()).float()  # (M, V)
            losses.append(F.cross_entropy(scores, ids.flatten()[wanted], reduction="sum"))
            counts.append(len(wanted))
        count = over_devices(torch.tensor(sum(counts), device=losses[0].device))
        return Reading({**reading.terms, "decoder": Term(torch.stack(losses).sum() / count)}, reading.states)

    def decoded(self, model: Any, block: TokenBlock, ids: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """What the decoder makes of a block.

        Args:
            model: has the token embeddings.
            block: its layout.
            ids: (R, W), without masks.
            vectors: (B, D), of its texts.

        Returns:
            (M,), the places among the R * W tokens that are to be guessed, and their states, (M, D).
        """
        ordinary = (block.text_index >= 0) & ~self.special[ids]
        mask = block.additive_mask(torch.float32)[:, 0]  # (R, W, W)
        lowest = torch.finfo(mask.dtype).min
        within = self.waves[block.position - block.position.min()]  # (R, W, D)
        first = torch.zeros_like(ids, dtype=torch.bool).flatten()
        first[block.cls_index] = True
        if self.enhanced:
            wanted = ordinary.flatten().nonzero()[:, 0]
            seen = torch.rand(mask.shape, device=ids.device) >= self.share
            seen |= first.view_as(ids)[:, None]  # each sees the vector, and never itself
            mask = mask.masked_fill(~seen | torch.eye(ids.shape[1], dtype=torch.bool, device=ids.device), lowest)
            read = ids
        else:
            hidden = ordinary & (torch.rand(ids.shape, device=ids.device) < self.share)
            wanted = hidden.flatten().nonzero()[:, 0]
            read = ids.masked_fill(hidden, self.mask_id)
        embedded = self.norm(model.get_input_embeddings()(read) + within)
        keys = embedded.flatten(0, 1).index_copy(0, block.cls_index, vectors.to(embedded.dtype)).view_as(embedded)
        queries = vectors[block.text_index.clamp(min=0)] + within if self.enhanced else keys
        return wanted, self.decoder(queries, keys, mask).flatten(0, 1)[wanted]


class DecoderLayer(nn.Module):
    """One layer of a transformer whose queries may be others than its keys.

    Args:
        width: of the states, D.
        heads: of the attention.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, HIDDEN_UNITS * width), nn.Linear(HIDDEN_UNITS * width, width)
        self.attended, self.fed = nn.LayerNorm(width), nn.LayerNorm(width)
        for layer in (self.query, self.key, self.value, self.out, self.up, self.down):
            nn.init.normal_(layer.weight, std=STD)
            nn.init.zeros_(layer.bias)

    def forward(self, queries: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
        """(R, W, D) of each to (R, W, D); ``mask`` (R, W, W) is added to the attention's scores."""

        def split(states: Tensor) -> Tensor:  # (R, H, W, D / H)
            return states.reshape(*states.shape[:2], self.heads, -1).transpose(1, 2)

        query, key, value = split(self.query(queries)), split(self.key(keys)), split(self.value(keys))
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None].to(query.dtype))
        states = self.attended(queries + self.out(found.transpose(1, 2).flatten(2)))
        fed: Tensor = self.fed(states + self.down(F.gelu(self.up(states))))
        return fed
