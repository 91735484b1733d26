"""Mirrored batches: 200 texts, each twice, one side of each pair with a masked span, laid into rows.

Every batch follows from (seed, epoch, number of the batch) alone: the number of workers, of devices and of
batches before it make no difference.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from mirror.config import AugConfig, BatchConfig
from mirror.data.texts import LongPairs, Pair, TextTable
from mirror.data.views import mask_span
from mirror.encoder.encoder import MirrorEncoder
from mirror.encoder.packing import TokenBlock, Tokens, join, row_width, select
from mirror.errors import MirrorError
from mirror.runs.sharing import fingerprint, shared

log = logging.getLogger(__name__)


class BatchKey(NamedTuple):
    """Which batch: what a worker needs to make it."""

    epoch: int
    step: int


@dataclass
class MirroredBatch:
    """N texts as 2N views."""

    parts: list[list[TokenBlock]]
    """2N texts, the left views, then the right views in the same order; each part is encoded at a time."""
    texts: Tensor
    """(2N,): equal numbers for equal texts."""
    masked: int
    """Views with a masked span."""

    def to(self, device: torch.device) -> "MirroredBatch":
        """The same batch on a device."""
        parts = [[block.to(device) for block in part] for part in self.parts]
        return MirroredBatch(parts, self.texts.to(device, non_blocking=True), self.masked)

    def pin_memory(self) -> "MirroredBatch":
        """The same batch where a GPU fetches it without the program waiting; called by torch's data loader."""
        parts = [[block.pin_memory() for block in part] for part in self.parts]
        return MirroredBatch(parts, self.texts.pin_memory(), self.masked)


class MirroredPairs(Dataset[MirroredBatch]):
    """Makes batches from their keys.

    Args:
        pairs: the texts with their positives.
        encoder: tokenises and lays into rows.
        aug: span masking.
        batch: sizes; ``batch.size`` counts the texts of all devices together.
        seed: of the order and the masks.
        rank: this device; it makes every ``world``-th pair of each batch.
        world: number of devices.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        encoder: MirrorEncoder,
        aug: AugConfig,
        batch: BatchConfig,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.pairs, self.encoder, self.aug, self.batch = pairs, encoder, aug, batch
        self.seed, self.rank, self.world = seed, rank, world
        self.tokens: Tokens | None = None
        self.max_tokens = longest = batch.max_tokens
        if not isinstance(pairs, LongPairs):
            # Each text is tokenised once for the whole run; only masked views are tokenised as they are drawn.
            self.numbers = _number(pairs)
            key = (encoder.name, encoder.max_tokens, batch.max_tokens, fingerprint(self.numbers))
            tokens = shared("tokens", key, lambda: encoder.tokenize(list(self.numbers), batch.max_tokens))
            self.tokens = tokens
            longest = row_width(max(len(ids) for ids in tokens["input_ids"]))
            self.max_tokens = min(batch.max_tokens, longest)
        encoder.settle(longest)
        self._order: tuple[int, list[int]] = (-1, [])

    def reseed(self, seed: int) -> None:
        """Another order and other masks, for another training on the same texts."""
        self.seed, self._order = seed, (-1, [])

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        full, rest = divmod(len(self.pairs), self.batch.size)
        if full == 0:
            return 1
        # A last batch must give every device a text and every text a negative.
        return full + (rest >= max(2, self.world) and not self.batch.drop_last)

    def chosen(self, key: BatchKey) -> list[int]:
        """The pairs in a batch, over all devices."""
        if self._order[0] != key.epoch:
            order = list(range(len(self.pairs)))
            Random(f"order {self.seed} {key.epoch}").shuffle(order)
            self._order = (key.epoch, order)
        return self._order[1][key.step * self.batch.size : (key.step + 1) * self.batch.size]

    def texts(self, key: BatchKey) -> list[Pair]:
        """Their texts."""
        chosen = self.chosen(key)
        return self.pairs.take(chosen) if isinstance(self.pairs, LongPairs) else [self.pairs[i] for i in chosen]

    def views(self, key: BatchKey, pairs: Sequence[Pair]) -> tuple[list[str | None], list[str | None]]:
        """The left and the right views of a batch's texts as masked strings; None where a text is left whole."""
        rng = Random(f"mask {self.seed} {key.epoch} {key.step}")
        sides: tuple[list[str | None], list[str | None]] = ([], [])
        mask_token = self.encoder.tokenizer.mask_token or ""
        for pair in pairs:
            drawn = rng.randrange(2)
            text = pair[drawn]
            masked = mask_span(text, rng, self.aug, mask_token, self.encoder.token_spans)
            sides[drawn].append(masked if masked != text else None)
            sides[1 - drawn].append(None)
        return sides

    def __getitem__(self, key: BatchKey) -> MirroredBatch:
        """This device's share of a batch."""
        share = slice(self.rank, None, self.world)
        pairs = self.texts(key)
        texts = [pair[side] for side in (0, 1) for pair in pairs[share]]
        views = [view for side in self.views(key, pairs) for view in side[share]]
        if self.tokens is None:
            numbers = _number(pairs)  # by the whole batch, so that the devices agree
            views_or_texts = [text if view is None else view for view, text in zip(views, texts, strict=True)]
            tokens = self.encoder.tokenize(views_or_texts, self.max_tokens)
        else:
            numbers = self.numbers
            tokens = self._tokens(self.tokens, [numbers[text] for text in texts], views)
        # Parts of at most ``batch.micro`` texts, two views each; as many on every device, since devices that share the
        # weights out go through the model together.
        largest = -(-len(pairs) // self.world)
        count = -(-largest // (self.batch.micro or largest))
        cuts = [len(texts) * i // count for i in range(count + 1)]
        return MirroredBatch(
            parts=[self.encoder.blocks(select(tokens, range(*ends))) for ends in pairwise(cuts)],
            texts=torch.tensor([numbers[text] for text in texts]),
            masked=sum(view is not None for view in views),
        )

    def _tokens(self, ready: Tokens, numbers: list[int], views: list[str | None]) -> Tokens:
        whole = select(ready, numbers)
        masked = [i for i, view in enumerate(views) if view is not None]
        if not masked:
            return whole
        drawn = self.encoder.tokenize([view for view in views if view is not None], self.max_tokens)
        place = list(range(len(numbers)))
        for k, i in enumerate(masked):
            place[i] = len(numbers) + k
        return select(join(whole, drawn), place)


def _number(pairs: Sequence[Pair]) -> dict[str, int]:
    """Equal texts have equal numbers."""
    numbers: dict[str, int] = {}
    for pair in pairs:
        for text in pair:
            numbers.setdefault(text, len(numbers))
    return numbers


class KeySampler(Sampler[BatchKey]):
    """The keys of a run's batches in order, over all its epochs; a resumed run begins where its checkpoint stands."""

    def __init__(self, epoch: int, steps: int, first: int = 0) -> None:
        """``epoch`` steps an epoch and ``steps`` in all; those before ``first`` are done."""
        self.epoch, self.steps, self.first = epoch, steps, first

    def __len__(self) -> int:
        return self.steps  # Lightning adds the steps done to those it fetches, and stops at this length

    def __iter__(self) -> Iterator[BatchKey]:
        return (BatchKey(*divmod(step, self.epoch)) for step in range(self.first, self.steps))


def _worker(number: int) -> None:
    """The tokenizer's threads do not survive the fork that made this worker."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


class MirrorData(pl.LightningDataModule):
    """The training texts as mirrored batches, and the validation set.

    The run may ask for another number of ``steps`` than an epoch has, and go on after the ``first`` of them.
    """

    def __init__(
        self,
        table: TextTable,
        encoder: MirrorEncoder,
        aug: AugConfig,
        batch: BatchConfig,
        seed: int,
        validation: Any = None,
    ) -> None:
        """Validation is a set of ``mirror.evaluation``, or None."""
        super().__init__()
        self.batch, self.validation = batch, validation
        self.pairs = MirroredPairs(table.pairs, encoder, aug, batch, seed)
        self.steps, self.first = self.pairs.steps, 0
        if len(table.pairs) < batch.size:
            log.warning(
                "Fewer texts (%d) than batch.size=%d: one smaller batch an epoch, so fewer negatives.",
                len(table.pairs),
                batch.size,
            )

    def train_dataloader(self) -> DataLoader[MirroredBatch]:
        """Ready batches, one an item."""
        if self.trainer is not None:
            self.pairs.rank, self.pairs.world = self.trainer.global_rank, self.trainer.world_size
            if len(self.pairs.pairs) < self.pairs.world:
                raise MirrorError(f"{len(self.pairs.pairs)} texts do not serve {self.pairs.world} devices: give more.")
        workers = self.batch.workers
        return DataLoader(
            self.pairs,
            batch_size=None,
            sampler=KeySampler(self.pairs.steps, self.steps, self.first),
            num_workers=workers,
            worker_init_fn=_worker if workers else None,
            pin_memory=self.pairs.encoder.device.type == "cuda",
        )

    def val_dataloader(self) -> Any:
        """The validation set as the only item."""
        sets: Any = [self.validation]
        return DataLoader(sets, batch_size=None) if self.validation is not None else []

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Batches move themselves; a validation set stays."""
        return batch.to(device) if isinstance(batch, MirroredBatch) else batch
