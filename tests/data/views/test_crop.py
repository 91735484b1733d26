"""Crops are two different windows of one document."""

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
from mirror.data.views import Crop
from mirror.encoder.encoder import MirrorEncoder
from mirror.errors import MirrorError
from mirror.runs.record import by_step
from mirror.training.run import train
from tests.conftest import SENTENCES

DOCUMENTS = [" ".join(SENTENCES[i : i + 5]) for i in range(0, 240, 5)]
SHORT = {"min_chars": 20, "max_chars": 90}
"""The sentences of the tests have 32 to 88 characters."""


def sentence(letter: str, length: int) -> str:
    return letter * (length - 1) + "."


def test_windows_are_sentences_of_the_length_in_a_row() -> None:
    a, b, c, d = (sentence(letter, 100 + 50 * i) for i, letter in enumerate("ABCD"))  # 100 to 250 characters
    short, long = sentence("s", 99), sentence("l", 251)
    text = " ".join([a, short, b, long, c, d])
    assert Crop().windows((text, text)) == [f"{a} {b}", f"{b} {c}", f"{c} {d}"]
    assert Crop(sentences=3).windows((text, text)) == [f"{a} {b} {c}", f"{b} {c} {d}"]


def test_where_a_sentence_ends() -> None:
    text = "It costs 3.50 in all! Does it? Mr.X says so. And then"
    assert Crop(1, 1, 100).windows((text, text)) == ["It costs 3.50 in all!", "Does it?", "Mr.X says so.", "And then"]


def test_every_two_windows_are_equally_likely() -> None:
    text = " ".join(SENTENCES[:5])
    windows = [" ".join(SENTENCES[i : i + 2]) for i in range(4)]
    rng, views = Random(0), Crop(**SHORT)
    found = Counter(views((text, text), rng) for _ in range(12_000))
    assert set(found) == {(a, b) for a in windows for b in windows if a != b}
    assert all(850 < count < 1150 for count in found.values())  # 1000 expected, standard deviation 30


def test_batches_follow_from_the_seed(tiny_bert: Path) -> None:
    layout = MirrorEncoder.load(tiny_bert).layout
    pairs: list[Pair] = [(text, text) for text in DOCUMENTS]
    made = [MirroredPairs(pairs, layout, Crop(**SHORT), BatchConfig(size=24), seed) for seed in (0, 0, 1)]
    first, again, other = (one[BatchKey(1, 1)] for one in made)
    assert first.strings == again.strings != other.strings
    assert first.changed == 48
    assert all(left != right for left, right in zip(*first.strings, strict=True))
    assert first.text_ids[0].equal(first.text_ids[1])


def test_texts_too_short(tiny_bert: Path, caplog: pytest.LogCaptureFixture) -> None:
    layout = MirrorEncoder.load(tiny_bert).layout
    lines: list[Pair] = [(text, text) for text in SENTENCES[:20]]
    with pytest.raises(MirrorError, match=r"None of the 20 texts is long enough for this aug= \(two windows of 2"):
        MirroredPairs(lines, layout, Crop(**SHORT), BatchConfig(), 0)
    documents: list[Pair] = [(text, text) for text in DOCUMENTS]
    with caplog.at_level(logging.WARNING):
        MirroredPairs([*lines, *documents], layout, Crop(**SHORT), BatchConfig(), 0)
    assert "20 of 68 texts are too short for aug= and stay whole (two windows of 2 sentences" in caplog.text
    assert Crop(**SHORT)(lines[0], Random(0)) == lines[0]


def test_given_pairs_are_refused(tiny_bert: Path) -> None:
    layout = MirrorEncoder.load(tiny_bert).layout
    pairs: list[Pair] = [(DOCUMENTS[0], DOCUMENTS[1]), (DOCUMENTS[2], DOCUMENTS[3])]
    with pytest.raises(MirrorError, match=r"aug=crop takes both views from one text, and the data gives pairs"):
        MirroredPairs(pairs, layout, Crop(**SHORT), BatchConfig(), 0)


@pytest.mark.parametrize(("setting", "value"), [("sentences", 0), ("min_chars", 0), ("max_chars", 0)])
def test_settings_out_of_range(setting: str, value: int) -> None:
    with pytest.raises(MirrorError, match=rf"aug.{setting}={value} is out of range"):
        check_part({"_target_": "mirror.data.views.Crop", setting: value}, "aug", "layout")
    with pytest.raises(MirrorError, match=r"aug.min_chars=251 is above aug.max_chars=250"):
        Crop(min_chars=251)


def test_a_run_to_its_end(tiny_bert: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(DOCUMENTS))
    config = compose("train", [
        "aug=crop", "aug.min_chars=20", "aug.max_chars=90", f"data.path='{texts}'", f"model.path='{tiny_bert}'",
        "eval=none", "batch.size=16", "batch.max_tokens=128", "trainer.precision=fp32", "trainer.accelerator=cpu",
        "trainer.progress=false",
    ])  # fmt: skip
    (tmp_path / "run").mkdir()
    train(config, tmp_path / "run")
    assert len(by_step(tmp_path / "run")) == 3
    card = (tmp_path / "run" / "encoder" / "README.md").read_text()
    assert "| augmentation | two windows of 2 sentences of 20 to 90 characters, dropout 0.1 |" in card
