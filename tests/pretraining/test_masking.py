import numpy as np
import pytest
from numpy.typing import NDArray

from mirror.config import MaskingConfig, MaskUnit
from mirror.pretraining.masking import choose_tokens, corrupt

TEXTS, LENGTH = 30_000, 20
TEXT = np.repeat(np.arange(TEXTS), LENGTH)
"""Texts of twenty tokens, the first and the last of them special."""
SPECIAL = np.tile(np.arange(LENGTH) % (LENGTH - 1) == 0, TEXTS)
OPENS = np.tile(np.arange(LENGTH) % 3 != 0, TEXTS)
"""Every third token goes on with the word before it."""


def chosen(unit: MaskUnit, share: float = 0.15) -> NDArray[np.bool_]:
    return choose_tokens(TEXT, SPECIAL, OPENS, MaskingConfig(share, unit), np.random.default_rng(0))


@pytest.mark.parametrize("unit", MaskUnit)
@pytest.mark.parametrize("share", [0.15, 0.4])
def test_share_of_the_tokens(unit: MaskUnit, share: float) -> None:
    assert chosen(unit, share)[~SPECIAL].mean() == pytest.approx(share, rel=0.05)


@pytest.mark.parametrize("unit", MaskUnit)
def test_special_tokens_are_never_chosen(unit: MaskUnit) -> None:
    assert not chosen(unit, 0.9)[SPECIAL].any()


@pytest.mark.parametrize("unit", [MaskUnit.word, MaskUnit.span])
def test_words_are_masked_as_a_whole(unit: MaskUnit) -> None:
    picked = chosen(unit)
    inside = ~OPENS & ~SPECIAL & ~np.roll(SPECIAL, 1)  # goes on with a word that stands in the text
    assert inside.sum() > TEXTS
    assert (picked[inside] == picked[np.flatnonzero(inside) - 1]).all()


def test_single_tokens_are_masked_by_themselves() -> None:
    picked = chosen(MaskUnit.token)
    inside = np.flatnonzero(~OPENS & ~SPECIAL & ~np.roll(SPECIAL, 1))
    assert (picked[inside] != picked[inside - 1]).any()


def test_spans_are_longer_than_words() -> None:
    def run(unit: MaskUnit) -> float:
        picked = chosen(unit)
        return float(picked.sum() / (picked & ~np.roll(picked, 1)).sum())  # tokens in a row

    assert run(MaskUnit.span) > 1.8 * run(MaskUnit.word)


def test_a_piece_that_starts_within_a_word_does_not_join_the_piece_before_it() -> None:
    text, opens = np.array([0, 0, 1, 1]), np.array([True, True, False, True])
    none = np.zeros(4, dtype=bool)
    draws = [
        choose_tokens(text, none, opens, MaskingConfig(0.5, MaskUnit.word), np.random.default_rng(seed))
        for seed in range(50)
    ]
    assert any(draw[1] != draw[2] for draw in draws)


def test_corruption_is_80_10_10() -> None:
    ids = np.full(20_000, 7)
    picked = np.arange(20_000) < 10_000
    seen = corrupt(ids, picked, 1, np.arange(100, 200), MaskingConfig(), np.random.default_rng(0))
    assert (seen[~picked] == 7).all()
    assert (seen[picked] == 1).mean() == pytest.approx(0.8, abs=0.015)
    assert (seen[picked] == 7).mean() == pytest.approx(0.1, abs=0.015)
    drawn = seen[picked & (seen >= 100)]
    assert len(drawn) == pytest.approx(1000, abs=120)
    assert set(drawn) == set(range(100, 200))
    assert (ids == 7).all()
