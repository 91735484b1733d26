"""What every kind of set keeps to."""

from collections.abc import Callable

import numpy as np
import pytest

from mirror import MirrorError
from mirror.evaluation.resampling import resample
from mirror.evaluation.sets import TestSet
from tests.evaluation.naive import vectors_of
from tests.evaluation.sets.made_up import graded, lexicon, linking, ranking, retrieval

EVERY: list[Callable[[], TestSet]] = [lexicon, linking, ranking, retrieval, graded]


@pytest.mark.parametrize("make", EVERY)
def test_every_kind_of_set_keeps_the_protocol(make: Callable[[], TestSet]) -> None:
    """The texts are those of the pairs; the headline is the statistic of the items; both contrasts can be drawn."""
    test = make()
    vectors = vectors_of(test)
    score = test.score_vectors(vectors)
    assert {text for pair in test.pairs() for text in pair} <= {*test.texts()}
    assert {*test.positives()} <= {*test.pairs()}
    assert len(test.texts()) == len({*test.texts()})
    (items,) = score.items
    assert 100 * score.statistic(items, np.ones((1, len(items))))[0] == pytest.approx(score.value)
    assert np.isfinite(resample(items, score.statistic, 20, "x")).all()
    true, random = test.contrast(vectors)
    assert len(true) == len(test.positives())
    assert len(random) == len(test.pairs())
    assert (np.abs(np.concatenate([true, random])) <= 1 + 1e-9).all()


@pytest.mark.parametrize("make", EVERY)
@pytest.mark.parametrize("value", [0.0, np.nan])
def test_unusable_vectors(make: Callable[[], TestSet], value: float) -> None:
    test = make()
    vectors = vectors_of(test)
    vectors[test.pairs()[0][1]] = np.full(3, value, dtype=np.float32)
    with pytest.raises(MirrorError, match="zero or not finite on made-up"):
        test.score_vectors(vectors)


@pytest.mark.parametrize("make", [lexicon, linking, retrieval])
def test_equal_vectors_find_nothing(make: Callable[[], TestSet]) -> None:
    test = make()
    score = test.score_vectors({text: np.ones(3, dtype=np.float32) for text in test.texts()})
    assert score.protocols["recall@1" if make is retrieval else "acc@1"] == 0
