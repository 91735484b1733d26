"""Repetition against its rule, in batches, and in a run from the command line's settings to its end."""

import logging
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from mirror.config import BatchConfig
from mirror.config.compose import compose
from mirror.config.parts import check_part
from mirror.data.batches import BatchKey, MirroredPairs
from mirror.data.rows import Pair
from mirror.data.view_check import check_views
from mirror.data.views import Repetition
from mirror.encoder.encoder import MirrorEncoder
from mirror.errors import MirrorError
from mirror.runs.record import by_step
from mirror.training.run import train
from tests.conftest import SENTENCES
from tests.helpers import ids_of, stop_and_resume

PAIRS: list[Pair] = [(text, text) for text in SENTENCES]


@pytest.fixture
def encoder(tiny_bert: Path) -> MirrorEncoder:
    return MirrorEncoder.load(tiny_bert)


def made(encoder: MirrorEncoder, seed: int = 0, rank: int = 0, world: int = 1, **batch: int) -> MirroredPairs:
    views = Repetition(encoder.layout)
    return MirroredPairs(PAIRS, encoder.layout, views, BatchConfig(**batch), seed, rank=rank, world=world)  # type: ignore[arg-type]


@pytest.mark.parametrize("length", [3, 6, 7, 20, 60])
def test_places_follow_the_rule(encoder: MirrorEncoder, length: int) -> None:
    """Counts are uniform below the bound, places uniform within the text; a naive bound beside them."""
    views, rng = Repetition(encoder.layout), Random(0)
    tokenizer = encoder.tokenizer
    ids = [tokenizer.cls_token_id, *range(10, 8 + length), tokenizer.sep_token_id]
    bound = min(10, 32 * length // 100)
    counts: Counter[int] = Counter()
    where: Counter[int] = Counter()
    draws = 4000
    for _ in range(draws):
        places = views.places(ids, 1, rng)
        assert sorted(set(places)) == list(range(length))
        assert places == sorted(places)
        twice = [place for place, times in Counter(places).items() if times == 2]
        assert len(places) == length + len(twice)
        counts[len(twice)] += 1
        where.update(twice)
    assert set(counts) == set(range(max(1, bound)))
    assert all(abs(count - draws / len(counts)) < 0.2 * draws / len(counts) + 60 for count in counts.values())
    assert set(where) == (set(range(1, length - 1)) if bound > 1 else set())
    expected = sum(where.values()) / max(1, length - 2)
    assert all(abs(count - expected) < 6 * expected**0.5 for count in where.values())
    assert views.places(ids, 0, rng) == list(range(length))


def test_never_a_special_token_wherever_it_stands(encoder: MirrorEncoder) -> None:
    """XLNet puts SEP before the last token, which is CLS."""
    sep, cls = encoder.tokenizer.sep_token_id, encoder.tokenizer.cls_token_id
    ids = [*range(10, 40), sep, cls]
    views, rng = Repetition(encoder.layout), Random(0)
    for _ in range(500):
        times = Counter(views.places(ids, 1, rng))
        assert times[30] == times[31] == times[0] == 1


def test_no_view_is_longer_than_the_model_takes(encoder: MirrorEncoder) -> None:
    views, rng = Repetition(encoder.layout), Random(0)
    ids = [2, *[9] * (encoder.max_tokens - 5), 3]
    longest = max(len(views.places(ids, 1, rng)) for _ in range(200))
    assert longest == encoder.max_tokens


def test_batches_hold_the_text_and_its_repetition(encoder: MirrorEncoder) -> None:
    pairs = made(encoder, size=40)
    batch = pairs[BatchKey(0, 0)]
    rows = ids_of(batch.sides[0][0])
    whole = encoder.layout.tokenize(batch.strings[0])["input_ids"]
    assert rows[:40] == whole
    changed = 0
    for row, ids in zip(rows[40:], whole, strict=True):
        remaining = iter(row)
        assert all(token in remaining for token in ids)  # its tokens in their order
        assert Counter(row).keys() == Counter(ids).keys()
        assert len(ids) <= len(row) < len(ids) + max(1, min(10, 32 * len(ids) // 100))
        assert row[0] == ids[0] != row[1]
        assert row[-1] == ids[-1] != row[-2]
        changed += row != ids
    assert batch.changed == changed > 10


def test_token_types_follow_their_tokens(encoder: MirrorEncoder) -> None:
    ids = encoder.layout.tokenize(SENTENCES[:20] * 2)["input_ids"]
    placed, _ = made(encoder).place({"input_ids": ids, "token_type_ids": ids}, BatchKey(0, 0), 2)
    assert placed["token_type_ids"] == placed["input_ids"] != ids


def test_the_same_whoever_makes_it_and_another_each_epoch(encoder: MirrorEncoder) -> None:
    key = BatchKey(1, 2)
    whole = ids_of(made(encoder, size=40)[key].sides[0][0])
    assert ids_of(made(encoder, size=40)[key].sides[0][0]) == whole
    assert ids_of(made(encoder, 1, size=40)[key].sides[0][0]) != whole
    for rank in range(2):
        share = ids_of(made(encoder, rank=rank, world=2, size=40)[key].sides[0][0])
        assert share == whole[:40][rank::2] + whole[40:][rank::2]
    everything = MirroredPairs(PAIRS, encoder.layout, Repetition(encoder.layout), BatchConfig(size=240), 0)
    lengths = [sum(len(ids) for ids in ids_of(everything[BatchKey(epoch, 0)].sides[0][0])) for epoch in range(4)]
    assert len(set(lengths)) > 1


def test_the_look_before_training(encoder: MirrorEncoder) -> None:
    found = check_views(made(encoder, size=200), encoder, [])
    assert 0.3 < found.changed < 1
    assert all(left != right for left, right in found.examples)
    assert found.cosine < 1 - 1e-4


def test_texts_too_short(encoder: MirrorEncoder, caplog: pytest.LogCaptureFixture) -> None:
    views = Repetition(encoder.layout)
    short: list[Pair] = [("a", "a"), ("at", "at")]
    with pytest.raises(MirrorError, match=r"None of the 2 texts is long enough for this aug= .*aug=none\.$"):
        MirroredPairs(short, encoder.layout, views, BatchConfig(), 0)
    with caplog.at_level(logging.WARNING):
        MirroredPairs([*short, *PAIRS], encoder.layout, views, BatchConfig(), 0)
    assert "2 of 242 texts are too short for aug= and stay whole" in caplog.text


@pytest.mark.parametrize(("setting", "value"), [("share", 0.0), ("share", 1.0), ("limit", 1), ("limit", 1001)])
def test_settings_out_of_range(setting: str, value: float) -> None:
    with pytest.raises(MirrorError, match=rf"aug.{setting}={value} is out of range"):
        check_part({"_target_": "mirror.data.views.Repetition", setting: value}, "aug", "layout")


@pytest.mark.parametrize(
    ("aug", "card"),
    [
        ("repetition", "up to 9 tokens, fewer than 0.32 of a text's, stand twice in the right view, dropout 0.1"),
        ("deletion", "60 % of the words deleted in the right view, dropout 0.1"),
        ("shuffle", "words shuffled in the right view, dropout 0.1"),
    ],
)
def test_a_run_to_its_end_and_resumed(
    aug: str, card: str, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(SENTENCES[:100]))
    config = compose("train", [
        f"aug={aug}", f"data.path='{texts}'", f"model.path='{tiny_bert}'", "eval=none", "data.size=44", "batch.size=16",
        "trainer.max_epochs=2", "trainer.precision=fp32", "trainer.accelerator=cpu", "trainer.progress=false",
        "checkpoint_every=2",
    ])  # fmt: skip
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    whole.mkdir()
    stopped.mkdir()
    train(config, whole)

    stop_and_resume(config, stopped, monkeypatch)
    assert len(by_step(whole)) == 6
    assert by_step(stopped) == by_step(whole)
    assert f"| augmentation | {card} |" in (whole / "encoder" / "README.md").read_text()
