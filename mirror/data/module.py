"""The batches of a run in order, as Lightning takes them."""

import logging
import os
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Sampler

from mirror.config import BatchConfig
from mirror.data.batches import MirroredBatch, MirroredPairs
from mirror.data.texts import TextTable
from mirror.data.views import Views
from mirror.encoder.layout import Layout
from mirror.errors import MirrorError

log = logging.getLogger(__name__)

T = TypeVar("T")


class StepSampler(Sampler[T]):
    """The keys of a run's batches in order, over all its epochs; a resumed run begins where its checkpoint stands.

    Args:
        steps: in all.
        first: those before it are done.
        key: of the batch of a step.
    """

    def __init__(self, steps: int, first: int, key: Callable[[int], T]) -> None:
        self.steps, self.first, self.key = steps, first, key

    def __len__(self) -> int:
        return self.steps  # Lightning adds the steps done to those it fetches, and stops at this length

    def __iter__(self) -> Iterator[T]:
        return map(self.key, range(self.first, self.steps))


def _worker(number: int) -> None:
    """The tokenizer's threads do not survive the fork that made this worker."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


class MirrorData(pl.LightningDataModule):
    """The training texts as mirrored batches.

    The run may ask for another number of ``steps`` than an epoch has, and go on after the ``first`` of them.
    """

    def __init__(
        self,
        table: TextTable,
        layout: Layout,
        views: Views,
        batch: BatchConfig,
        seed: int,
        *,
        template: str | None = None,
        apart: bool = False,
        pin_memory: bool = False,
    ) -> None:
        """The arguments are those of ``MirroredPairs``."""
        super().__init__()
        self.batch, self.pin_memory = batch, pin_memory
        self.batches = MirroredPairs(table.pairs, layout, views, batch, seed, template=template, apart=apart)
        self.steps, self.first = self.batches.steps, 0
        if len(table.pairs) < batch.size:
            log.warning(
                "Fewer texts (%d) than batch.size=%d: one smaller batch an epoch, so fewer negatives.",
                len(table.pairs),
                batch.size,
            )

    def train_dataloader(self) -> DataLoader[MirroredBatch]:
        """Ready batches, one an item."""
        if self.trainer is not None:
            self.batches.rank, self.batches.world = self.trainer.global_rank, self.trainer.world_size
            if len(self.batches.pairs) < self.batches.world:
                raise MirrorError(
                    f"{len(self.batches.pairs)} texts do not serve {self.batches.world} devices: give more."
                )
        workers = self.batch.workers
        return DataLoader(
            self.batches,
            batch_size=None,
            sampler=StepSampler(self.steps, self.first, self.batches.key),
            num_workers=workers,
            worker_init_fn=_worker if workers else None,
            pin_memory=self.pin_memory,
        )

    def transfer_batch_to_device(
        self, batch: MirroredBatch, device: torch.device, dataloader_idx: int
    ) -> MirroredBatch:
        """Batches move themselves."""
        return batch.to(device)
