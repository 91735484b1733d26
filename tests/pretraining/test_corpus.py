from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from mirror import MirrorEncoder
from mirror.config import BagConfig, MaskingConfig, PretrainBatchConfig
from mirror.pretraining.corpus import MaskedBatch, MaskedBatches, sampled, tokenize_corpus
from tests.conftest import SENTENCES

TEXTS = [*SENTENCES, " ".join(SENTENCES[:30])]
"""The last one is far longer than a row."""
LONGEST = 32


@pytest.fixture(scope="module")
def encoder(tiny_bert: Path) -> MirrorEncoder:
    return MirrorEncoder.load(tiny_bert)


def batches(encoder: MirrorEncoder, *, seed: int = 0, share: float = 0.15) -> MaskedBatches:
    corpus = tokenize_corpus(TEXTS, encoder.tokenizer, LONGEST, progress=False)
    return MaskedBatches(corpus, encoder, PretrainBatchConfig(300, LONGEST), MaskingConfig(share), seed)


def texts_in(batch: MaskedBatch) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Each text of a batch: the ids that the model sees, and the true ones."""
    for block, places, targets in zip(batch.blocks, batch.places, batch.targets, strict=True):
        seen = block.inputs["input_ids"].flatten()
        true = seen.clone()
        true[places] = targets
        for row in range(block.text_index.shape[0]):
            for text in block.text_index[row].unique():
                if text >= 0:
                    here = (block.text_index == text).flatten()
                    yield tuple(seen[here].tolist()), tuple(true[here].tolist())


def test_long_texts_are_split_and_nothing_is_lost(encoder: MirrorEncoder) -> None:
    corpus = tokenize_corpus(TEXTS, encoder.tokenizer, LONGEST, progress=False)
    expected = [i for ids in encoder.tokenizer(TEXTS, add_special_tokens=False)["input_ids"] for i in ids]
    assert corpus.ids.tolist() == expected
    assert corpus.starts[0] == 0
    assert corpus.starts[-1] == len(expected)
    assert corpus.lengths.min() > 0
    assert corpus.lengths.max() <= LONGEST - 2
    assert len(corpus) > len(TEXTS) + 5


def test_ids_take_two_bytes(encoder: MirrorEncoder) -> None:
    assert tokenize_corpus(TEXTS, encoder.tokenizer, LONGEST, progress=False).ids.dtype == np.uint16


def test_an_epoch_holds_every_piece_once(encoder: MirrorEncoder) -> None:
    data = batches(encoder)
    for epoch in (0, 1):
        seen = np.concatenate([data.pieces(epoch * data.steps + i) for i in range(data.steps)])
        assert sorted(seen) == list(range(len(data.corpus)))
    assert data.pieces(0).tolist() != data.pieces(data.steps).tolist()


def test_batches_are_as_large_as_asked(encoder: MirrorEncoder) -> None:
    data = batches(encoder)
    sizes = [data[i].tokens for i in range(data.steps - 1)]
    assert all(300 - LONGEST < size < 300 + LONGEST for size in sizes)


def test_true_texts_are_the_corpus(encoder: MirrorEncoder) -> None:
    data = batches(encoder)
    found = Counter(true for step in range(data.steps) for _, true in texts_in(data[step]))
    starts, prefix, suffix = data.corpus.starts, data.prefix, data.suffix
    expected = Counter(
        (*prefix, *data.corpus.ids[starts[p] : starts[p + 1]].tolist(), *suffix) for p in range(len(data.corpus))
    )
    assert found == expected


def test_masks_change_with_the_step_and_the_seed_alone(encoder: MirrorEncoder) -> None:
    def seen(data: MaskedBatches, step: int) -> list[tuple[int, ...]]:
        return [text for text, _ in texts_in(data[step])]

    data = batches(encoder)
    assert seen(data, 3) == seen(batches(encoder), 3)
    assert seen(data, 3) != seen(batches(encoder, seed=1), 3)
    one = {true: text for text, true in texts_in(data[0])}
    later = {true: text for step in range(data.steps, 2 * data.steps) for text, true in texts_in(data[step])}
    assert any(later[true] != text for true, text in one.items())


def test_devices_share_a_batch(encoder: MirrorEncoder) -> None:
    whole, parts = batches(encoder)[2], []
    for rank in range(2):
        data = batches(encoder)
        data.rank, data.world = rank, 2
        parts.append(data[2])
    assert Counter(texts_in(whole)) == Counter(texts_in(parts[0])) + Counter(texts_in(parts[1]))
    assert {part.count for part in parts} == {whole.count} == {sum(len(t) for t in whole.targets)}
    assert {part.word_count for part in parts} == {whole.word_count} == {sum(w.shape[1] for w in whole.words)}
    assert sum(words.shape[1] for part in parts for words in part.words) == whole.word_count


def test_a_device_without_a_piece_of_the_last_batch(encoder: MirrorEncoder) -> None:
    """It still takes part in the step, and has nothing to guess."""
    data = batches(encoder)
    last = data.steps - 1
    expected, data.world = data[last], len(data.pieces(last)) + 1
    guessed, held = [], []
    for rank in range(data.world):
        data.rank = rank
        batch = data[last]
        guessed.append(len(torch.cat(batch.targets)))
        assert batch.tokens > 0
        assert (batch.count, batch.word_count) == (expected.count, expected.word_count)
        held.append(sum(words.shape[1] for words in batch.words))
    assert guessed[-1] == held[-1] == 0
    assert sum(held) == expected.word_count
    assert sum(guessed) == expected.count


def test_bags_hold_each_word_of_a_text_once(encoder: MirrorEncoder) -> None:
    batch = batches(encoder, share=0.5)[0]
    special = set(encoder.tokenizer.all_special_ids)
    for block, places, targets, (owner, token) in zip(
        batch.blocks, batch.places, batch.targets, batch.words, strict=True
    ):
        true = block.inputs["input_ids"].flatten().clone()
        true[places] = targets
        for text in range(len(block.texts)):
            expected = set(true[(block.text_index == text).flatten()].tolist()) - special
            assert sorted(token[owner == text].tolist()) == sorted(expected)
    assert batch.word_count == sum(words.shape[1] for words in batch.words) > 100


def test_targets_are_masked_or_not_but_never_special(encoder: MirrorEncoder) -> None:
    batch = batches(encoder, share=0.5)[0]
    targets = torch.cat(batch.targets)
    assert not set(targets.tolist()) & set(encoder.tokenizer.all_special_ids)
    assert batch.count > 100


def test_the_share_of_masks_falls_over_the_run(encoder: MirrorEncoder) -> None:
    corpus = tokenize_corpus(TEXTS, encoder.tokenizer, LONGEST, progress=False)
    masking = MaskingConfig(0.4, final_share=0.1)
    data = MaskedBatches(corpus, encoder, PretrainBatchConfig(4096, LONGEST), masking, 0)
    data.run_steps = 31
    special = len(data.prefix) + len(data.suffix)
    for step, expected in ((0, 0.4), (15, 0.25), (30, 0.1), (99, 0.1)):
        ordinary = data[step].tokens - special * len(data.pieces(step))
        assert data[step].count / ordinary == pytest.approx(expected, abs=0.03)
    assert masking.at(0.5).share == pytest.approx(0.25)
    assert MaskingConfig(0.4).at(0.5) == MaskingConfig(0.4)


def bags_of(encoder: MirrorEncoder, bags: BagConfig) -> list[tuple[set[int], set[int]]]:
    """Of an epoch, each piece's own tokens and its bag."""
    corpus = tokenize_corpus(TEXTS, encoder.tokenizer, LONGEST, progress=False)
    made = MaskedBatches(corpus, encoder, PretrainBatchConfig(300, LONGEST), MaskingConfig(0.15), 0, bags)
    special = set(encoder.tokenizer.all_special_ids)
    found = []
    for step in range(made.steps):
        batch = made[step]
        for (block, words), places, targets in zip(
            zip(batch.blocks, batch.words, strict=True), batch.places, batch.targets, strict=True
        ):
            true = block.inputs["input_ids"].flatten().clone()
            true[places] = targets
            for text in range(len(block.texts)):
                own = set(true[(block.text_index == text).flatten()].tolist()) - special
                found.append((own, set(words[1][words[0] == text].tolist())))
        assert batch.word_count == sum(words.shape[1] for words in batch.words)
    return found


def test_a_bag_holds_the_words_of_its_text(encoder: MirrorEncoder) -> None:
    assert all(own == bag for own, bag in bags_of(encoder, BagConfig()))


def test_neighbours_are_of_the_same_text(encoder: MirrorEncoder) -> None:
    corpus = tokenize_corpus(TEXTS, encoder.tokenizer, LONGEST, progress=False)
    pieces = [corpus.ids[a:b].tolist() for a, b in zip(corpus.starts[:-1], corpus.starts[1:], strict=True)]
    expected = []
    for number, piece in enumerate(pieces):
        bag = set(piece)
        for other in (number - 1, number + 1):
            if 0 <= other < len(pieces) and corpus.texts[other] == corpus.texts[number]:
                bag |= set(pieces[other])
        expected.append((set(piece), bag))
    found = bags_of(encoder, BagConfig(neighbours=True))
    assert sorted((sorted(own), sorted(bag)) for own, bag in found) == sorted(
        (sorted(own), sorted(bag)) for own, bag in expected
    )
    assert sum(own < bag for own, bag in found) > 5
    assert sum(own == bag for own, bag in found) > 5  # the short texts, which stand alone


def test_frequent_words_are_left_out_of_bags_at_random(encoder: MirrorEncoder) -> None:
    corpus = tokenize_corpus(TEXTS, encoder.tokenizer, LONGEST, progress=False)
    stays = sampled(corpus, len(encoder.tokenizer), 1e-3)
    counts = Counter(corpus.ids.tolist())
    total = len(corpus.ids) + len(encoder.tokenizer)
    often, times = counts.most_common(1)[0]
    assert stays[often] == pytest.approx((1e-3 * total / (times + 1)) ** 0.5)
    assert stays.max() == 1
    whole, thinned = bags_of(encoder, BagConfig()), bags_of(encoder, BagConfig(sample=1e-3))
    held, left = (Counter(token for _, bag in bags for token in bag) for bags in (whole, thinned))
    assert all(bag <= own for own, bag in thinned)
    expected = sum(times * stays[token] for token, times in held.items())
    deviation = sum(times * stays[token] * (1 - stays[token]) for token, times in held.items()) ** 0.5
    assert abs(left.total() - expected) < 4 * deviation
    assert left[often] < held[often]
