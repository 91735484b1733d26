"""Deletion and shuffling of words, against their rules restated."""

import itertools
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from mirror.config import BatchConfig
from mirror.config.parts import check_part
from mirror.data.batches import BatchKey, MirroredPairs
from mirror.data.rows import Pair
from mirror.data.views import Deletion, Shuffle, Views
from mirror.encoder.encoder import MirrorEncoder
from mirror.errors import MirrorError
from tests.conftest import SENTENCES

LETTERS = "a b c d e f g h i j"


def right(views: Views, text: str, rng: Random) -> list[str]:
    left, view = views((text, text), rng)
    assert left == text
    return view.split(" ")


@pytest.mark.parametrize("share", [0.1, 0.6, 0.95])
def test_each_word_goes_with_its_probability(share: float) -> None:
    rng, draws = Random(0), 8000
    sizes: Counter[int] = Counter()
    kept: Counter[str] = Counter()
    for _ in range(draws):
        words = right(Deletion(share), LETTERS, rng)
        assert words == sorted(words)
        assert set(words) <= set(LETTERS.split())
        sizes[len(words)] += 1
        kept.update(words)
    none = share**10
    # One stays where all would go: the binomial distribution, with what it has at 0 moved to 1.
    expected_one = 10 * (1 - share) * share**9 + none
    assert sizes[0] == 0
    assert abs(sizes[1] / draws - expected_one) < 0.025
    each = (1 - share) + none / 10
    assert all(abs(count / draws - each) < 0.03 for count in kept.values())
    assert len(kept) == 10


def test_every_order_is_equally_likely() -> None:
    rng = Random(0)
    found = Counter(tuple(right(Shuffle(), "x y z", rng)) for _ in range(6000))
    assert set(found) == set(itertools.permutations("xyz"))
    assert all(850 < count < 1150 for count in found.values())  # 1000 expected, standard deviation 29


@pytest.mark.parametrize("views", [Deletion(), Shuffle()])
def test_batches_follow_from_the_seed(views: Views, tiny_bert: Path) -> None:
    layout = MirrorEncoder.load(tiny_bert).layout
    pairs: list[Pair] = [(text, text) for text in SENTENCES]
    first, again, other = (MirroredPairs(pairs, layout, views, BatchConfig(size=50), seed) for seed in (0, 0, 1))
    key = BatchKey(1, 1)
    first[BatchKey(0, 0)]  # what was made before makes no difference
    assert first[key].strings == again[key].strings != other[key].strings
    assert first[key].changed > 40
    batch = first[key]
    for text, view in zip(*batch.strings, strict=True):
        missing = Counter(view.split()) - Counter(text.split())
        assert not missing


@pytest.mark.parametrize("views", [Deletion(), Shuffle()])
def test_texts_of_one_word(views: Views, tiny_bert: Path) -> None:
    assert views(("word", "word"), Random(0)) == ("word", "word")
    layout = MirrorEncoder.load(tiny_bert).layout
    words: list[Pair] = [(word, word) for word in LETTERS.split()]
    with pytest.raises(MirrorError, match="None of the 10 texts is long enough for this aug="):
        MirroredPairs(words, layout, views, BatchConfig(), 0)


def test_given_pairs_keep_their_left_text() -> None:
    left, view = Deletion()(("one two", "three four five six"), Random(0))
    assert left == "one two"
    assert set(view.split()) <= {"three", "four", "five", "six"}


@pytest.mark.parametrize("value", [0.0, 1.0, -0.1])
def test_share_out_of_range(value: float) -> None:
    with pytest.raises(MirrorError, match=rf"aug.share={value} is out of range"):
        check_part({"_target_": "mirror.data.views.Deletion", "share": value}, "aug", "layout")
