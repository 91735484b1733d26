"""The test sets: every text is encoded once, and every set is scored by the vectors of its texts."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from mirror.encoder import hub
from mirror.errors import MirrorError, UnavailableError
from mirror.evaluation.sets import lexicon, linking, ranking, retrieval, sts, words
from mirror.evaluation.sets.files import SUFFIX, header
from mirror.evaluation.sets.score import Score, TestSet, Vectors

__all__ = ["SETS", "Score", "TestSet", "load_sets", "score_vectors", "texts_of"]

SETS = (*sts.HUB, *words.NAMES, *retrieval.NAMES)
"""Names for ``eval.sets``. So is ``folder/file``, a file in ``eval.data_dir`` without its ``.tsv``, and the path of any
``.tsv`` file; its columns say what kind of set it is."""
KINDS = (sts, words, ranking, lexicon, linking, retrieval)
"""The kinds of files: modules with ``COLUMNS``, by which a file is known, and ``read(path, name)``, which makes its
set. ``eval.kinds`` adds modules of a user's own, which take precedence."""


def load_sets(
    names: Sequence[str],
    data_dir: str | None,
    dictionary: str | None = None,
    kinds: Sequence[str] = (),
    setting: str = "eval.sets",
) -> list[TestSet]:
    """The named sets.

    Args:
        names: see ``SETS``.
        data_dir: folder with ``sts/``, ``word/`` and others; None is the hub.
        dictionary: of the concepts that files of mentions are linked to; None is the one in the same folder.
        kinds: modules of further kinds of files, by their full names.
        setting: that names them, for messages.

    Raises:
        UnavailableError: no folder is given, and the hub does not answer or does not have a set.
        MirrorError: a name is unknown, or a set cannot be read.
    """
    folder = hub.local_path(data_dir) if data_dir else None
    if folder is not None and not folder.is_dir():
        raise MirrorError(f"eval.data_dir={data_dir} is no folder: give the one that holds sts/ and word/.")
    unknown = [name for name in names if name not in SETS and "/" not in name and not name.endswith(SUFFIX)]
    if unknown:
        raise MirrorError(
            f"{setting} has {unknown[0]!r}, which is no set; choose among {', '.join(SETS)}, or name a {SUFFIX} file."
        )
    if dictionary and not hub.local_path(dictionary).is_file():
        raise MirrorError(f"eval.dictionary={dictionary} is no file: give a .tsv with the concepts and their names.")
    own = [_own_kind(kind) for kind in kinds]
    found = [_load(name, folder, dictionary, [*own, *KINDS]) for name in dict.fromkeys(names)]
    if dictionary and not any(isinstance(test, linking.LinkingSet) for test in found):
        raise MirrorError(
            f"eval.dictionary={dictionary} is read by none of the sets: add a file of mentions, or leave it out."
        )
    return found


def _own_kind(name: str) -> Any:
    """A module of a user's own.

    Raises:
        MirrorError: it cannot be imported, or lacks what a kind has.
    """
    try:
        kind = import_module(name)
    except ImportError as error:
        raise MirrorError(
            f"eval.kinds={name} cannot be imported ({error}): install its package, or start the command in the folder "
            "that holds it."
        ) from error
    for needed in ("COLUMNS", "read"):
        if not hasattr(kind, needed):
            raise MirrorError(
                f"eval.kinds={name} has no {needed}: a kind of test set has COLUMNS and read(path, name)."
            )
    return kind


def _load(name: str, folder: Path | None, dictionary: str | None, known: Sequence[Any]) -> TestSet:
    if name in retrieval.NAMES:
        return retrieval.load(name)
    if name in sts.HUB:
        return sts.load(name, folder)
    if name in words.NAMES:
        return words.load(name, folder)
    if name.endswith(SUFFIX):
        path = hub.local_path(name)
    elif Path(name).is_file():
        raise MirrorError(f"{name} is no test set: a test set is a table that ends with {SUFFIX}.")
    elif folder is None:
        raise UnavailableError(f"The set {name} is read from a folder: give eval.data_dir=…, or leave it out.")
    else:
        path = folder / (name + SUFFIX)
        if not path.exists():
            raise MirrorError(f"eval.data_dir lacks {name}{SUFFIX}: add the file or choose another eval=.")
    columns = header(path)
    kinds = [kind for kind in known if {*kind.COLUMNS} <= {*columns}]
    if not kinds:
        wanted = "; ".join(", ".join(kind.COLUMNS) for kind in known)
        raise MirrorError(f"{path} has the columns {', '.join(columns)}, which make no set; it needs {wanted}.")
    if kinds[0] is linking:
        return linking.read(path, name, hub.local_path(dictionary) if dictionary else None)
    found: TestSet = kinds[0].read(path, name)
    return found


def texts_of(sets: Sequence[TestSet]) -> list[str]:
    """Every text of the sets, each once."""
    return list(dict.fromkeys(text for test in sets for text in test.texts()))


def score_vectors(vectors: Mapping[str, Vectors], sets: Sequence[TestSet]) -> dict[str, Score]:
    """Scores by set, in the order of ``sets``, from the vectors of their texts."""
    return {test.name: test.score_vectors(vectors) for test in sets}
