"""Every architecture behind conf/model: loads, packs or pads, trains two steps, encodes, exports."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray

from mirror.config import Pooling
from mirror.config.compose import CONF, compose
from mirror.encoder.encoder import MirrorEncoder
from mirror.encoder.perturb import DropHead, set_dropout
from mirror.errors import MirrorError
from mirror.training.run import train
from tests.architectures import ARCHITECTURES, MODEL_FILES, build
from tests.conftest import SENTENCES

TEXTS = [*SENTENCES[::11], "Hm.", " ".join(SENTENCES[:2])]
"""Of many lengths; 24 of them."""
LAST = {"xlnet"}
"""Architectures whose CLS token ends the text."""


@dataclass
class Run:
    """A model, what two steps of training made of it, and the run's folder."""

    base: Path
    encoder: MirrorEncoder
    folder: Path

    @property
    def metrics(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.folder / "metrics.json").read_text())
        return content


@pytest.fixture(scope="module", params=sorted(ARCHITECTURES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def base(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(name, tmp_path_factory.mktemp("base") / name)


@pytest.fixture(scope="module")
def run(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("run")
    options = ["eval=none", "data.size=null", "batch.size=16", "optim.lr=1e-3", "trainer=cpu", "trainer.max_steps=2"]
    options += ["model=bert", f"model.path={base}", "trainer.precision=fp32", "trainer.progress=false"]
    config = compose("train", options)
    return Run(base, train(config, folder, SENTENCES[:32]), folder)


def by_hand(folder: Path, text: str, *, cls_last: bool = False) -> dict[Pooling, NDArray[np.float32]]:
    """The CLS and the mean vector of one text, from transformers alone."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
    return {Pooling.cls: hidden[-1 if cls_last else 0].numpy(), Pooling.mean: hidden.mean(dim=0).numpy()}


def test_every_model_file_has_a_tested_architecture() -> None:
    assert set(MODEL_FILES) == {path.stem for path in (CONF / "model").glob("*.yaml")} - {"suited"}
    assert set(MODEL_FILES.values()) == set(ARCHITECTURES)


def test_trains_two_steps(run: Run) -> None:
    metrics = run.metrics
    assert (metrics["status"], metrics["steps"]) == ("finished", 2)
    assert np.isfinite([metrics["loss"]["first"], metrics["loss"]["last"]]).all()
    assert metrics["loss"]["first"] != metrics["loss"]["last"]
    assert metrics["views"]["view_cosine"] < 0.9999
    assert metrics["views"]["masked_share"] == 1.0


def test_training_moves_the_encoder(run: Run) -> None:
    before = dict(MirrorEncoder.load(run.base).backbone.named_parameters())
    after = dict(run.encoder.backbone.named_parameters())
    weights = [name for name in before if name.endswith("weight") and "pooler" not in name]
    still = [name for name in weights if torch.equal(before[name], after[name])]
    assert len(still) <= 0.1 * len(weights), still


def test_encodes_alike_in_any_company(run: Run) -> None:
    vectors = run.encoder.encode(TEXTS)
    assert np.isfinite(vectors).all()
    assert np.linalg.norm(vectors[0] - vectors[1]) > 0.01
    np.testing.assert_array_equal(run.encoder.encode(TEXTS), vectors)
    np.testing.assert_allclose(run.encoder.encode(TEXTS[::-1])[::-1], vectors, atol=1e-5)
    np.testing.assert_allclose([run.encoder.encode(text) for text in TEXTS], vectors, atol=1e-5)
    np.testing.assert_allclose(run.encoder.encode(TEXTS, batch_tokens=64), vectors, atol=1e-5)


def test_packs_where_texts_stay_apart(name: str, base: Path) -> None:
    encoder = MirrorEncoder.load(base)
    tokens = encoder.layout.tokenize(TEXTS, 50)
    rows = encoder.layout.blocks(tokens)
    assert all(block.packed is ARCHITECTURES[name].packs for block in rows)
    encoder.layout.packing = False
    with torch.no_grad():
        laid, padded = encoder(rows), encoder(encoder.layout.blocks(tokens))
    torch.testing.assert_close(laid, padded, atol=1e-5, rtol=0)


def test_dropout_is_what_makes_two_passes_differ(base: Path) -> None:
    encoder = MirrorEncoder.load(base)
    blocks = encoder.layout.blocks(encoder.layout.tokenize(TEXTS, 50))
    encoder.train()
    with torch.no_grad():
        set_dropout(encoder.backbone, 0.1)
        assert (encoder(blocks) - encoder(blocks)).norm(dim=1).min() > 1e-2
        set_dropout(encoder.backbone, 0.0)
        assert torch.equal(encoder(blocks), encoder(blocks))


def test_drophead_works_or_says_that_it_does_not(name: str, base: Path) -> None:
    encoder = MirrorEncoder.load(base)
    if not ARCHITECTURES[name].drophead:
        with pytest.raises(MirrorError, match="drophead"):
            DropHead(0.2).attach(encoder)
        return
    DropHead(0.5).attach(encoder)
    set_dropout(encoder.backbone, 0.0)
    blocks = encoder.layout.blocks(encoder.layout.tokenize(TEXTS, 50))
    encoder.train()
    with torch.no_grad():
        first, second = encoder(blocks), encoder(blocks)
    assert torch.isfinite(first).all()
    assert (first - second).norm(dim=1).median() > 1e-2  # now and then a text draws the same heads twice


def test_saved_encoder_is_the_trained_one(run: Run) -> None:
    again = MirrorEncoder.load(run.folder / "encoder")
    assert again.pooling.name == "cls"
    np.testing.assert_allclose(again.encode(TEXTS), run.encoder.encode(TEXTS), atol=1e-5)


def test_saved_encoder_in_transformers(name: str, run: Run) -> None:
    for text in TEXTS[-3:]:
        expected = by_hand(run.folder / "encoder", text, cls_last=name in LAST)
        for pooling, vector in expected.items():
            again = MirrorEncoder.load(run.folder / "encoder", pooling)
            np.testing.assert_allclose(again.encode(text), vector, atol=1e-5)


def test_saved_encoder_in_sentence_transformers(run: Run) -> None:
    other = pytest.importorskip("sentence_transformers")
    vectors = other.SentenceTransformer(str(run.folder / "encoder"), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(vectors, run.encoder.encode(TEXTS), atol=1e-5)


@pytest.mark.parametrize("pooling", [Pooling.mean, Pooling.first_last])
def test_other_poolings_in_sentence_transformers(base: Path, pooling: Pooling, tmp_path: Path) -> None:
    other = pytest.importorskip("sentence_transformers")
    encoder = MirrorEncoder.load(base, pooling)
    encoder.save(tmp_path / "saved")
    vectors = other.SentenceTransformer(str(tmp_path / "saved"), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(vectors, encoder.encode(TEXTS), atol=1e-5)
