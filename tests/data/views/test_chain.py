"""Chains: as their parts do one after the other."""

from pathlib import Path
from random import Random
from typing import Any

import pytest

from mirror import MirrorError
from mirror.config.compose import compose
from mirror.data.views import Chain, Cutoff, Repetition, SpanMask, Views
from mirror.encoder.encoder import MirrorEncoder
from mirror.encoder.layout import Layout
from mirror.runs.record import by_step
from mirror.training.parts import check_parts
from mirror.training.run import train
from tests.conftest import SENTENCES
from tests.helpers import SMALL

MASK = {"_target_": "mirror.data.views.SpanMask", "span_k": 4}
REPETITION = {"_target_": "mirror.data.views.Repetition", "share": 0.5}
PROMPT = {"_target_": "mirror.data.views.Prompt"}
CUTOFF = {"_target_": "mirror.data.views.Cutoff"}


@pytest.fixture(scope="module")
def layout(tiny_bert: Path) -> Layout:
    return MirrorEncoder.load(tiny_bert).layout


class Four(Views):
    """A view maker of more than two."""

    count = 4


def chain(layout: Layout, **parts: Any) -> Chain:
    return Chain(layout, 50, "{text} {mask}", parts)


def test_strings_then_tokens(layout: Layout) -> None:
    views = chain(layout, mask=MASK, repetition=REPETITION)
    mask, repetition = SpanMask(layout, 4), Repetition(layout, 0.5)
    for number, text in enumerate(SENTENCES[:50]):
        assert views((text, text), Random(number)) == mask((text, text), Random(number))
    assert views.edits_tokens
    assert views.longer == repetition.longer
    ids = layout.tokenize([SENTENCES[0]])["input_ids"][0]
    for seed in range(20):
        assert views.places(ids, 1, Random(seed)) == repetition.places(ids, 1, Random(seed))
    assert views.describe() == f"{mask.describe()}; {repetition.describe()}"


def test_tokens_are_edited_twice(layout: Layout) -> None:
    ids = layout.tokenize([SENTENCES[0]])["input_ids"][0]
    views, repetition = chain(layout, first=REPETITION, second=REPETITION), Repetition(layout, 0.5)
    rng = Random(3)
    once = repetition.places(ids, 1, rng)
    twice = repetition.places([ids[place] for place in once], 1, rng)
    found = views.places(ids, 1, Random(3))
    assert found == [once[place] for place in twice]
    assert len(found) > len(once) > len(ids)


def test_what_changes_within_the_network(layout: Layout) -> None:
    views = chain(layout, mask=MASK, cutoff=CUTOFF)
    assert [type(found) for found in views.perturbations()] == [type(found) for found in Cutoff(layout).perturbations()]


def test_a_text_stays_whole_only_where_all_leave_it(layout: Layout) -> None:
    assert chain(layout, mask=MASK, repetition=REPETITION).unchangeable([("a", "a"), (SENTENCES[0],) * 2]) == 0
    assert chain(layout, repetition=REPETITION).unchangeable([("a", "a"), (SENTENCES[0],) * 2]) == 1


def test_run_to_the_end(tiny_bert: Path, tmp_path: Path) -> None:
    typed = ["aug=mirror_repetition", "aug.parts.mask.span_k=3", f"model.path='{tiny_bert}'", "eval=none", *SMALL]
    train(compose("train", typed), tmp_path, SENTENCES[:48])
    assert len(by_step(tmp_path)) == 6
    card = (tmp_path / "encoder" / "README.md").read_text()
    assert "3 characters masked in one of the views; up to 9 tokens" in card


@pytest.mark.parametrize(
    ("typed", "reason"),
    [
        ("aug.parts.mask.span_k=-1", r"aug\.parts\.mask\.span_k=-1"),
        ("+aug.parts.mask.nonsense=1", r"aug\.parts\.mask\.nonsense"),
        ("aug.parts.mask._target_=mirror.losses.infonce.InfoNCE", r"aug\.parts\.mask"),
    ],
)
def test_wrong_settings_of_a_part(typed: str, reason: str) -> None:
    with pytest.raises(MirrorError, match=reason):
        check_parts(compose("train", ["aug=mirror_repetition", typed]))


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({}, r"aug\.parts is empty"),
        ({"one": PROMPT, "other": PROMPT}, "two of them put texts into templates"),
        ({"mask": {"_target_": "mirror.losses.infonce.InfoNCE"}}, r"^aug\.parts\.mask\._target_=.* makes a InfoNCE"),
        ({"four": {"_target_": f"{__name__}.Four"}}, r"^aug\.parts\.four makes 4 views"),
    ],
)
def test_what_makes_no_chain(parts: dict[str, Any], reason: str, layout: Layout) -> None:
    with pytest.raises(MirrorError, match=reason):
        chain(layout, **parts)
