"""A small made-up set of each kind, and sets of pairs from files."""

from collections.abc import Sequence
from typing import cast

import numpy as np

from mirror.evaluation.sets import load_sets
from mirror.evaluation.sets.lexicon import LexiconSet
from mirror.evaluation.sets.linking import LinkingSet
from mirror.evaluation.sets.pairs import PairSet
from mirror.evaluation.sets.ranking import RankingSet
from mirror.evaluation.sets.retrieval import RetrievalSet
from tests.evaluation.naive import Vectors

N, D = 60, 8
QUERIES, DOCUMENTS = [f"q{i}" for i in range(N)], [f"d{i}" for i in range(N)]


def vectors(noise: float) -> Vectors:
    """Of each query near that of its document; the more noise, the less."""
    rng = np.random.default_rng(0)
    meaning = rng.standard_normal((N, D))
    return {
        text: (point + noise * rng.standard_normal(D)).astype(np.float32)
        for texts in (QUERIES, DOCUMENTS)
        for text, point in zip(texts, meaning, strict=True)
    }


TRANSLATIONS = [(f"s{i}", f"t{i}") for i in range(40)] + [("s0", "t7"), ("s3", "t9"), ("s5", "t2")]


def lexicon() -> LexiconSet:
    return LexiconSet("made-up", TRANSLATIONS)


def linking() -> LinkingSet:
    names = {f"name {i}": frozenset({f"C{i % 12}"}) for i in range(30)} | {"both": frozenset({"C1", "C2"})}
    mentions = [f"mention {i % 20}" for i in range(25)] + ["name 3"]
    concepts = [frozenset({f"C{i % 20}"} | ({"C1"} if i % 2 == 0 else set())) for i in range(25)] + [frozenset({"C3"})]
    return LinkingSet("made-up", mentions, concepts, names)


def ranking() -> RankingSet:
    return RankingSet(
        "made-up", [f"a{i}" for i in range(30)], [f"b{i}" for i in range(30)], (np.arange(30) % 2).astype(np.float64)
    )


def retrieval() -> RetrievalSet:
    return RetrievalSet("made-up", [f"q{i}" for i in range(30)], [f"d{i}" for i in range(30)])


def graded() -> PairSet:
    gold = (np.arange(30) % 5).astype(np.float64)
    return PairSet("made-up", [f"a{i}" for i in range(30)], [f"b{i}" for i in range(30)], gold, ["x", "y"] * 15)


def pair_sets(names: Sequence[str], data_dir: str) -> list[PairSet]:
    """Sets that are known to be pairs with gold scores."""
    sets = load_sets(names, data_dir)
    assert all(isinstance(pairs, PairSet) for pairs in sets)
    return cast(list[PairSet], sets)
