"""Entity linking: mentions in texts to the concepts of a dictionary, by the nearest of the concepts' names."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mirror.data.rows import Pair
from mirror.errors import MirrorError
from mirror.evaluation.sets.files import header, read_table, text
from mirror.evaluation.sets.score import Score, TestSet, Vectors, unit

COLUMNS = ("mention", "concept_id")
DICTIONARY_COLUMNS = ("concept_ids", "names")
CHUNK = 256
"""Mentions compared with the dictionary at once."""


@dataclass
class LinkingSet(TestSet):
    """Mentions with their concepts, and the names of all concepts."""

    name: str
    mentions: list[str]
    concepts: list[frozenset[str]]
    """Of each mention; finding any of them is right."""
    dictionary: dict[str, frozenset[str]]
    """The concepts that each name stands for."""
    _names: dict[str, list[str]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Refuse a set in which no mention can be linked."""
        for name, concepts in self.dictionary.items():
            for concept in concepts:
                self._names.setdefault(concept, []).append(name)
        if not any(concept in self._names for concepts in self.concepts for concept in concepts):
            raise MirrorError(f"The set {self.name}: no mention has a concept that the dictionary names.")

    def pairs(self) -> list[Pair]:
        """Each mention with each name of its concepts."""
        found = (
            (mention, name)
            for mention, concepts in zip(self.mentions, self.concepts, strict=True)
            for concept in sorted(concepts)
            for name in self._names.get(concept, ())
        )
        return list(dict.fromkeys(found))

    def texts(self) -> list[str]:
        """The mentions and every name of the dictionary, each once."""
        return list(dict.fromkeys([*self.mentions, *self.dictionary]))

    def score_vectors(self, vectors: Mapping[str, Vectors]) -> Score:
        """Accuracy at 1 and at 5 names: a mention is linked rightly if one of them names a concept of it.

        Concepts that the dictionary lacks cannot be found, and count as errors. Of equally near names the wrong ones
        come first.
        """
        names = list(self.dictionary)
        space = unit(names, vectors, self.name)  # (K, D)
        distinct = list(dict.fromkeys(zip(self.mentions, self.concepts, strict=True)))
        queries = unit([mention for mention, _ in distinct], vectors, self.name)
        column = {name: i for i, name in enumerate(names)}
        ranks: dict[tuple[str, frozenset[str]], int] = {}
        for start in range(0, len(distinct), CHUNK):
            similarity = queries[start : start + CHUNK] @ space.T  # (C, K)
            for row, (mention, concepts) in zip(similarity, distinct[start : start + CHUNK], strict=True):
                own = list({column[name] for concept in concepts for name in self._names.get(concept, ())})
                ranks[mention, concepts] = _rank(row, own)
        found = np.array([ranks[key] for key in zip(self.mentions, self.concepts, strict=True)])
        figures = {"acc@1": 100 * float((found <= 1).mean()), "acc@5": 100 * float((found <= 5).mean())}
        return Score(
            self.name,
            len(self.mentions),
            figures,
            "acc@1",
            items=[(found <= 1).astype(np.float64)[:, None]],
            note=f"among {len(names):,} names of {len(self._names):,} concepts",
        )


def _rank(similarity: NDArray[np.float64], own: list[int]) -> int:
    """Rank of the best of the right names, from 1; after all names if there is none."""
    if not own:
        return len(similarity) + 1
    best = similarity[own].max()
    return int(1 + (similarity >= best).sum() - (similarity[own] >= best).sum())


def read(path: Path, name: str, dictionary: Path | None) -> LinkingSet:
    """A file of mentions, and its dictionary: the given one, else the only one beside the file.

    Concept ids stand with bars or plus signs between them, names with bars.

    Raises:
        MirrorError: there is no dictionary, or a file is malformed.
    """
    if dictionary is None:
        beside = [other for other in sorted(path.parent.glob("*.tsv")) if {*DICTIONARY_COLUMNS} <= {*header(other)}]
        if len(beside) != 1:
            raise MirrorError(
                f"{path} has {len(beside)} dictionaries beside it: give eval.dictionary=…, a file with the columns "
                f"{' and '.join(DICTIONARY_COLUMNS)}."
            )
        dictionary = beside[0]
    concepts_of: dict[str, set[str]] = {}
    for line, row in enumerate(read_table(dictionary, DICTIONARY_COLUMNS), start=2):
        ids = _ids(row, "concept_ids", dictionary, line)
        for synonym in text(row, "names", dictionary, line).split("|"):
            if synonym.strip():
                concepts_of.setdefault(synonym.strip(), set()).update(ids)
    mentions, concepts = [], []
    for line, row in enumerate(read_table(path, COLUMNS), start=2):
        mentions.append(text(row, "mention", path, line))
        concepts.append(frozenset(_ids(row, "concept_id", path, line)))
    names = {synonym: frozenset(ids) for synonym, ids in concepts_of.items()}
    return LinkingSet(name, mentions, concepts, names)


def _ids(row: dict[str, str], column: str, path: Path, line: int) -> list[str]:
    """The concepts of a cell; an empty id between two bars would match every other one.

    Raises:
        MirrorError: the cell holds none.
    """
    cell = text(row, column, path, line)
    bars = cell.replace("+", "|") if column == "concept_id" else cell
    ids = [name.strip() for name in bars.split("|") if name.strip()]
    if not ids:
        raise MirrorError(f"{path}, line {line}: {column} is {cell!r}, which holds no concept.")
    return ids
