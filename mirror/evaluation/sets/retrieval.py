"""Retrieval: for each query, the one document that answers it, among all documents. It needs no labels and no download:
a function's summary line must find its description in the documentation of the installed packages."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mirror.data.rows import Pair
from mirror.data.sources import pydocs
from mirror.errors import MirrorError
from mirror.evaluation.sets.files import read_table, text
from mirror.evaluation.sets.score import Score, TestSet, Vectors, unit

NAMES = ("pydocs",)
COLUMNS = ("query", "document")


@dataclass
class RetrievalSet(TestSet):
    """Queries, and the document that answers each."""

    name: str
    queries: list[str]
    documents: list[str]

    def __post_init__(self) -> None:
        """Refuse a set on which nothing can be found."""
        if len(self.queries) != len(self.documents) or len(self.queries) < 2:
            raise MirrorError(f"The set {self.name} needs at least two queries with a document each.")
        if len(set(self.documents)) < len(self.documents):
            raise MirrorError(f"The set {self.name} has a document twice: a query would have two right answers.")
        if len(set(self.queries)) < len(self.queries):
            raise MirrorError(f"The set {self.name} has a query twice: it would have two right answers.")

    def __len__(self) -> int:
        return len(self.queries)

    def pairs(self) -> list[Pair]:
        """Each query with the document that answers it."""
        return list(zip(self.queries, self.documents, strict=True))

    def score_vectors(self, vectors: Mapping[str, Vectors]) -> Score:
        """Mean reciprocal rank, which says most about one right answer, and recall at 1 and 10.

        Of equally similar documents the right one counts as the last, so that equal vectors find nothing.
        """
        queries, documents = unit(self.queries, vectors, self.name), unit(self.documents, vectors, self.name)
        similarity = queries @ documents.T  # (N, N)
        right = np.diagonal(similarity)[:, None]
        rank = (similarity >= right).sum(axis=1)  # (N,), 1 is first
        protocols = {"mrr": (1 / rank).mean(), "recall@1": (rank <= 1).mean(), "recall@10": (rank <= 10).mean()}
        figures = {name: 100 * float(value) for name, value in protocols.items()}
        return Score(
            self.name, len(self), figures, "mrr", items=[1 / rank[:, None]], note=f"among {len(self):,} documents"
        )


def read(path: Path, name: str) -> RetrievalSet:
    """A file of queries, each with the document that answers it.

    Raises:
        MirrorError: it is malformed.
    """
    rows = list(enumerate(read_table(path, COLUMNS), start=2))
    sides = [[text(row, column, path, line) for line, row in rows] for column in COLUMNS]
    return RetrievalSet(name, *sides)


def load(name: str) -> RetrievalSet:
    """The set of that name in ``NAMES``; training on ``data=pydocs`` never sees its texts."""
    chosen = pydocs.held_out()
    return RetrievalSet(name, [function.summary for function in chosen], [function.description for function in chosen])
