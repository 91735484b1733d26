"""How good the vectors are: every text of the sets is encoded once, and every set scored by its texts' vectors."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from mirror.errors import MirrorError, UnavailableError
from mirror.evaluation.sets import lexicon, linking, ranking, retrieval, sts, words
from mirror.evaluation.sets.files import SUFFIX, header
from mirror.evaluation.sets.score import Score, TestSet, Vectors

__all__ = ["SETS", "Score", "TestSet", "load_sets", "score_vectors", "sts_average", "texts_of"]

SETS = (*sts.HUB, *words.NAMES, *retrieval.NAMES)
"""Names for ``eval.sets``. So is ``folder/file``, a file in ``eval.data_dir`` without its ``.tsv``, and the path of any
``.tsv`` file; its columns say what kind of set it is."""
KINDS = (sts, words, ranking, lexicon, linking, retrieval)
"""The kinds of files."""


def load_sets(names: Sequence[str], data_dir: str | None, dictionary: str | None = None) -> list[TestSet]:
    """The named sets.

    Args:
        names: see ``SETS``.
        data_dir: folder with ``sts/``, ``word/`` and others; None is the hub.
        dictionary: of the concepts that files of mentions are linked to; None is the one beside them.

    Raises:
        UnavailableError: no folder is given, and the hub does not answer or does not have a set.
        MirrorError: a name is unknown, or a set cannot be read.
    """
    folder = Path(data_dir).expanduser() if data_dir else None
    if folder is not None and not folder.is_dir():
        raise MirrorError(f"eval.data_dir={data_dir} is no folder: give the one that holds sts/ and word/.")
    unknown = [name for name in names if name not in SETS and "/" not in name and not name.endswith(SUFFIX)]
    if unknown:
        raise MirrorError(
            f"eval.sets has {unknown[0]!r}, which is no set; choose among {', '.join(SETS)}, or name a {SUFFIX} file."
        )
    return [_load(name, folder, dictionary) for name in dict.fromkeys(names)]


def _load(name: str, folder: Path | None, dictionary: str | None) -> TestSet:
    if name in retrieval.NAMES:
        return retrieval.load(name)
    if name in sts.HUB:
        return sts.load(name, folder)
    if name in words.NAMES:
        return words.load(name, folder)
    if name.endswith(SUFFIX):
        path = Path(name).expanduser()
    elif folder is None:
        raise UnavailableError(f"The set {name} is read from a folder: give eval.data_dir=… or eval=none.")
    else:
        path = folder / (name + SUFFIX)
        if not path.exists():
            raise MirrorError(f"eval.data_dir lacks {name}{SUFFIX}: add the file or choose another eval=.")
    columns = header(path)
    kinds = [kind for kind in KINDS if {*kind.COLUMNS} <= {*columns}]
    if not kinds:
        wanted = "; ".join(", ".join(kind.COLUMNS) for kind in KINDS)
        raise MirrorError(f"{path} has the columns {', '.join(columns)}, which make no set; it needs {wanted}.")
    if kinds[0] is linking:
        return linking.read(path, name, Path(dictionary).expanduser() if dictionary else None)
    found: TestSet = kinds[0].read(path, name)
    return found


def texts_of(sets: Sequence[TestSet]) -> list[str]:
    """Every text of the sets, each once."""
    return list(dict.fromkeys(text for test in sets for text in test.texts()))


def score_vectors(vectors: Mapping[str, Vectors], sets: Sequence[TestSet]) -> dict[str, Score]:
    """Scores by set, in the order of ``sets``, from the vectors of their texts."""
    return {test.name: test.score_vectors(vectors) for test in sets}


def sts_average(scores: dict[str, Score]) -> float | None:
    """The mean over the seven sets, protocol ``all``; None if one is missing."""
    if any(name not in scores for name in sts.AVERAGED):
        return None
    return sum(scores[name].value for name in sts.AVERAGED) / len(sts.AVERAGED)
