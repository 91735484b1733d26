"""Published figures, for comparison with ours; Spearman × 100, all pairs of a set ranked together."""

from mirror.evaluation.sets.sts import AVERAGE, AVERAGED, sts_average

PUBLISHED = {
    "BERT-base, CLS (published leaderboards)": (21.54, 32.11, 21.28, 37.89, 44.24, 20.30, 42.42),
    "BERT-base, mean (published leaderboards)": (30.87, 59.89, 47.73, 60.29, 63.73, 47.29, 58.22),
    "Mirror-BERT, BERT-base (published leaderboards)": (69.1, 81.1, 73.0, 81.9, 75.7, 78.0, 69.1),
    "Mirror-BERT, RoBERTa-base (published leaderboards)": (66.6, 82.7, 74.0, 82.4, 79.7, 79.6, 69.7),
    "SimCSE, BERT-base, unsupervised (its README)": (68.40, 82.41, 74.38, 80.91, 78.56, 76.85, 72.23),
}
"""By model and source, in the order of ``AVERAGED``."""


def published(sets: list[str]) -> dict[str, dict[str, float]]:
    """The published figures on those of our sets that others report; empty where there is none."""
    rows = {}
    for name, scores in PUBLISHED.items():
        figures = dict(zip(AVERAGED, scores, strict=True))
        figures |= {AVERAGE: average} if (average := sts_average(figures)) is not None else {}
        rows[name] = {key: score for key, score in figures.items() if key in sets}
    return {name: scores for name, scores in rows.items() if scores}
