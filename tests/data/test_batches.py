"""Batches hold each text twice, follow from the seed alone, and come out the same however they are made."""

import itertools
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mirror.config import BatchConfig
from mirror.data.batches import BatchKey, MirroredBatch, MirroredPairs
from mirror.data.module import MirrorData, StepSampler
from mirror.data.rows import Pair
from mirror.data.texts import LongPairs, TextTable
from mirror.data.views import SpanMask
from mirror.encoder.encoder import MirrorEncoder
from tests.conftest import SENTENCES
from tests.helpers import ids_of, pairs_of, table_of

FIRST = BatchKey(0, 0)


@pytest.fixture(scope="module")
def encoder(tiny_bert: Path) -> MirrorEncoder:
    return MirrorEncoder.load(tiny_bert)


def make(
    encoder: MirrorEncoder,
    texts: list[str] | list[Pair] = SENTENCES,
    seed: int = 0,
    rank: int = 0,
    world: int = 1,
    aug: dict[str, Any] | None = None,
    **batch: Any,
) -> MirroredPairs:
    pairs = table_of(texts).pairs
    return pairs_of(pairs, encoder, BatchConfig(**batch), seed, rank=rank, world=world, **(aug or {}))


def data_of(encoder: MirrorEncoder, texts: list[str] = SENTENCES, seed: int = 0, **settings: Any) -> MirrorData:
    views = SpanMask(encoder.layout)
    return MirrorData(table_of(texts), encoder.layout, views, BatchConfig(**settings), seed)


def masked(pairs: MirroredPairs, key: BatchKey = FIRST) -> tuple[list[str | None], list[str | None]]:
    """The left and the right views of a batch where they differ from their text, else None."""
    texts = pairs.texts(key)
    left, right = (
        [view if view != text[side] else None for view, text in zip(views, texts, strict=True)]
        for side, views in enumerate(pairs.draw(key, texts))
    )
    return left, right


def same(a: MirroredBatch, b: MirroredBatch) -> bool:
    return (
        ids_of(a.sides[0][0]) == ids_of(b.sides[0][0])
        and torch.equal(a.text_ids, b.text_ids)
        and a.changed == b.changed
    )


def test_200_texts_are_400_views(encoder: MirrorEncoder) -> None:
    batch = make(encoder)[FIRST]
    assert batch.text_ids.numel() == sum(len(block.texts) for block in batch.sides[0][0]) == 400
    left, right = batch.text_ids
    assert torch.equal(left, right)
    assert len(left.unique()) == 200


def test_views_are_the_chosen_texts_left_before_right(encoder: MirrorEncoder) -> None:
    """What lies in the blocks is what the tokenizer makes of the masked and the whole strings."""
    pairs = make(encoder)
    key = BatchKey(1, 0)
    texts = [pairs.pairs[i][0] for i in pairs.chosen(key)]
    left, right = masked(pairs, key)
    strings = [masked or text for side in (left, right) for masked, text in zip(side, texts, strict=True)]
    assert ids_of(pairs[key].sides[0][0]) == encoder.layout.tokenize(strings, 50)["input_ids"]


def test_one_side_of_each_pair_is_masked(encoder: MirrorEncoder) -> None:
    pairs = make(encoder)
    left, right = masked(pairs, FIRST)
    assert all((a is None) != (b is None) for a, b in zip(left, right, strict=True))
    assert 70 < sum(view is not None for view in left) < 130  # a fair coin: standard deviation 7
    batch = pairs[FIRST]
    mask = encoder.tokenizer.mask_token_id
    masks = [ids.count(mask) for ids in ids_of(batch.sides[0][0])]
    assert [a + b for a, b in zip(masks[:200], masks[200:], strict=True)] == [1] * 200
    assert batch.changed == 200


def test_masks_are_drawn_anew_in_each_epoch(encoder: MirrorEncoder) -> None:
    pairs = make(encoder, SENTENCES[:100], size=100)

    def masks(epoch: int) -> dict[int, str | None]:
        key = BatchKey(epoch, 0)
        return dict(
            zip(
                pairs.chosen(key),
                (a or b for a, b in zip(*masked(pairs, key), strict=True)),
                strict=True,
            )
        )

    first, second = masks(0), masks(1)
    assert first.keys() == second.keys()
    assert sum(first[i] != second[i] for i in first) > 80


def test_nothing_is_masked_without_a_span(encoder: MirrorEncoder) -> None:
    batch = make(encoder, aug={"span_k": 0})[FIRST]
    ids = ids_of(batch.sides[0][0])
    assert ids[:200] == ids[200:]
    assert batch.changed == 0


def test_texts_are_cut_like_any_others(encoder: MirrorEncoder) -> None:
    pairs = make(encoder, max_tokens=8)
    ids = ids_of(pairs[FIRST].sides[0][0])
    assert {len(row) for row in ids} == {8}
    assert {row[-1] for row in ids} == {encoder.tokenizer.sep_token_id}


def test_given_positives_stand_on_the_right(encoder: MirrorEncoder) -> None:
    positives = [(a, b) for a, b in zip(SENTENCES[:60], SENTENCES[60:120], strict=True)] + [(SENTENCES[0], "a dog")]
    pairs = make(encoder, positives, aug={"span_k": 0}, size=61)
    batch = pairs[FIRST]
    chosen = [positives[i] for i in pairs.chosen(FIRST)]
    strings = [left for left, _ in chosen] + [right for _, right in chosen]
    assert ids_of(batch.sides[0][0]) == encoder.layout.tokenize(strings)["input_ids"]
    numbers = batch.text_ids.flatten().tolist()
    assert [numbers.index(number) for number in numbers] == [strings.index(string) for string in strings]


def test_both_sides_of_given_positives_get_masked(encoder: MirrorEncoder) -> None:
    positives = [(a, b) for a, b in zip(SENTENCES[:100], SENTENCES[100:200], strict=True)]
    pairs = make(encoder, positives)
    left, right = masked(pairs, FIRST)
    assert all((a is None) != (b is None) for a, b in zip(left, right, strict=True))
    assert min(sum(view is not None for view in side) for side in (left, right)) > 30


@pytest.mark.parametrize("size", [200, 50, 7])
def test_epoch_holds_each_text_once(size: int, encoder: MirrorEncoder) -> None:
    pairs = make(encoder, SENTENCES[:210], size=size)
    for epoch in (0, 1):
        seen = [i for step in range(pairs.steps) for i in pairs.chosen(BatchKey(epoch, step))]
        assert sorted(seen) == list(range(210))


@pytest.mark.parametrize(
    ("texts", "size", "world", "drop_last", "steps"),
    [
        (240, 120, 1, False, 2),
        (240, 200, 1, False, 2),  # a last, smaller batch
        (240, 200, 1, True, 1),
        (201, 200, 1, False, 1),  # one text alone has no negative
        (202, 200, 1, False, 2),
        (203, 200, 4, False, 1),  # three texts for four devices
        (204, 200, 4, False, 2),
        (50, 200, 1, False, 1),
        (50, 200, 1, True, 1),  # never no step at all
        (2, 2, 1, False, 1),
    ],
)
def test_steps_in_an_epoch(
    texts: int, size: int, world: int, drop_last: bool, steps: int, encoder: MirrorEncoder
) -> None:
    pairs = make(encoder, SENTENCES[:texts], size=size, world=world, drop_last=drop_last)
    assert pairs.steps == steps
    sizes = [len(pairs.chosen(BatchKey(0, step))) for step in range(steps)]
    assert sizes[0] == min(size, texts)
    assert min(sizes) >= 2


def test_fewer_texts_than_a_batch_are_one_smaller_batch(
    encoder: MirrorEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        data = data_of(encoder, SENTENCES[:30])
    assert "Fewer texts (30) than batch.size=200" in caplog.text
    (batch,) = data.train_dataloader()
    assert batch.text_ids.numel() == 60


def test_enough_texts_warn_of_nothing(encoder: MirrorEncoder, caplog: pytest.LogCaptureFixture) -> None:
    data_of(encoder)
    assert not caplog.records


def epoch_of(encoder: MirrorEncoder, workers: int, epoch: int = 0, seed: int = 0) -> list[MirroredBatch]:
    data = data_of(encoder, seed=seed, size=50, workers=workers)
    data.first, data.steps = 5 * epoch, 5 * epoch + 5
    loader = data.train_dataloader()
    return list(loader)


@pytest.mark.parametrize("epoch", [0, 1])
def test_same_seed_same_batches_whatever_the_workers(epoch: int, encoder: MirrorEncoder) -> None:
    alone, helped = (epoch_of(encoder, workers, epoch) for workers in (0, 2))
    assert len(alone) == len(helped) == 5
    assert all(same(a, b) for a, b in zip(alone, helped, strict=True))
    assert [batch.text_ids.numel() for batch in alone] == [100, 100, 100, 100, 80]


def test_seed_and_epoch_change_the_batches(encoder: MirrorEncoder) -> None:
    base = epoch_of(encoder, 0)
    assert all(same(a, b) for a, b in zip(base, epoch_of(encoder, 0), strict=True))
    for other in (epoch_of(encoder, 0, epoch=1), epoch_of(encoder, 0, seed=1)):
        assert not any(torch.equal(a.text_ids, b.text_ids) for a, b in zip(base, other, strict=True))


def test_keys_go_through_the_epochs_and_on_from_a_step(encoder: MirrorEncoder) -> None:
    pairs = make(encoder, SENTENCES[:30], size=10)  # three batches an epoch
    assert list(StepSampler(7, 0, pairs.key)) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0)]
    assert list(StepSampler(7, 4, pairs.key)) == [(1, 1), (1, 2), (2, 0)]


def test_micro_parts_hold_the_views_in_order(encoder: MirrorEncoder) -> None:
    whole, parts = make(encoder, size=50)[FIRST], make(encoder, size=50, micro=16)[FIRST]
    assert [ids for part in parts.sides[0] for ids in ids_of(part)] == ids_of(whole.sides[0][0])
    assert [sum(len(block.texts) for block in part) for part in parts.sides[0]] == [25, 25, 25, 25]
    assert torch.equal(parts.text_ids, whole.text_ids)


@pytest.fixture
def long(monkeypatch: pytest.MonkeyPatch) -> TextTable:
    """The sentences as if they were many: neither held in memory nor tokenised ahead."""
    monkeypatch.setattr("mirror.data.texts.MAX_IN_MEMORY", 100)
    table = table_of([*SENTENCES, *SENTENCES[:20]])
    assert isinstance(table.pairs, LongPairs)
    return table


@pytest.mark.parametrize("aug", [{}, {"span_k": 0}])
@pytest.mark.parametrize("world", [1, 3])
def test_long_data_gives_the_batches_of_short_data(
    aug: dict[str, Any], world: int, encoder: MirrorEncoder, long: TextTable
) -> None:
    for rank in range(world):
        for key in (FIRST, BatchKey(0, 4), BatchKey(1, 2)):
            short = make(encoder, aug=aug, size=50, rank=rank, world=world)[key]
            lazy = pairs_of(long.pairs, encoder, BatchConfig(size=50), rank=rank, world=world, **aug)[key]
            assert ids_of(lazy.sides[0][0]) == ids_of(short.sides[0][0])
            assert lazy.changed == short.changed
            # The numbers differ, but tell the same texts apart.
            alike = [ids[None] == ids[:, None] for ids in (lazy.text_ids.flatten(), short.text_ids.flatten())]
            assert torch.equal(*alike)


def test_numbers_of_long_data_agree_between_devices(encoder: MirrorEncoder, long: TextTable) -> None:
    """Given pairs share texts across the devices' shares, which must be known as duplicates."""
    pairs = [*itertools.pairwise(SENTENCES), (SENTENCES[5], SENTENCES[100])]
    table = table_of(pairs)
    assert isinstance(table.pairs, LongPairs)
    batch = BatchConfig(size=240)
    whole = pairs_of(table.pairs, encoder, batch)[FIRST].text_ids
    for rank in range(3):
        share = pairs_of(table.pairs, encoder, batch, rank=rank, world=3)[FIRST].text_ids
        assert torch.equal(share, whole[:, rank::3])


def test_batch_depends_on_nothing_before_it(encoder: MirrorEncoder) -> None:
    """So a resumed or a distributed run meets the same batches."""
    key, fresh, used = BatchKey(2, 3), make(encoder, size=50), make(encoder, size=50)
    for earlier in (BatchKey(0, 0), BatchKey(2, 0), BatchKey(1, 3)):
        used[earlier]
    torch.manual_seed(7)
    assert same(fresh[key], used[key])


@pytest.mark.parametrize(("world", "key"), [(2, FIRST), (3, FIRST), (4, BatchKey(1, 1))])
def test_devices_share_the_batch_of_one_process(world: int, key: BatchKey, encoder: MirrorEncoder) -> None:
    """Texts and masks alike: the last batch has 40 texts, so three devices hold different numbers."""
    whole = make(encoder, world=1)[key]
    n = whole.text_ids.shape[1]
    ids = ids_of(whole.sides[0][0])
    changed = 0
    for rank in range(world):
        share = make(encoder, rank=rank, world=world)[key]
        places = [*range(rank, n, world), *range(n + rank, 2 * n, world)]
        assert ids_of(share.sides[0][0]) == [ids[i] for i in places]
        assert torch.equal(share.text_ids, whole.text_ids[:, rank::world])
        assert share.strings == [side[rank::world] for side in whole.strings]
        changed += share.changed
    assert changed == whole.changed


def test_packed_and_padded_batches_give_the_same_vectors(tiny_bert: Path) -> None:
    encoder = MirrorEncoder.load(tiny_bert)
    packed = make(encoder)[FIRST]
    encoder.layout.packing = False
    padded = make(encoder)[FIRST]
    encoder.layout.packing, encoder.layout.pad_to = True, 50
    fixed = make(encoder)[FIRST]
    encoder.layout.pad_to = None
    assert [block.packed for block in packed.sides[0][0]] == [True]
    assert not any(block.packed for block in padded.sides[0][0] + fixed.sides[0][0])
    assert {block.text_index.shape[1] for block in fixed.sides[0][0]} == {50}
    with torch.no_grad():
        expected = encoder(padded.sides[0][0])
        torch.testing.assert_close(encoder(packed.sides[0][0]), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(encoder(fixed.sides[0][0]), expected, rtol=1e-4, atol=1e-5)


def test_batch_moves_whole(encoder: MirrorEncoder) -> None:
    data = data_of(encoder)
    batch = data.train_dataloader().dataset[FIRST]
    moved = data.transfer_batch_to_device(batch, torch.device("meta"), 0)
    (block,) = moved.sides[0][0]
    tensors = [*block.inputs.values(), block.text_index, block.position, block.cls_index, block.texts, moved.text_ids]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert moved.changed == batch.changed


def test_loader_pins_every_tensor_of_a_batch(encoder: MirrorEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loader passes over what it does not know, and a copy to the GPU would then wait for the GPU's work."""
    from torch.utils.data._utils.pin_memory import pin_memory

    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: tensor.to("meta"))  # wants a GPU
    batch = pin_memory(make(encoder)[FIRST])
    (block,) = batch.sides[0][0]
    tensors = [*block.inputs.values(), block.text_index, block.position, block.cls_index, block.texts, batch.text_ids]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
