"""The scores of several encoders on the same sets, for ``metrics.json`` and for the tables."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mirror.config import EvalConfig
from mirror.data.rows import Pair
from mirror.errors import MirrorError
from mirror.evaluation.certainty import Comparison, Interval, compare, distributions, interval, seed_interval
from mirror.evaluation.contamination import Overlap
from mirror.evaluation.cosines import EDGES, Histograms, histograms
from mirror.evaluation.geometry import Geometry, geometry, sample
from mirror.evaluation.resampling import Floats
from mirror.evaluation.residuals import Kind, WorstPair, kinds, neighbours, worst
from mirror.evaluation.sets import Score, TestSet, score_vectors, texts_of
from mirror.evaluation.sets.pairs import PairSet
from mirror.evaluation.sets.score import Vectors, over_seeds


@dataclass
class SetErrors:
    """Where encoders err on one set of graded pairs."""

    test: PairSet
    similarities: dict[str, Floats]
    """By column, the similarity of each pair."""
    kinds: list[Kind]
    worst: list[WorstPair]
    seen: set[str]
    """The columns that were trained on texts of the set."""


@dataclass
class Errors:
    """Where encoders err, and the nearest neighbours of ``eval.neighbours``."""

    sets: dict[str, SetErrors]
    neighbours: dict[str, dict[str, list[tuple[str, float]]]]
    """By column and word."""


@dataclass
class Results:
    """Scores by column: an encoder by one pooling, over one seed or several."""

    sets: list[TestSet]
    config: EvalConfig
    texts: list[str] = field(init=False)
    """Every text to be encoded, each once."""
    sample: list[Pair] = field(init=False)
    """Pairs that belong together, for the geometry."""
    seeds: dict[str, list[dict[str, Score]]] = field(default_factory=dict)
    """By column, the scores of each seed."""
    overlaps: dict[str, dict[str, Overlap]] = field(default_factory=dict)
    """By column, the overlap of its training texts with each set."""
    cosines: dict[str, Histograms] = field(default_factory=dict)
    """By column, of its last seed."""
    geometry: dict[str, Geometry] = field(default_factory=dict)
    """By column, of its last seed."""
    neighbours: dict[str, dict[str, list[tuple[str, float]]]] = field(default_factory=dict)
    """By column and word of ``eval.neighbours``, of its last seed."""
    _resampled: dict[str, dict[str, Floats]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._pool = texts_of(self.sets)
        self.texts = list(dict.fromkeys([*self._pool, *self.config.neighbours]))
        self.sample = sample(self.sets)

    def add(self, column: str, vectors: Vectors) -> dict[str, Score]:
        """Score one more encoder, or one more seed of it, by the vectors of ``texts``.

        Raises:
            MirrorError: vectors are zero or not finite, or no correlation exists.
        """
        by_text = dict(zip(self.texts, vectors, strict=True))
        try:
            scores = score_vectors(by_text, self.sets)
        except MirrorError as error:
            raise MirrorError(f"{column}: {error}") from error
        self.seeds.setdefault(column, []).append(scores)
        self.cosines[column] = histograms(by_text, self.sets)
        if self.sample:
            self.geometry[column] = geometry(by_text, self.sample)
        if self.config.neighbours:
            self.neighbours[column] = neighbours(by_text, self._pool, self.config.neighbours)
        self._resampled.pop(column, None)
        return scores

    @property
    def scores(self) -> dict[str, dict[str, Score]]:
        """By column and set, the means over the seeds."""
        return {
            column: {name: over_seeds([scores[name] for scores in seeds]) for name in seeds[0]}
            for column, seeds in self.seeds.items()
        }

    def intervals(self, column: str) -> dict[str, Interval | None]:
        """By set, and for the average of the seven, from bootstrap resamples of the pairs."""
        return {name: interval(figures) for name, figures in self._distributions().get(column, {}).items()}

    def comparisons(self, reference: str) -> list[Comparison]:
        """The reference compared with every other column.

        Where the reference is the first column, the others are compared against it; elsewhere it is compared against
        them.
        """
        columns = list(self.seeds)
        first = columns[0] == reference
        encoders = [(column, reference) if first else (reference, column) for column in columns if column != reference]
        return compare(self.scores, self._distributions(), encoders) if self.config.resamples else []

    def _distributions(self) -> dict[str, dict[str, Floats]]:
        if self.config.resamples:
            new = {column: scores for column, scores in self.scores.items() if column not in self._resampled}
            self._resampled |= distributions(new, self.config.resamples)
        return self._resampled

    def errors(self, columns: Sequence[str]) -> Errors:
        """Where these columns err on the sets of graded pairs, by their last seed; the last column leads."""
        found = {}
        for test in self.sets:
            if isinstance(test, PairSet):
                similarities = {column: self.seeds[column][-1][test.name].items[0][:, 0] for column in columns}
                seen = {column for column in columns if self._transductive(column, test.name)}
                kinds_of, worst_of = kinds(test, similarities), worst(test, similarities)
                found[test.name] = SetErrors(test, similarities, kinds_of, worst_of, seen)
        return Errors(found, {column: self.neighbours[column] for column in columns if column in self.neighbours})

    def _transductive(self, column: str, name: str) -> bool:
        overlap = self.overlaps.get(column, {}).get(name)
        return overlap is not None and overlap.transductive

    def plain(self) -> dict[str, Any]:
        """What ``metrics.json`` keeps; see ``mirror.runs.record``."""
        scores = self.scores
        return {
            "scores": {column: plain_scores(found) for column, found in scores.items()},
            "headlines": {name: score.headline for found in scores.values() for name, score in found.items()},
            "parts": {
                column: {name: score.parts for name, score in found.items() if score.parts}
                for column, found in scores.items()
            },
            "certainty": {column: self._certainty(column, found) for column, found in scores.items()},
            "contamination": {
                column: {name: found.plain() for name, found in overlaps.items()}
                for column, overlaps in self.overlaps.items()
            },
            "geometry": {column: found.plain() for column, found in self.geometry.items()},
            "cosines": {"edges": EDGES.round(4).tolist(), **self.cosines},
        }

    def _certainty(self, column: str, scores: dict[str, Score]) -> dict[str, dict[str, Any]]:
        figures: dict[str, dict[str, Any]] = {
            name: {"interval": reach} for name, reach in self.intervals(column).items()
        }
        for name, score in scores.items():
            if len(score.seeds) > 1:
                seeds = {"seeds": score.seeds, "sd": score.deviation, "seed_interval": seed_interval(score.seeds)}
                figures[name] = {**figures.get(name, {}), **seeds}
        return figures


def plain_scores(scores: dict[str, Score]) -> dict[str, dict[str, float]]:
    """Scores as ``metrics.json`` and the report read them."""
    return {name: {**score.protocols, "pairs": score.pairs} for name, score in scores.items()}
