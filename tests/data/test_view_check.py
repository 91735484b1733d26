"""The look at the augmentation before training."""

from pathlib import Path
from typing import Any

import pytest
import torch

from mirror import MirrorEncoder, MirrorError
from mirror.config import BatchConfig
from mirror.data.batches import BatchKey
from mirror.data.rows import Pair
from mirror.data.view_check import ViewCheck, check_views
from mirror.encoder.perturb import DropHead, Dropout
from tests.conftest import SENTENCES
from tests.helpers import pairs_of

SAME = [(text, text) for text in SENTENCES[:40]]
SHORT = [(text, text) for text in ("a man", "a dog", "oranges", "a guitar")]


def check(model: Path, pairs: list[Pair], span_k: int = 5, dropout: float = 0.1, drophead: float = 0.0) -> ViewCheck:
    encoder = MirrorEncoder.load(model)
    torch.manual_seed(0)
    drawn = pairs_of(pairs, encoder, BatchConfig(size=40), span_k=span_k)
    result = check_views(drawn, encoder, [Dropout(dropout), DropHead(drophead)])
    assert not encoder.training
    return result


@pytest.mark.parametrize(
    "aug",
    [
        {"span_k": 5, "dropout": 0.0},
        {"span_k": 0, "dropout": 0.1},
        {"span_k": 0, "dropout": 0.0, "drophead": 0.4},
    ],
    ids=["mask", "dropout", "drophead"],
)
def test_each_augmentation_alone_is_enough(tiny_bert: Path, aug: dict[str, Any]) -> None:
    result = check(tiny_bert, SAME, **aug)
    assert result.cosine < 1
    assert result.changed == (1.0 if aug["span_k"] else 0.0)


def test_more_dropout_parts_the_views_further(tiny_bert: Path) -> None:
    cosines = [check(tiny_bert, SAME, span_k=0, dropout=rate).cosine for rate in (0.01, 0.1, 0.4)]
    assert cosines == sorted(cosines, reverse=True)


@pytest.mark.parametrize("pairs", [SAME, SHORT])
def test_no_difference_is_refused(tiny_bert: Path, pairs: list[Pair]) -> None:
    """Without any augmentation, and with one that never applies because the texts are too short."""
    span_k = 0 if pairs is SAME else 5
    said = "5 characters masked" if span_k else "no input augmentation"
    with pytest.raises(MirrorError, match=rf"views of a text are the same .*changes 0 % of the texts \({said}"):
        check(tiny_bert, pairs, span_k=span_k, dropout=0.0)


def test_given_pairs_differ_by_themselves(tiny_bert: Path) -> None:
    pairs = list(zip(SENTENCES[:20], SENTENCES[20:40], strict=True))
    assert check(tiny_bert, pairs, span_k=0, dropout=0.0).cosine < 1


def test_examples_are_views_of_the_first_batch(tiny_bert: Path) -> None:
    result = check(tiny_bert, SAME)
    assert len(result.examples) == 3
    for pair in result.examples:
        assert sum("[MASK]" in view for view in pair) == 1
        assert sum(view in SENTENCES for view in pair) == 1
    assert "100.0 % of the texts have a changed view" in str(result)
    assert all(view in str(result) for pair in result.examples for view in pair)


def test_masked_share_counts_the_texts_that_are_long_enough(tiny_bert: Path) -> None:
    result = check(tiny_bert, SAME[:12] + SHORT)
    assert result.changed == 12 / 16


def test_check_changes_neither_batches_nor_weights(tiny_bert: Path) -> None:
    encoder = MirrorEncoder.load(tiny_bert)
    pairs = pairs_of(SAME, encoder, BatchConfig(size=8))
    before = {name: weight.clone() for name, weight in encoder.state_dict().items()}
    views = pairs.draw(BatchKey(0, 0), pairs.texts(BatchKey(0, 0)))
    check_views(pairs, encoder, [Dropout(0.1)])
    assert pairs.draw(BatchKey(0, 0), pairs.texts(BatchKey(0, 0))) == views
    assert all(torch.equal(weight, before[name]) for name, weight in encoder.state_dict().items())


def test_unchanged_texts_are_not_shown_twice() -> None:
    said = str(ViewCheck([("a man", "a man")], 0.0, 0.5))
    assert "the views change no text" in said
    assert "a man" not in said
    assert "a man" in str(ViewCheck([("a man", "a m[MASK]")], 0.5, 0.5))
