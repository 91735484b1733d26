"""The texts as pieces of token ids, and the masked batches made of them."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from mirror.config import BagConfig, MaskingConfig, PretrainBatchConfig
from mirror.data.module import StepSampler
from mirror.encoder.encoder import MirrorEncoder
from mirror.encoder.packing import TokenBlock, Tokens
from mirror.errors import MirrorError
from mirror.pretraining.masking import choose_tokens, corrupt
from mirror.pretraining.tokenizer import opens_word

CHUNK = 1000
"""Texts tokenised at once."""


@dataclass
class Corpus:
    """Pieces of texts, none longer than a row takes: P pieces of T tokens in all."""

    ids: NDArray[Any]
    """(T,), without special tokens; two bytes each where the vocabulary allows."""
    starts: NDArray[np.int64]
    """(P + 1,): piece p is ``ids[starts[p]:starts[p + 1]]``."""
    texts: NDArray[np.int64]
    """(P,): the text that a piece is of; those of one text stand together."""

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(P,), tokens of each piece."""
        return np.diff(self.starts)

    @property
    def fingerprint(self) -> int:
        """Identifies the text and the tokenizer."""
        return zlib.crc32(self.ids.tobytes())


def tokenize_corpus(texts: Sequence[str], tokenizer: Any, max_tokens: int, *, progress: bool) -> Corpus:
    """Token ids of the texts; a text of more than ``max_tokens`` becomes several pieces of nearly the same length."""
    longest = max_tokens - tokenizer.num_special_tokens_to_add()
    parts: list[NDArray[Any]] = []
    lengths: list[int] = []
    texts_of: list[int] = []
    for first in tqdm(range(0, len(texts), CHUNK), "tokenising", unit_scale=CHUNK, disable=not progress, leave=False):
        encoded = tokenizer(
            list(texts[first : first + CHUNK]), add_special_tokens=False, return_attention_mask=False, verbose=False
        )
        for ids in encoded["input_ids"]:
            if ids:
                parts.append(np.array(ids, dtype=_kind_of_ids(tokenizer)))
                pieces = -(-len(ids) // longest)
                texts_of += [len(parts)] * pieces
                lengths += [len(ids) * (i + 1) // pieces - len(ids) * i // pieces for i in range(pieces)]
    return joined(parts, lengths, tokenizer, texts_of)


def joined(parts: Sequence[Any], lengths: Sequence[int], tokenizer: Any, texts: Sequence[int] | None = None) -> Corpus:
    """Lists of token ids as a corpus of pieces of the given lengths, each a text of its own unless ``texts`` says which
    it is of."""
    dtype = _kind_of_ids(tokenizer)
    flat = np.concatenate([np.asarray(part, dtype=dtype) for part in parts]) if parts else np.empty(0, dtype)
    owners = np.arange(len(lengths)) if texts is None else np.asarray(texts, dtype=np.int64)
    return Corpus(flat, np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]), owners)


def _kind_of_ids(tokenizer: Any) -> type[np.unsignedinteger[Any]]:
    return np.uint16 if len(tokenizer) <= 2**16 else np.uint32


def frame(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The special tokens before and behind a text."""
    alone, whole = tokenizer("a", add_special_tokens=False)["input_ids"], tokenizer("a")["input_ids"]
    place = next(i for i in range(len(whole)) if whole[i : i + len(alone)] == alone)
    return whole[:place], whole[place + len(alone) :]


@dataclass
class MaskedBatch:
    """Blocks of tokens, some of them masked, and the tokens that the model must predict."""

    blocks: list[TokenBlock]
    places: list[Tensor]
    """For each block (M,), the indices of the tokens to predict among its R * W tokens."""
    targets: list[Tensor]
    """For each block (M,), the ids of those tokens."""
    words: list[Tensor]
    """For each block (2, L), the bags of words: which of the block's B texts, and a token's id, once a text."""
    count: int
    """Tokens to predict in the whole batch, over all devices."""
    word_count: int
    """Entries of the bags of words in the whole batch, over all devices."""
    tokens: int
    """Real tokens on this device."""

    def to(self, device: torch.device) -> "MaskedBatch":
        """The same batch on a device."""
        return MaskedBatch(
            [block.to(device) for block in self.blocks],
            [places.to(device, non_blocking=True) for places in self.places],
            [targets.to(device, non_blocking=True) for targets in self.targets],
            [words.to(device, non_blocking=True) for words in self.words],
            self.count,
            self.word_count,
            self.tokens,
        )

    def pin_memory(self) -> "MaskedBatch":
        """The same batch where a GPU fetches it without the program waiting; called by torch's data loader."""
        return MaskedBatch(
            [block.pin_memory() for block in self.blocks],
            [places.pin_memory() for places in self.places],
            [targets.pin_memory() for targets in self.targets],
            [words.pin_memory() for words in self.words],
            self.count,
            self.word_count,
            self.tokens,
        )


class MaskedBatches(Dataset[MaskedBatch]):
    """The batches of a run by their step: a step always gives the same batch, masks included.

    Args:
        corpus: the pieces.
        encoder: lays tokens into rows.
        batch: tokens in a batch, over all devices.
        masking: what is masked.
        seed: of order and masks.
        bags: what the bags of words hold.
    """

    def __init__(
        self,
        corpus: Corpus,
        encoder: MirrorEncoder,
        batch: PretrainBatchConfig,
        masking: MaskingConfig,
        seed: int,
        bags: BagConfig | None = None,
    ) -> None:
        self.corpus, self.encoder, self.batch, self.masking, self.seed = corpus, encoder, batch, masking, seed
        self.bags = bags or BagConfig()
        self.rank, self.world = 0, 1
        self.run_steps = 1
        """Steps of the whole run, over which the share of masks moves."""
        tokenizer = encoder.tokenizer
        self.prefix, self.suffix = frame(tokenizer)
        self.lengths = corpus.lengths + len(self.prefix) + len(self.suffix)
        self.opens = np.array(opens_word(tokenizer))
        self.ordinary = np.setdiff1d(np.arange(len(tokenizer)), tokenizer.all_special_ids)
        self._kept = None if self.bags.sample is None else sampled(corpus, len(tokenizer), self.bags.sample)
        self._order: tuple[int, NDArray[np.int64], NDArray[np.int64]] | None = None
        encoder.layout.probe(int(self.lengths.max(initial=1)))

    @property
    def tokens(self) -> int:
        """Tokens in an epoch, special ones included."""
        return int(self.lengths.sum())

    @property
    def steps(self) -> int:
        """Batches in an epoch; the last one may be small."""
        return -(-self.tokens // self.batch.tokens)

    def pieces(self, step: int) -> NDArray[np.int64]:
        """The pieces in a batch, over all devices."""
        epoch, place = divmod(step, self.steps)
        if self._order is None or self._order[0] != epoch:
            order = np.random.default_rng((self.seed, epoch)).permutation(len(self.corpus))
            # A piece belongs to the batch in which its last token falls.
            ends = (np.cumsum(self.lengths[order]) - 1) // self.batch.tokens
            self._order = (epoch, order, np.searchsorted(ends, np.arange(self.steps + 1)))
        _, order, cuts = self._order
        return np.asarray(order[cuts[place] : cuts[place + 1]])

    def __getitem__(self, step: int) -> MaskedBatch:
        """This device's share of the batch of a step."""
        pieces = self.pieces(step)
        starts = self.corpus.starts
        rows = [
            np.concatenate([self.prefix, self.corpus.ids[starts[p] : starts[p + 1]], self.suffix]).astype(np.int64)
            for p in pieces
        ]
        ids, text = np.concatenate(rows), np.repeat(np.arange(len(rows)), [len(row) for row in rows])
        rng = np.random.default_rng((self.seed, 1, step))
        special = np.isin(ids, self.encoder.tokenizer.all_special_ids)
        masking = self.masking.at(min(step / max(self.run_steps - 1, 1), 1.0))
        chosen = choose_tokens(text, special, self.opens[ids], masking, rng)
        seen = corrupt(ids, chosen, self.encoder.tokenizer.mask_token_id, self.ordinary, masking, rng)
        wanted = np.where(chosen, ids + 1, 0)  # travels through the packing as one more kind of id; 0 is none
        cuts = np.cumsum([len(row) for row in rows])[:-1]
        vocabulary = len(self.encoder.tokenizer)
        held = (text * vocabulary + ids)[~special]
        if self.bags.neighbours:
            held = np.concatenate([held, *(row * vocabulary + self._around(p) for row, p in enumerate(pieces))])
        held = np.unique(held)  # each text's different tokens
        if self._kept is not None:
            held = held[rng.random(len(held)) < self._kept[held % vocabulary]]
        bags = np.split(held % vocabulary, np.searchsorted(held // vocabulary, np.arange(1, len(rows))))
        mine = range(self.rank, len(rows), self.world)
        if not mine:  # the last batch has fewer pieces than devices: give this one a piece without masks
            mine, wanted, bags = range(1), np.zeros_like(wanted), [held[:0]]
        seen_parts, wanted_parts = np.split(seen, cuts), np.split(wanted, cuts)
        tokens: Tokens = {
            "input_ids": [seen_parts[i].tolist() for i in mine],
            "wanted": [wanted_parts[i].tolist() for i in mine],
        }
        blocks = self.encoder.layout.blocks(tokens)
        flat = [block.inputs.pop("wanted").flatten() for block in blocks]
        places = [labels.nonzero().flatten() for labels in flat]
        return MaskedBatch(
            blocks,
            places,
            [labels[at] - 1 for labels, at in zip(flat, places, strict=True)],
            [_laid([bags[mine[i]] for i in block.texts.tolist()]) for block in blocks],
            count=int(chosen.sum()),
            word_count=len(held),
            tokens=sum(len(row) for row in tokens["input_ids"]),
        )

    def _around(self, piece: int) -> NDArray[np.int64]:
        """The tokens of the pieces before and after one, in its text."""
        texts, starts = self.corpus.texts, self.corpus.starts
        beside = [p for p in (piece - 1, piece + 1) if 0 <= p < len(texts) and texts[p] == texts[piece]]
        none = np.empty(0, dtype=np.int64)
        return np.concatenate([none, *(self.corpus.ids[starts[p] : starts[p + 1]] for p in beside)]).astype(np.int64)


def sampled(corpus: Corpus, vocabulary: int, share: float) -> NDArray[np.float64]:
    """With which probability each entry of the vocabulary stays in a bag, (V,); see ``BagConfig.sample``."""
    counts = np.bincount(corpus.ids.astype(np.int64), minlength=vocabulary) + 1.0
    return np.asarray(np.minimum(1.0, np.sqrt(share * counts.sum() / counts)))


def _laid(bags: Sequence[NDArray[np.int64]]) -> Tensor:
    """Bags of words as (2, L): which of the bags, and what is in it."""
    owner = np.repeat(np.arange(len(bags)), [len(bag) for bag in bags])
    return torch.from_numpy(np.stack([owner, np.concatenate(bags)]))


class CorpusData(pl.LightningDataModule):
    """Training batches by step, and the held-out texts as batches whose masks never change."""

    def __init__(
        self, training: MaskedBatches, validation: MaskedBatches | None, steps: int, first: int, workers: int
    ) -> None:
        """``steps`` in the run, the first of them ``first``."""
        super().__init__()
        self.training, self.validation = training, validation
        self.steps, self.first, self.workers = steps, first, workers

    def train_dataloader(self) -> DataLoader[MaskedBatch]:
        """Batches; the data loader must not batch again."""
        if self.trainer is not None:
            self.training.rank, self.training.world = self.trainer.global_rank, self.trainer.world_size
            if len(self.training.pieces(0)) < self.training.world:
                raise MirrorError(
                    f"batch.tokens={self.training.batch.tokens} does not serve {self.training.world} devices: raise it."
                )
        return DataLoader(
            self.training,
            batch_size=None,
            sampler=StepSampler(self.steps, self.first, int),
            num_workers=self.workers,
            pin_memory=self.training.encoder.device.type == "cuda",
        )

    def val_dataloader(self) -> Any:
        """The held-out batches, all of them on every device."""
        if self.validation is None:
            return []
        return DataLoader(self.validation, batch_size=None, sampler=StepSampler(self.validation.steps, 0, int))

    def transfer_batch_to_device(self, batch: MaskedBatch, device: torch.device, dataloader_idx: int) -> MaskedBatch:
        """Batches move their own tensors."""
        return batch.to(device)
