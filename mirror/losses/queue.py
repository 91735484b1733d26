"""Contrast with a queue of earlier keys from a momentum encoder (MoCo, ContraCode, ESimCSE)."""

import copy
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from mirror.config import Rule
from mirror.data.batches import MirroredBatch
from mirror.errors import MirrorError
from mirror.losses.base import Components, Loss, check_two_views
from mirror.losses.embedder import Embedder
from mirror.losses.gather import gather_in_order, world_size
from mirror.losses.infonce import Columns, Rows, contrasted

EMPTY = -1
"""Text number of a place in the queue that has not been filled yet."""


class Queue(Loss):
    """Each text's first view finds its positive among the keys of earlier batches.

    The keys come from a second encoder (with a head of its own) that follows the first one slowly. Two forms:

    - The positive is the key of the second view, and the queue holds the only negatives (MoCo, He et al. 2020,
      algorithm 1; ContraCode, Jain et al. 2021).
    - ``in_batch=true``: the positive is the second view through the encoder itself, the second views of the other texts
      are negatives, and the queue, with the keys of first views, holds further ones (ESimCSE, Wu et al. 2022, equation
      6; ``ESimCSE/esimcse/models.py``).

    The queue is empty at first: in the first step of the first form there is nothing to learn. The second encoder's
    dropout is that of the first; drophead and other perturbations reach the first one alone.

    Args:
        embedder: is copied.
        size: of the queue, in keys; 65,536 in MoCo, 160 in ESimCSE (2.5 batches).
        momentum: share of the second encoder's weights that stays in each step (0.999 in MoCo, 0.995 in ESimCSE).
        temperature: divides the cosine similarities (0.07 in MoCo, 0.05 in ESimCSE).
        in_batch: the batch's other texts are negatives beside the queue (ESimCSE), else the queue alone (MoCo).
        key_dropout: keys are made with dropout (MoCo), or without it (ESimCSE).
        mask_duplicates: keys of a row's own text, or of its positive, are not its negatives.
    """

    sides_apart = True

    keys: Tensor  # (size, D)
    text_ids: Tensor  # (size,)
    pointer: Tensor  # (), where the next key goes

    def __init__(
        self,
        embedder: Embedder,
        size: Annotated[int, Rule(lambda size: 1 <= size <= 2**20, "from 1 to 1048576")] = 4096,
        momentum: Annotated[float, Rule(lambda share: 0 <= share < 1, "at least 0 and below 1")] = 0.999,
        temperature: Annotated[float, Rule(lambda t: 0 < t <= 100, "above 0 and at most 100")] = 0.07,
        in_batch: bool = False,
        key_dropout: bool = True,
        mask_duplicates: bool = True,
    ) -> None:
        super().__init__()
        self.size, self.momentum, self.temperature = size, momentum, temperature
        self.in_batch, self.key_dropout, self.mask_duplicates = in_batch, key_dropout, mask_duplicates
        self.key_embed = copy.deepcopy(embedder).requires_grad_(False)
        self.register_buffer("keys", torch.zeros(size, self.key_embed.dimension))
        self.register_buffer("text_ids", torch.full((size,), EMPTY))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))

    def train(self, mode: bool = True) -> "Queue":
        """Training mode, but for the second encoder where its keys are to be without dropout."""
        super().train(mode)
        self.key_embed.train(mode and self.key_dropout)
        return self

    def forward(self, embed: Embedder, batch: MirroredBatch) -> Components:
        """One component, the loss. In training mode the batch's keys then enter the queue.

        Raises:
            MirrorError: the batch has other than two views of each text.
        """
        check_two_views(batch)
        self.key_embed.take_dropout(embed)
        keyed = 0 if self.in_batch else 1  # the view that the keys are made of
        vectors = embed(batch) if self.in_batch else embed.side(batch, 0)[None]  # (2 or 1, N, D)
        with torch.no_grad():
            key_vectors = self.key_embed.side(batch, keyed)[None]  # (1, N, D)
        with torch.autocast(vectors.device.type, enabled=False):
            unit = F.normalize(vectors.float(), dim=-1)
            keys = gather_in_order(F.normalize(key_vectors.float(), dim=-1), batch.text_ids)
            positives = gather_in_order(unit[1:], batch.text_ids).vectors[0] if self.in_batch else keys.vectors[0]
            # Without in_batch the keys of this batch are positives alone: nobody's negatives.
            blocked = torch.full_like(keys.text_ids[1], not self.in_batch, dtype=torch.bool)  # (M,)
            columns = Columns(
                torch.cat([positives, self.keys]),  # (M + size, D)
                torch.cat([keys.text_ids[1], self.text_ids]),
                torch.cat([blocked, self.text_ids == EMPTY]),
            )
            rows = Rows(unit[0], batch.text_ids.T, keys.own)
            loss = contrasted(rows, columns, self.temperature, mask_duplicates=self.mask_duplicates)
            loss = loss / len(positives) * world_size()
        if self.training:
            self._enter(keys.vectors[0], keys.text_ids[keyed])
        return {"loss": loss}

    def _enter(self, keys: Tensor, text_ids: Tensor) -> None:
        """Put keys, (M, D), in the places of the oldest; of more than the queue holds, the last."""
        keys, text_ids = keys[-self.size :], text_ids[-self.size :]
        places = (self.pointer + torch.arange(len(keys), device=keys.device)) % self.size
        self.keys[places], self.text_ids[places] = keys, text_ids
        self.pointer.add_(len(keys)).remainder_(self.size)

    def check_run(self, texts: int) -> None:
        """Every place of the queue should get a key.

        Raises:
            MirrorError: the run makes fewer keys than the queue holds.
        """
        if self.size > texts:
            raise MirrorError(
                f"loss.size={self.size}: the run takes {texts} texts in all and never fills this queue; lower it, or "
                "give more texts or epochs."
            )

    @torch.no_grad()
    def after_step(self, embed: Embedder) -> None:
        """Move the second encoder towards the first."""
        for mine, theirs in zip(self.key_embed.parameters(), embed.parameters(), strict=True):
            mine.lerp_(theirs, 1 - self.momentum)
        for buffer, source in zip(self.key_embed.buffers(), embed.buffers(), strict=True):
            buffer.copy_(source)

    def negatives(self, texts: int) -> int:
        """The queue once it is full, and with ``in_batch`` the other texts' second views."""
        return self.size + (texts - 1 if self.in_batch else 0)

    def describe(self) -> str:
        """Form, size, momentum and temperature."""
        form = "batch and queue" if self.in_batch else "queue"
        return f"{form} of {self.size} keys, momentum {self.momentum}, temperature {self.temperature}"
