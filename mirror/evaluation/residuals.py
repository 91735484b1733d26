"""Where an encoder errs on graded pairs: the pairs with the largest residuals, and scores by kind of pair."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from mirror.evaluation.resampling import Floats
from mirror.evaluation.sets.pairs import PairSet
from mirror.evaluation.sets.score import Vectors, unit

Mask = NDArray[np.bool_]

NEGATION = re.compile(
    r"\b(?:no|not|never|none|nobody|nothing|nowhere|neither|nor|without|cannot|\w+n['’]t)\b", re.IGNORECASE
)
"""English words that negate."""
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
FEWEST = 10
"""A kind with fewer pairs gets no score."""


@dataclass
class Kind:
    """Pairs of one kind, and their scores × 100 by column; nan (shown as a dash) where the correlation is undefined."""

    group: str
    name: str
    pairs: int
    scores: dict[str, float]


@dataclass
class WorstPair:
    """A pair with a large residual, by column."""

    left: str
    right: str
    gold: float
    residuals: dict[str, float]


def worst(test: PairSet, similarities: Mapping[str, Floats], count: int = 10) -> list[WorstPair]:
    """The pairs with the largest residuals of the last column."""
    errors = {column: residuals(values, test.gold) for column, values in similarities.items()}
    *_, last = errors.values()
    return [
        WorstPair(test.left[i], test.right[i], float(test.gold[i]), {name: float(e[i]) for name, e in errors.items()})
        for i in np.argsort(-np.abs(last), kind="stable")[:count]
    ]


def residuals(similarity: Floats, gold: Floats) -> Floats:
    """How far each pair ranks too high, as a share of the pairs, from −1 to 1; ties share their rank."""
    difference: Floats = (scipy.stats.rankdata(similarity) - scipy.stats.rankdata(gold)) / len(gold)
    return difference


def kinds(test: PairSet, similarities: Mapping[str, Floats]) -> list[Kind]:
    """Scores by length, word overlap, negation and numbers.

    Args:
        test: the pairs.
        similarities: by column, of each pair.
    """
    found = []
    for group, masks in _groups(test).items():
        for name, mask in masks.items():
            scores = {column: _score(values[mask], test.gold[mask]) for column, values in similarities.items()}
            found.append(Kind(group, name, int(mask.sum()), scores))
    return found


def _score(similarity: Floats, gold: Floats) -> float:
    if len(gold) < FEWEST or np.ptp(gold) == 0 or np.ptp(similarity) == 0:
        return float("nan")
    return 100 * float(scipy.stats.spearmanr(similarity, gold).statistic)


def _groups(test: PairSet) -> dict[str, dict[str, Mask]]:
    words = [[set(_words(text)) for text in pair] for pair in test.pairs()]
    lengths = np.array([np.mean([len(_words(text)) for text in pair]) for pair in test.pairs()])
    overlap = np.array([len(a & b) / max(1, len(a | b)) for a, b in words])
    negated = np.array([[bool(NEGATION.search(text)) for text in pair] for pair in test.pairs()]).sum(axis=1)
    numbers = [[sorted(NUMBER.findall(text)) for text in pair] for pair in test.pairs()]
    none = np.array([not a and not b for a, b in numbers])
    same = np.array([a == b for a, b in numbers])
    groups = {
        "length": _thirds(lengths, "{:.0f} words"),
        "word overlap": _thirds(overlap, "{:.2f}"),
        "negation": {"in neither": negated == 0, "in one": negated == 1, "in both": negated == 2},
        "numbers": {"none": none, "the same": same & ~none, "different": ~same},
    }
    return {
        group: {name: mask for name, mask in masks.items() if mask.any()}
        for group, masks in groups.items()
        if sum(mask.any() for mask in masks.values()) > 1
    }


def _thirds(values: Floats, form: str) -> dict[str, Mask]:
    """Low, middle and high values, about as many of each."""
    low, high = np.quantile(values, [1 / 3, 2 / 3])
    return {
        f"lowest third, up to {form.format(low)}": values <= low,
        f"middle third, up to {form.format(high)}": (values > low) & (values <= high),
        "highest third": values > high,
    }


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def neighbours(
    vectors: Mapping[str, Vectors], texts: Sequence[str], queries: Sequence[str], count: int = 5
) -> dict[str, list[tuple[str, float]]]:
    """For each query, the nearest other texts and their cosine similarities, nearest first."""
    space = unit(texts, vectors, "the neighbours")  # (N, D)
    found = {}
    for query, vector in zip(queries, unit(queries, vectors, "the neighbours"), strict=True):
        cosines = space @ vector
        near = [int(i) for i in np.argsort(-cosines, kind="stable") if texts[i] != query][:count]
        found[query] = [(texts[i], float(cosines[i])) for i in near]
    return found
