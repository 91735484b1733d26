"""The geometry of a space against loops over the definitions."""

import numpy as np
import pytest
from numpy.typing import NDArray

from mirror.evaluation.geometry import geometry, sample
from mirror.evaluation.sets.pairs import PairSet

PAIRS = [(f"a{i}", f"b{i}") for i in range(12)] + [("a0", "b5")]


def vectors(dimension: int = 5) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    return {text: (rng.normal(size=dimension) * 10).astype(np.float32) for pair in PAIRS for text in pair}


def test_figures_by_naive_loops() -> None:
    by_text = vectors()
    unit = {text: vector / np.linalg.norm(vector) for text, vector in by_text.items()}
    texts = list(unit)
    apart = [(unit[a], unit[b]) for i, a in enumerate(texts) for b in texts[i + 1 :]]
    found = geometry(by_text, PAIRS)
    assert found.alignment == pytest.approx(np.mean([np.sum((unit[a] - unit[b]) ** 2) for a, b in PAIRS]), rel=1e-5)
    expected = np.log(np.mean([np.exp(-2 * np.sum((x - y) ** 2)) for x, y in apart]))
    assert found.uniformity == pytest.approx(expected, rel=1e-5)
    assert found.anisotropy == pytest.approx(np.mean([x @ y for x, y in apart]), rel=1e-4)
    values = np.sqrt(np.linalg.eigvalsh(np.array(list(unit.values())).T @ np.array(list(unit.values()))))
    share = values / values.sum()
    assert found.effective_rank == pytest.approx(np.prod(share**-share), rel=1e-4)


def test_extremes() -> None:
    """All vectors the same: aligned, not uniform, one dimension. Orthogonal ones: as many dimensions as vectors."""
    same = geometry({text: np.ones(4, dtype=np.float32) for text in vectors()}, PAIRS)
    assert (same.alignment, same.uniformity, same.anisotropy) == pytest.approx((0, 0, 1), abs=1e-6)
    assert same.effective_rank == pytest.approx(1, abs=1e-6)
    axes = np.eye(24, dtype=np.float32)
    even = geometry({text: axes[i] for i, text in enumerate(vectors())}, PAIRS)
    assert (even.alignment, even.anisotropy, even.effective_rank) == pytest.approx((2, 0, 24), abs=1e-4)
    assert even.uniformity == pytest.approx(-4)


def test_sample_is_of_positives_and_always_the_same() -> None:
    gold = np.arange(100.0)
    test = PairSet("x", [f"a{i}" for i in range(100)], [f"b{i % 90}" for i in range(100)], gold, ["x"] * 100)
    assert sample([test], 10) == sample([test], 10)
    assert {*sample([test], 10)} < {*test.positives()}
    assert sample([test]) == test.positives()
