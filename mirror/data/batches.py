"""Mirrored batches: 200 texts, each in two views, laid into rows.

Every batch follows from (seed, epoch, number of the batch) alone: the number of workers, of devices and of
batches before it make no difference.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise
from random import Random
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from mirror.config import BatchConfig
from mirror.data.rows import Pair
from mirror.data.texts import LongPairs
from mirror.data.views import Views
from mirror.data.views.base import look
from mirror.encoder.layout import Layout
from mirror.encoder.packing import TokenBlock, Tokens, join, row_width, select
from mirror.errors import MirrorError
from mirror.runs.sharing import fingerprint, shared

log = logging.getLogger(__name__)

Parts = list[list[TokenBlock]]
"""Some texts, in parts that are encoded one after the other; each part in a few blocks."""


class BatchKey(NamedTuple):
    """Which batch: what a worker needs to make it."""

    epoch: int
    step: int


@dataclass
class MirroredBatch:
    """N texts in V views each."""

    sides: list[Parts]
    """The views laid into rows. One entry where all views share rows: view 0 of every text, then view 1 of every text
    in the same order, and so on. One entry for each view where they are apart. Of its parts, one is encoded at a time.
    """
    text_ids: Tensor
    """(V, N): equal numbers for equal texts, over all devices and batches."""
    strings: list[list[str]]
    """V lists of N strings: the views as the tokenizer got them."""
    texts: list[list[str]]
    """V lists of N strings: the texts that they show."""
    changed: int
    """Views that differ from their text."""

    def to(self, device: torch.device) -> "MirroredBatch":
        """The same batch on a device."""
        return self._each(lambda item: item.to(device, non_blocking=True))

    def pin_memory(self) -> "MirroredBatch":
        """The same batch where a GPU fetches it without the program waiting; called by torch's data loader."""
        return self._each(lambda item: item.pin_memory())

    def _each(self, move: Callable[[Any], Any]) -> "MirroredBatch":
        sides = [[[block.each(move) for block in part] for part in parts] for parts in self.sides]
        return MirroredBatch(sides, move(self.text_ids), self.strings, self.texts, self.changed)


class MirroredPairs(Dataset[MirroredBatch]):
    """Makes batches from their keys.

    Args:
        pairs: the texts with their positives.
        layout: tokenises and lays into rows.
        views: makes the views of each text.
        batch: sizes; ``batch.size`` counts the texts of all devices together.
        seed: of the order and of what the views draw.
        template: what the encoder puts texts into; None is nothing.
        apart: lay each view into rows of its own, for a loss with two encoders.
        rank: this device; it makes every ``world``-th pair of each batch.
        world: number of devices.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        layout: Layout,
        views: Views,
        batch: BatchConfig,
        seed: int,
        *,
        template: str | None = None,
        apart: bool = False,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.pairs, self.layout, self.views, self.batch = pairs, layout, views, batch
        self.seed, self.apart, self.rank, self.world = seed, apart, rank, world
        look(views, pairs)
        self.templates: list[str | None] = [*views.templates] or [template] * views.count
        self.tokens: Tokens | None = None
        self.max_tokens = longest = batch.max_tokens
        if not isinstance(pairs, LongPairs) and len({*self.templates}) == 1:
            # Each text is tokenised once for the whole run; only views that differ from it are tokenised as they are
            # made.
            self.numbers = _number(pairs)
            (template,) = {*self.templates}
            key = (layout.name, layout.max_tokens, batch.max_tokens, template, fingerprint(self.numbers))
            tokens = shared("tokens", key, lambda: layout.tokenize(list(self.numbers), batch.max_tokens, template))
            self.tokens = tokens
            longest = row_width(max(len(ids) for ids in tokens["input_ids"]))
            self.max_tokens = min(batch.max_tokens, longest)
        layout.probe(min(longest + views.longer, layout.max_tokens))
        self._order: tuple[int, list[int]] = (-1, [])

    def reseed(self, seed: int) -> None:
        """Another order and other views, for another training on the same texts."""
        self.seed, self._order = seed, (-1, [])

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        full, rest = divmod(len(self.pairs), self.batch.size)
        if full == 0:
            return 1
        # A last batch must give every device a text and every text a negative.
        return full + (rest >= max(2, self.world) and not self.batch.drop_last)

    def key(self, step: int) -> BatchKey:
        """The batch of a step, counted over all epochs."""
        return BatchKey(*divmod(step, self.steps))

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

    def draw(self, key: BatchKey, pairs: Sequence[Pair]) -> list[list[str]]:
        """The views of a batch's texts: V lists of N strings."""
        # The word in the seed is as old as the published figures: another one would draw other masks.
        rng = Random(f"mask {self.seed} {key.epoch} {key.step}")
        views = [self.views(pair, rng) for pair in pairs]
        wrong = next((view for view in views if len(view) != self.views.count), None)
        if wrong is not None:
            raise MirrorError(
                f"aug: {type(self.views).__name__} made {len(wrong)} views of a text where its `count` says "
                f"{self.views.count}: set the one or mend the other."
            )
        return [[view[number] for view in views] for number in range(self.views.count)]

    def __getitem__(self, key: BatchKey) -> MirroredBatch:
        """This device's share of a batch."""
        pairs = self.texts(key)
        # Drawn for the whole batch, so that the devices agree.
        strings = [view[self.rank :: self.world] for view in self.draw(key, pairs)]
        texts = [[pair[min(number, 1)] for pair in pairs[self.rank :: self.world]] for number in range(len(strings))]
        numbers = {text: _stable(text) for pair in pairs for text in pair} if self.tokens is None else self.numbers
        text_ids = torch.tensor([[numbers[text] for text in side] for side in texts])  # (V, N)
        views = [view for side in strings for view in side]
        whole = [text for side in texts for text in side]
        changed = [i for i, (view, text) in enumerate(zip(views, whole, strict=True)) if view != text]
        if self.tokens is None:
            tokens = self.tokenize(strings)
        else:
            tokens = self._tokens(self.tokens, text_ids.flatten().tolist(), views, changed)
        tokens, placed = self.place(tokens, key, len(strings))
        size = len(strings[0]) if self.apart else len(views)
        return MirroredBatch(
            sides=[
                self._parts(tokens, range(start, start + size), len(pairs), len(strings[0]))
                for start in range(0, len(views), size)
            ],
            text_ids=text_ids,
            strings=strings,
            texts=texts,
            changed=len({*changed, *placed}),
        )

    def tokenize(self, strings: Sequence[Sequence[str]]) -> Tokens:
        """The tokens of some views, one view after the other, each in its template."""
        return join(
            *(
                self.layout.tokenize(side, self.max_tokens, template)
                for side, template in zip(strings, self.templates[: len(strings)], strict=True)
            )
        )

    def place(self, tokens: Tokens, key: BatchKey, views: int) -> tuple[Tokens, list[int]]:
        """Let the view maker place the tokens of its views.

        Args:
            tokens: of ``views`` views of this device's texts, one view after the other.
            key: of the batch.
            views: how many views these are.

        Returns:
            The tokens, and which of the texts were changed.
        """
        if not self.views.edits_tokens:
            return tokens, []
        size = len(tokens["input_ids"]) // views
        chosen = []
        for i, ids in enumerate(tokens["input_ids"]):
            view, text = i // size, self.rank + self.world * (i % size)
            # Seeded by the text's place in the whole batch, since a device has the tokens of its own texts alone.
            rng = Random(f"tokens {self.seed} {key.epoch} {key.step} {view} {text}")
            chosen.append(self.views.places(ids, view, rng))
        placed = {
            name: [[row[k] for k in to] for row, to in zip(rows, chosen, strict=True)] for name, rows in tokens.items()
        }
        return placed, [i for i, to in enumerate(chosen) if to != list(range(len(tokens["input_ids"][i])))]

    def _tokens(self, ready: Tokens, numbers: list[int], views: list[str], changed: list[int]) -> Tokens:
        """The views' tokens: those of their texts, but for the changed ones."""
        whole = select(ready, numbers)
        if not changed:
            return whole
        drawn = self.layout.tokenize([views[i] for i in changed], self.max_tokens, self.templates[0])
        place = list(range(len(numbers)))
        for k, i in enumerate(changed):
            place[i] = len(numbers) + k
        return select(join(whole, drawn), place)

    def blocks(self, tokens: Tokens, chosen: range, each: int) -> list[TokenBlock]:
        """Lay a run of views into rows.

        Args:
            tokens: of all views, one view after the other.
            chosen: those to be laid.
            each: texts of each view.
        """
        blocks = self.layout.blocks(select(tokens, chosen))
        for block in blocks:
            block.views = (chosen.start + block.texts) // each
        return blocks

    def _parts(self, tokens: Tokens, chosen: range, texts: int, each: int) -> Parts:
        """Rows in parts of at most ``batch.micro`` texts of each view; as many on every device, since devices that
        share the weights out go through the model together. ``texts`` are those of the whole batch, ``each`` this
        device's."""
        largest = -(-texts // self.world)
        count = -(-largest // (self.batch.micro or largest))
        cuts = [chosen.start + len(chosen) * i // count for i in range(count + 1)]
        return [self.blocks(tokens, range(*ends), each) for ends in pairwise(cuts)]


def _number(pairs: Sequence[Pair]) -> dict[str, int]:
    """Equal texts have equal numbers."""
    numbers: dict[str, int] = {}
    for pair in pairs:
        for text in pair:
            numbers.setdefault(text, len(numbers))
    return numbers


def _stable(text: str) -> int:
    """A number that a text has in every batch, process and run, at least 0."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()) >> 1
