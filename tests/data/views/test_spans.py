"""Spans against DeCLUTR's rules, in batches, and in a run from the command line's settings to its end."""

from collections import Counter
from pathlib import Path
from random import Random

import pytest

from mirror.config import BatchConfig, Positive
from mirror.config.compose import compose
from mirror.config.parts import check_part
from mirror.data.batches import BatchKey, MirroredPairs
from mirror.data.rows import Pair
from mirror.data.views import Spans
from mirror.encoder.encoder import MirrorEncoder
from mirror.errors import MirrorError
from mirror.runs.record import by_step
from mirror.training.run import train
from tests.architectures import build
from tests.conftest import SENTENCES
from tests.helpers import stop_and_resume

WORDS = [f"w{i}" for i in range(63)]
TEXT = " ".join(WORDS)
DOCUMENTS = [" ".join(SENTENCES[i : i + 5]) for i in range(0, 240, 5)]


def drawn(views: Spans, times: int = 4000) -> list[tuple[range, range]]:
    """The places of anchor and positive in ``TEXT``."""
    rng = Random(0)
    found = []
    for _ in range(times):
        pair = []
        for span in views((TEXT, TEXT), rng):
            words = span.split()
            start = WORDS.index(words[0])
            assert words == WORDS[start : start + len(words)]
            pair.append(range(start, start + len(words)))
        found.append((pair[0], pair[1]))
    return found


@pytest.mark.parametrize("positive", Positive)
def test_spans_follow_the_rule(positive: Positive) -> None:
    """Lengths: means of Beta(4, 2) and Beta(2, 4) are 2/3 and 1/3."""
    pairs = drawn(Spans(64, 4, 20, positive))
    pieces = Counter(anchor.start // 20 for anchor, _ in pairs)
    assert set(pieces) == {0, 1, 2}
    assert all(1200 < count < 1470 for count in pieces.values())
    for anchor, other in pairs:
        assert 4 <= len(anchor) < 20
        assert anchor.start // 20 == (anchor.stop - 1) // 20
        assert 4 <= len(other) <= (len(anchor) if positive is Positive.subsumed else 20)
        assert other.start <= anchor.stop
        assert anchor.start <= other.stop
        if positive is Positive.subsumed:
            assert anchor.start <= other.start
            assert other.stop <= anchor.stop
        elif positive is Positive.adjacent:
            assert other.stop == anchor.start or other.start == anchor.stop
    mean = sum(len(anchor) for anchor, _ in pairs) / len(pairs)
    assert abs(mean - (4 + 2 / 3 * 16 - 0.5)) < 0.2
    if positive is Positive.any:
        mean = sum(len(other) for _, other in pairs) / len(pairs)
        assert abs(mean - (4 + 1 / 3 * 16 - 0.5)) < 0.2
        adjacent = sum(other.stop == anchor.start or other.start == anchor.stop for anchor, other in pairs)
        within = sum(anchor.start <= other.start and other.stop <= anchor.stop for anchor, other in pairs)
        assert 0 < adjacent < within < len(pairs) - adjacent


@pytest.mark.parametrize("lengths", [(20, 20), (15, 20), (1, 31)])
@pytest.mark.parametrize("positive", Positive)
def test_lengths_that_leave_little_room(lengths: tuple[int, int], positive: Positive) -> None:
    for anchor, other in drawn(Spans(64, *lengths, positive), 1000):
        assert 0 <= other.start < other.stop <= len(WORDS)
        assert other.start <= anchor.stop
        assert anchor.start <= other.stop


@pytest.mark.parametrize("name", ["bert", "roberta", "xlnet"])
def test_batches_follow_from_the_seed(name: str, tmp_path: Path) -> None:
    layout = MirrorEncoder.load(build(name, tmp_path / name)).layout
    pairs: list[Pair] = [(text, text) for text in DOCUMENTS]
    views = Spans(64, 3, 12)
    made = [MirroredPairs(pairs, layout, views, BatchConfig(size=24, max_tokens=64), seed) for seed in (0, 0, 1)]
    first, again, other = (one[BatchKey(1, 1)] for one in made)
    assert first.strings == again.strings != other.strings
    assert first.changed == 48
    assert first.text_ids[0].equal(first.text_ids[1])
    (again,) = [MirroredPairs(pairs[:24], layout, views, BatchConfig(size=24), 0, rank=1, world=2)[BatchKey(0, 0)]]
    whole = MirroredPairs(pairs[:24], layout, views, BatchConfig(size=24), 0)[BatchKey(0, 0)]
    assert again.strings == [side[1::2] for side in whole.strings]


def test_bad_input(tiny_bert: Path) -> None:
    layout = MirrorEncoder.load(tiny_bert).layout
    lines: list[Pair] = [(text, text) for text in SENTENCES[:20]]
    with pytest.raises(MirrorError, match=r"None of the 20 texts is long enough .* \(two touching spans of 32 to 512"):
        MirroredPairs(lines, layout, Spans(512), BatchConfig(), 0)
    assert Spans(512)(lines[0], Random(0)) == lines[0]
    with pytest.raises(
        MirrorError, match=r"aug.max_words=512 is more than batch.max_tokens=50, at which spans are cut"
    ):
        Spans(50)
    with pytest.raises(MirrorError, match=r"aug.min_words=9 is above aug.max_words=8"):
        Spans(50, 9, 8)
    with pytest.raises(MirrorError, match=r"aug=spans takes both views from one text, and the data gives pairs"):
        MirroredPairs([(DOCUMENTS[0], DOCUMENTS[1])], layout, Spans(512), BatchConfig(), 0)
    for setting, value in (("min_words", 0), ("max_words", 0), ("positive", "left")):
        with pytest.raises(MirrorError, match=rf"aug.{setting}={value}"):
            check_part({"_target_": "mirror.data.views.Spans", setting: value}, "aug", "max_tokens")


def test_a_run_to_its_end_and_resumed(tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("\n\n".join(DOCUMENTS))
    config = compose("train", [
        "experiment=declutr", "aug.min_words=3", "aug.max_words=12", f"data.path='{texts}'",
        f"model.path='{tiny_bert}'", "eval=none", "batch.max_tokens=64", "trainer.precision=fp32",
        "trainer.accelerator=cpu", "trainer.progress=false", "checkpoint_every=2",
    ])  # fmt: skip
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    whole.mkdir()
    stopped.mkdir()
    train(config, whole)
    stop_and_resume(config, stopped, monkeypatch)
    assert len(by_step(whole)) == 6
    assert by_step(stopped) == by_step(whole)
    card = (whole / "encoder" / "README.md").read_text()
    assert "| augmentation | two touching spans of 3 to 12 words, dropout 0.1 |" in card
    assert "| texts | paragraphs of texts.txt: 48 available" in card
