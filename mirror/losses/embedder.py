"""The views of a batch to vectors: encoder, gradient caching, projection head."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mirror.data.batches import MirroredBatch, Parts
from mirror.encoder.encoder import MirrorEncoder
from mirror.encoder.packing import TokenBlock
from mirror.encoder.pooling import TextPooling


class Embedder(nn.Module):
    """An encoder with its projection head, as a loss sees it. The head is left behind when the encoder is saved.

    Args:
        encoder: texts to vectors.
        head: vectors to vectors, (N, D) to (N, D'); None is none.
    """

    def __init__(self, encoder: MirrorEncoder, head: nn.Module | None = None) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(self, batch: MirroredBatch) -> Tensor:
        """The vectors of all views, (V, N, D)."""
        return self.with_layers(batch, [])[0]

    def with_layers(self, batch: MirroredBatch, poolings: Sequence[TextPooling]) -> list[Tensor]:
        """The vectors of all views, (V, N, D), and those by each further pooling, which pass no projection head, from
        one pass through the backbone."""
        if len(batch.sides) == 1:
            return [found.unflatten(0, batch.text_ids.shape) for found in self._embed(batch.sides[0], poolings)]
        sides = [self._embed(parts, poolings) for parts in batch.sides]
        return [torch.stack(found) for found in zip(*sides, strict=True)]

    def side(self, batch: MirroredBatch, side: int) -> Tensor:
        """The vectors of one view of each text, (N, D), of a batch whose sides are apart."""
        return self._embed(batch.sides[side])[0]

    @property
    def dimension(self) -> int:
        """D of the vectors that a loss sees."""
        if self.head is None:
            return self.encoder.dimension
        weights, mode = next(self.encoder.parameters()), self.head.training
        with torch.no_grad():
            size = self.head.eval()(weights.new_zeros(1, self.encoder.dimension)).shape[-1]
        self.head.train(mode)
        return int(size)

    def take_dropout(self, embed: "Embedder") -> None:
        """Set the dropout of a copy to that of the encoder it was made of, which a run sets after the copy is made."""
        for mine, theirs in zip(self.encoder.backbone.modules(), embed.encoder.backbone.modules(), strict=True):
            for name, value in vars(theirs).items():
                if isinstance(value, float) and ("dropout" in name or (name == "p" and isinstance(theirs, nn.Dropout))):
                    setattr(mine, name, value)

    def _embed(self, parts: Parts, poolings: Sequence[TextPooling] = ()) -> list[Tensor]:
        """Several parts are encoded one after the other and encoded again for their gradients, with the same dropout
        (gradient caching, Gao et al. 2021): the activations of only one part are held."""
        if len(parts) == 1 or not torch.is_grad_enabled():
            found = [self._encode(part, poolings) for part in parts]
        else:
            # checkpoint keeps the random state of the devices of the tensors among its arguments; in a block it finds
            # none.
            found = [
                checkpoint(self._encode, part, poolings, part[0].text_index, use_reentrant=False) for part in parts
            ]
        vectors, *others = [torch.cat(parts) for parts in zip(*found, strict=True)]  # (N, D) each
        return [vectors if self.head is None else self.head(vectors), *others]

    def _encode(
        self, part: list[TokenBlock], poolings: Sequence[TextPooling], device_of: Tensor | None = None
    ) -> list[Tensor]:
        return self.encoder.pooled(part, [self.encoder.pooling, *poolings]) if poolings else [self.encoder(part)]
