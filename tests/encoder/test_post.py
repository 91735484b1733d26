"""Whitening and PCA, fitted on the training texts and saved with the encoder."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from mirror import MirrorEncoder, MirrorError
from mirror.config.compose import compose
from mirror.encoder.post import pca, whitening
from mirror.training.run import train
from tests.conftest import SENTENCES


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    mixed = np.random.default_rng(0).normal(size=(300, 12)) @ np.random.default_rng(1).normal(size=(12, 12)) + 3
    return mixed.astype(np.float32)


def test_whitened_vectors_have_no_direction(vectors: np.ndarray) -> None:
    found = mapped(vectors, whitening(vectors, None))
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(found.T @ found / len(found), np.eye(12), atol=1e-3)


def test_whitening_is_the_formula(vectors: np.ndarray) -> None:
    """(x - mean) U S^(-1/2), by the decomposition that the paper takes; directions are known but for their sign."""
    exact = vectors.astype(np.float64)
    u, s, _ = np.linalg.svd(np.cov(exact.T, bias=True))
    expected = (exact - exact.mean(axis=0)) @ (u @ np.diag(s**-0.5))[:, :5]
    found = mapped(vectors, whitening(vectors, 5))
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-3)


def test_pca_keeps_the_distances_that_it_can(vectors: np.ndarray) -> None:
    from sklearn.decomposition import PCA

    found = mapped(vectors, pca(vectors, 4))
    np.testing.assert_allclose(np.abs(found), np.abs(PCA(4).fit_transform(vectors.astype(np.float64))), atol=1e-3)
    whole = mapped(vectors, pca(vectors, None))
    before = np.linalg.norm(vectors[0] - vectors[1])
    assert np.linalg.norm(whole[0] - whole[1]) == pytest.approx(before, rel=1e-4)


@pytest.mark.parametrize("make", [whitening, pca])
def test_more_dimensions_than_the_vectors_span(make: object, vectors: np.ndarray) -> None:
    with pytest.raises(MirrorError, match=r"post\.dimensions=9: give more texts or lower it"):
        make(vectors[:8], 9)  # type: ignore[operator]
    with pytest.raises(MirrorError, match="span 0 dimensions"):
        make(np.ones((5, 4), dtype=np.float32), 1)  # type: ignore[operator]


def mapped(vectors: np.ndarray, stage: torch.nn.Module) -> np.ndarray:
    with torch.no_grad():
        result: np.ndarray = stage(torch.from_numpy(vectors), None, ()).numpy()
    return result


SMALL = [
    "data.size=60",
    "batch.size=16",
    "optim.lr=1e-3",
    "trainer.accelerator=cpu",
    "trainer.progress=false",
    "eval=none",
]


def run(folder: Path, model: Path, *typed: str) -> MirrorEncoder:
    texts = folder.parent / "texts.txt"
    texts.write_text("\n".join(SENTENCES[:80]))
    folder.mkdir()
    return train(compose("train", [f"data.path='{texts}'", f"model.path='{model}'", *SMALL, *typed]), folder)


def test_a_run_saves_what_sentence_transformers_runs(tiny_bert: Path, tmp_path: Path) -> None:
    encoder = run(tmp_path / "run", tiny_bert, "post=whitening", "post.dimensions=9")
    vectors = encoder.encode(SENTENCES[:20])
    assert vectors.shape == (20, 9)
    theirs = SentenceTransformer(str(tmp_path / "run" / "encoder"), device="cpu").encode(SENTENCES[:20])
    np.testing.assert_allclose(theirs, vectors, atol=2e-3)
    again = MirrorEncoder.load(tmp_path / "run" / "encoder")
    np.testing.assert_allclose(again.encode(SENTENCES[:20]), vectors, atol=1e-4)
    card = (tmp_path / "run" / "encoder" / "README.md").read_text()
    assert "| post-processing | whitening (dimensions 9) |" in card


def test_nothing_is_trained(tiny_bert: Path, tmp_path: Path) -> None:
    encoder = run(tmp_path / "run", tiny_bert, "experiment=whitening", "post.dimensions=9")
    untouched = MirrorEncoder.load(tiny_bert, "first_last")
    for name, weights in untouched.backbone.state_dict().items():
        if "pooler" in name:
            continue  # drawn, as the model has none
        assert torch.equal(weights, encoder.backbone.state_dict()[name])
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["steps"] == 0
    raw = untouched.encode(SENTENCES[:20])
    texts = (tmp_path / "texts.txt").read_text().splitlines()
    assert len(texts) == 80
    stage = encoder.pooling.stages[-1].cpu()
    np.testing.assert_allclose(encoder.encode(SENTENCES[:20]), mapped(raw, stage), atol=1e-3)


def test_each_seed_is_fitted_by_itself(tiny_bert: Path, tmp_path: Path) -> None:
    typed = ["post=whitening", "post.dimensions=9", "data.sample=first"]
    run(tmp_path / "both", tiny_bert, *typed, "seed=1", "seeds=2")
    for seed, place in ((1, tmp_path / "both"), (2, tmp_path / "both" / "seed-2")):
        run(tmp_path / f"alone-{seed}", tiny_bert, *typed, f"seed={seed}")
        alone = MirrorEncoder.load(tmp_path / f"alone-{seed}" / "encoder").encode(SENTENCES[:5])
        np.testing.assert_allclose(MirrorEncoder.load(place / "encoder").encode(SENTENCES[:5]), alone, atol=1e-5)


@pytest.mark.parametrize("size", [33, 60])
def test_too_many_dimensions_are_refused_before_training(size: int, tiny_bert: Path, tmp_path: Path) -> None:
    with pytest.raises(MirrorError, match=f"post.dimensions={size}: 60 texts with vectors of 32 span 32 at most"):
        run(tmp_path / "run", tiny_bert, "post=whitening", f"post.dimensions={size}")
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize("also", ["select=best", "trainer.max_steps=3"])
def test_nothing_trained_takes_nothing_of_training(also: str) -> None:
    with pytest.raises(MirrorError, match=r"trainer\.max_epochs=0 trains nothing"):
        compose("train", ["trainer.max_epochs=0", also])
