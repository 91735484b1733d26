"""The geometry of a space against loops over the definitions, and its course while training."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mirror import MirrorEncoder
from mirror.evaluation.geometry import geometry, sample
from mirror.evaluation.pairs import PairSet
from mirror.picture import draw_geometry
from tests.test_run import curve, equal, go, metrics, weights

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


def test_course_of_a_run(tiny_bert: Path, eval_dir: Path, tmp_path: Path) -> None:
    """It begins with the untouched model and ends with the encoder; to look on changes nothing."""
    overrides = ["eval=stsb", f"eval.data_dir='{eval_dir}'", "eval.geometry_every=2", "seed=1"]
    watched = go(tiny_bert, tmp_path / "watched", *overrides)
    course = metrics(tmp_path / "watched")["geometry_curve"]
    assert course["step"] == [0, 2, 3]
    found = metrics(tmp_path / "watched")["geometry"]
    assert found.keys() == {"raw cls", "raw mean", "tuned"}
    for name, values in found["raw cls"].items():  # the sample is whole here, so that both are the same pairs
        assert course[name][0] == pytest.approx(values, rel=1e-3)
        assert course[name][-1] == pytest.approx(found["tuned"][name], rel=1e-3)
        assert curve(tmp_path / "watched", f"geometry/{name}") == pytest.approx(course[name], rel=1e-3)
    assert (tmp_path / "watched" / "geometry.png").stat().st_size > 10_000
    alone = go(tiny_bert, tmp_path / "alone", "seed=1")
    assert equal(weights(alone), weights(watched))
    assert isinstance(watched, MirrorEncoder)


def test_no_look_without_pairs_or_wish(tiny_bert: Path, eval_dir: Path, tmp_path: Path) -> None:
    go(tiny_bert, tmp_path / "run", "eval=stsb", f"eval.data_dir='{eval_dir}'", "eval.geometry_every=0")
    assert "geometry_curve" not in metrics(tmp_path / "run")


def test_picture(tmp_path: Path) -> None:
    draw_geometry({"step": [0, 1], "alignment": [0.1, 0.2], "uniformity": [-1.0, -2.0]}, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
