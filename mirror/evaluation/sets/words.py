"""Word similarity: Multi-SimLex in its languages, SimLex-999, WordSim-353, from a local folder."""

from pathlib import Path

import numpy as np

from mirror.errors import UnavailableError
from mirror.evaluation.sets.files import number, read_table, text
from mirror.evaluation.sets.pairs import PairSet

LANGUAGES = ("ara", "cmn", "cym", "eng", "est", "fin", "fra", "heb", "pol", "rus", "spa", "yue")
"""Multi-SimLex (Vulić et al. 2020)."""
NAMES = ("simlex999", "wordsim353", *(f"multisimlex-{language}" for language in LANGUAGES))
COLUMNS = ("word1", "word2", "score")


def load(name: str, data_dir: Path | None) -> PairSet:
    """One set by its name in ``NAMES``; Multi-SimLex has a part for each part of speech.

    Raises:
        UnavailableError: no folder is given.
        MirrorError: its file is missing or malformed.
    """
    if data_dir is None:
        raise UnavailableError(f"The set {name} is read from a folder: give eval.data_dir=…, or leave it out.")
    base, _, language = name.partition("-")
    return read(data_dir / "word" / f"{base}.tsv", name, language)


def read(path: Path, name: str, language: str = "") -> PairSet:
    """A file of word pairs; of one language where it has several. Parts of speech are its parts, where it has them.

    Raises:
        MirrorError: it is missing or malformed.
    """
    columns = ("language", *COLUMNS) if language else COLUMNS
    left, right, gold, parts = [], [], [], []
    for line, row in enumerate(read_table(path, columns), start=2):
        if language and row["language"].lower() != language:
            continue
        left.append(text(row, "word1", path, line))
        right.append(text(row, "word2", path, line))
        gold.append(number(row, "score", path, line))
        parts.append(row.get("pos") or name)
    return PairSet(name, left, right, np.array(gold), parts)
