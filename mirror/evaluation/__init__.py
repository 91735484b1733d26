"""How good the vectors are: every set is scored with one ``encode`` callable, every text encoded once."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from mirror.errors import MirrorError
from mirror.evaluation import retrieval, sts, words
from mirror.evaluation.score import Encode, Score, TestSet, Vectors

__all__ = ["SETS", "Encode", "Score", "TestSet", "evaluate", "load_sets", "score_vectors", "sts_average", "texts_of"]

SETS = (*sts.HUB, *words.NAMES, *retrieval.NAMES)
"""Names for ``eval.sets``."""


def load_sets(names: Sequence[str], data_dir: str | None) -> list[TestSet]:
    """The named sets.

    Raises:
        UnavailableError: no folder is given, and the hub does not answer or does not have a set.
        MirrorError: a name is unknown, or a set cannot be read.
    """
    folder = Path(data_dir).expanduser() if data_dir else None
    if folder is not None and not folder.is_dir():
        raise MirrorError(f"eval.data_dir={data_dir} is no folder: give the one that holds sts/ and word/.")
    unknown = [name for name in names if name not in SETS]
    if unknown:
        raise MirrorError(f"eval.sets has {unknown[0]!r}, which is no set; choose among {', '.join(SETS)}.")
    return [_load(name, folder) for name in names]


def _load(name: str, folder: Path | None) -> TestSet:
    if name in retrieval.NAMES:
        return retrieval.load(name)
    return sts.load(name, folder) if name in sts.HUB else words.load(name, folder)


def texts_of(sets: Sequence[TestSet]) -> list[str]:
    """Every text of the sets, each once."""
    return list(dict.fromkeys(text for pairs in sets for text in pairs.texts()))


def score_vectors(vectors: Mapping[str, Vectors], sets: Sequence[TestSet]) -> dict[str, Score]:
    """Scores by set, in the order of ``sets``, from the vectors of their texts."""
    return {pairs.name: pairs.score_vectors(vectors) for pairs in sets}


def evaluate(encode: Encode, sets: Sequence[TestSet]) -> dict[str, Score]:
    """Encode the sets' texts, each once, and score the vectors."""
    texts = texts_of(sets)
    return score_vectors(dict(zip(texts, encode(texts), strict=True)), sets) if texts else {}


def sts_average(scores: dict[str, Score]) -> float | None:
    """The mean over the seven sets, protocol ``all``; None if one is missing."""
    if any(name not in scores for name in sts.AVERAGED):
        return None
    return sum(scores[name].value for name in sts.AVERAGED) / len(sts.AVERAGED)
