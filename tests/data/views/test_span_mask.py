"""Span masking takes what it says from where it says."""

import re
from collections import Counter
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mirror.config import DataConfig, Sample, SpanUnit
from mirror.config.parts import check_part
from mirror.data.texts import read_texts
from mirror.data.views import SpanMask
from mirror.encoder.encoder import MirrorEncoder
from mirror.encoder.layout import Layout
from mirror.errors import MirrorError
from tests.conftest import SENTENCES

MASK = "<mask>"
DISTINCT = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMN"
"""Forty characters, each once: where a span was taken can be read from the result."""
OFFICIAL = {"literal_mask": True, "spaced_mask": True, "first_match": True, "spare_last": True}


def maker(mask_token: str | None = MASK, **settings: Any) -> SpanMask:
    """Without a real tokenizer, which ``unit=token`` alone asks for tokens."""
    layout = SimpleNamespace(tokenizer=SimpleNamespace(mask_token=mask_token), name="a model")
    return SpanMask(cast(Layout, layout), **settings)


def mask(text: str, seed: int = 0, **settings: Any) -> str:
    return maker(**settings).masked(text, Random(seed))


@pytest.mark.parametrize("k", [1, 5, 17])
@pytest.mark.parametrize("text", SENTENCES[::40])
def test_exactly_k_characters_become_one_mask(text: str, k: int) -> None:
    possible = {text[:i] + MASK + text[i + k :] for i in range(len(text) - k + 1)}
    assert {mask(text, seed, span_k=k) for seed in range(50)} <= possible


def starts(**settings: Any) -> Counter[int]:
    rng, views = Random(0), maker(**settings)
    return Counter(views.masked(DISTINCT, rng).index(MASK) for _ in range(36_000))


def test_every_place_is_equally_likely() -> None:
    found = starts(span_k=5)
    assert set(found) == set(range(36))  # from the first character to the last
    assert all(750 < count < 1250 for count in found.values())  # 1000 expected, standard deviation 31


def test_last_character_is_spared_on_request() -> None:
    assert set(starts(span_k=5, spare_last=True)) == set(range(35))


@pytest.mark.parametrize(
    ("text", "aug"),
    [
        (DISTINCT, {"span_k": 0}),
        (DISTINCT[:29], {}),
        ("short", {}),
        ("", {"min_chars": 0}),
        (DISTINCT[:5], {"span_k": 5, "min_chars": 0}),  # nothing would be left of it
        (DISTINCT, {"span_k": 40}),
        ("one two three four five six seven", {"span_k": 7, "unit": SpanUnit.word}),
    ],
)
def test_text_is_left_whole_and_nothing_drawn(text: str, aug: dict[str, Any]) -> None:
    rng = Random(0)
    state = rng.getstate()
    assert maker(**aug).masked(text, rng) == text
    assert rng.getstate() == state


@pytest.mark.parametrize(("text", "aug"), [(DISTINCT[:30], {}), (DISTINCT[:6], {"span_k": 5, "min_chars": 0})])
def test_shortest_text_that_is_masked(text: str, aug: dict[str, Any]) -> None:
    assert len(mask(text, **aug)) == len(text) - 5 + len(MASK)


@pytest.mark.parametrize("k", [1, 2])
def test_words_are_masked_whole(k: int) -> None:
    text = "  the quick brown fox jumps over   the lazy dog."
    words = [match.span() for match in re.finditer(r"\S+", text)]
    possible = {text[: words[i][0]] + MASK + text[words[i + k - 1][1] :] for i in range(len(words) - k + 1)}
    assert {mask(text, seed, span_k=k, unit=SpanUnit.word) for seed in range(200)} == possible


def test_tokens_are_masked_whole(tiny_bert: Path) -> None:
    encoder = MirrorEncoder.load(tiny_bert)
    text = SENTENCES[3]
    spans = encoder.layout.token_spans(text)
    assert len(spans) < len(text)
    possible = {text[: spans[i][0]] + "[MASK]" + text[spans[i + 1][1] :] for i in range(len(spans) - 1)}
    views = SpanMask(encoder.layout, span_k=2, unit=SpanUnit.token)
    found = {views.masked(text, Random(seed)) for seed in range(300)}
    assert found == possible


def test_literal_mask_is_bert_s_whatever_the_model() -> None:
    result = mask(DISTINCT, literal_mask=True)
    assert "[MASK]" in result
    assert MASK not in result


def test_spaced_mask_stands_between_spaces() -> None:
    assert mask(DISTINCT, spaced_mask=True) == mask(DISTINCT).replace(MASK, f" {MASK} ")


def test_first_match_masks_the_first_occurrence() -> None:
    text = "ha" * 20
    assert {mask(text, seed, first_match=True) for seed in range(50)} == {
        MASK + text[5:],
        "h" + MASK + text[6:],
    }
    assert len({mask(text, seed) for seed in range(50)}) > 10


def test_first_match_changes_nothing_where_the_span_stands_once() -> None:
    assert mask(DISTINCT, seed=3, first_match=True) == mask(DISTINCT, seed=3)


def test_share_of_official_masks_that_land_elsewhere(data_dir: Path) -> None:
    """About 0.64 % of the authors' sentences."""
    file = data_dir / "corpora" / "stsbenchmark_train_10k_sents_random_sampled.txt"
    table = read_texts(DataConfig(path=str(file), size=None, sample=Sample.first, deduplicate=False), 0)
    drawn = elsewhere = 0
    for seed, (text, _) in enumerate(table.pairs):
        official = mask(text, seed, **OFFICIAL)
        drawn += official != text
        elsewhere += official != mask(text, seed, **{**OFFICIAL, "first_match": False})
    assert drawn > 8_000
    assert 0.004 < elsewhere / drawn < 0.009


def test_one_random_side_is_masked() -> None:
    pair = (DISTINCT, DISTINCT[::-1])
    rng, views = Random(0), maker()
    drawn = [views(pair, rng) for _ in range(200)]
    assert all((left == pair[0]) != (right == pair[1]) for left, right in drawn)
    assert 70 < sum(left != pair[0] for left, _ in drawn) < 130


def test_a_tokenizer_without_a_mask() -> None:
    with pytest.raises(MirrorError, match=r"aug.span_k=5: the tokenizer of a model has no mask token; set aug=none"):
        maker(None)
    assert mask(DISTINCT, literal_mask=True) != DISTINCT
    assert maker(None, span_k=0)((DISTINCT, DISTINCT), Random(0)) == (DISTINCT, DISTINCT)


@pytest.mark.parametrize(("setting", "value"), [("span_k", -1), ("span_k", 1001), ("min_chars", -1)])
def test_settings_out_of_range(setting: str, value: int) -> None:
    with pytest.raises(MirrorError, match=rf"aug.{setting}={value} is out of range"):
        check_part({"_target_": "mirror.data.views.SpanMask", setting: value}, "aug", "layout")
