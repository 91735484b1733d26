"""Smaller encoders load anywhere, and what they lose is measured."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mirror import MirrorEncoder, MirrorError
from mirror.compress import export
from mirror.config import ExportConfig
from mirror.config.compose import compose
from tests.conftest import SENTENCES
from tests.helpers import metrics


@pytest.fixture(scope="module")
def encoder(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder") / "encoder"
    MirrorEncoder.load(tiny_bert, "mean").save(folder, {"README.md": "# A card\n"})
    return folder


def exported(folder: Path, encoder: Path, eval_dir: Path, *typed: str) -> dict[str, dict[str, float]]:
    """The table of figures."""
    folder.mkdir()
    config = compose("export", [f"encoder={encoder}", f"eval.data_dir={eval_dir}", *typed])
    assert isinstance(config, ExportConfig)
    export(config, folder)
    found = metrics(folder)["export"]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(("weights", "kind"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_half_the_weights(weights: str, kind: torch.dtype, encoder: Path, eval_dir: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    rows = exported(tmp_path / "run", encoder, eval_dir, f"weights={weights}")
    saved = tmp_path / "run" / "encoder"
    assert {weight.dtype for weight in load_file(saved / "model.safetensors").values()} == {kind}
    assert rows["after"]["megabytes"] == rows["before"]["megabytes"] / 2
    assert 0 < rows["after"]["largest change of a cosine"] < 0.02
    before, after = (MirrorEncoder.load(folder).encode(SENTENCES[:9]) for folder in (encoder, saved))
    np.testing.assert_allclose(after, before, atol=0.05)
    theirs = SentenceTransformer(str(saved), device="cpu").encode(SENTENCES[:9])
    np.testing.assert_allclose(theirs, after, atol=0.1)
    assert (saved / "README.md").read_text().startswith("# A card\n\nMade smaller of")


def test_shorter_vectors(encoder: Path, eval_dir: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    (tmp_path / "texts.txt").write_text("\n".join(SENTENCES) + "\n")
    rows = exported(tmp_path / "run", encoder, eval_dir, "dimensions=8", f"input={tmp_path}/texts.txt")
    assert (rows["before"]["dimensions"], rows["after"]["dimensions"]) == (32, 8)
    ours = MirrorEncoder.load(tmp_path / "run" / "encoder").encode(SENTENCES[:9])
    theirs = SentenceTransformer(str(tmp_path / "run" / "encoder"), device="cpu").encode(SENTENCES[:9])
    assert ours.shape == (9, 8)
    np.testing.assert_allclose(theirs, ours, atol=1e-5)
    assert rows["after"]["megabytes"] == pytest.approx(rows["before"]["megabytes"] + 4 * (32 * 8 + 8) / 1e6)


def test_a_bag_of_token_vectors(encoder: Path, eval_dir: Path, tmp_path: Path) -> None:
    model2vec = pytest.importorskip("model2vec")
    from sentence_transformers import SentenceTransformer

    rows = exported(tmp_path / "run", encoder, eval_dir, "static=true", "dimensions=8")
    saved = tmp_path / "run" / "encoder"
    assert (rows["before"]["dimensions"], rows["after"]["dimensions"]) == (32, 8)
    assert rows["after"]["megabytes"] < rows["before"]["megabytes"]
    assert rows["after"]["largest change of a cosine"] > 0
    ours = model2vec.StaticModel.from_pretrained(saved).encode(SENTENCES[:9])
    theirs = SentenceTransformer(str(saved), device="cpu").encode(SENTENCES[:9])
    np.testing.assert_allclose(theirs, ours, atol=1e-5)
    # A bag: the order of the words makes no difference.
    both = SentenceTransformer(str(saved), device="cpu").encode(["a guitar at home", "home at guitar a"])
    np.testing.assert_allclose(both[0], both[1], atol=1e-5)
    assert "Distilled by model2vec from" in (saved / "README.md").read_text()


def test_static_without_its_library(
    encoder: Path, eval_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "model2vec", None)
    with pytest.raises(MirrorError, match=r"needs the package model2vec .*: pip install 'mirror-encoders\[static\]'"):
        exported(tmp_path / "run", encoder, eval_dir, "static=true")


@pytest.mark.parametrize(
    ("typed", "reason"),
    [
        ([], "Nothing gets smaller"),
        (["static=true", "weights=bf16"], r"static=true has no weights in bf16"),
        (["static=true", "input=texts.txt"], r"input=texts.txt is not read by static=true"),
        (["weights=auto"], r"weights=auto is out of range"),
        (["dimensions=8"], r"dimensions=8 is fitted on texts: add input="),
        (["dimensions=33", "input=texts.txt"], r"dimensions=33 is more than the 32 of"),
    ],
)
def test_refusals(
    typed: list[str], reason: str, encoder: Path, eval_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts.txt").write_text("\n".join(SENTENCES) + "\n")
    with pytest.raises(MirrorError, match=reason):
        exported(tmp_path / "run", encoder, eval_dir, *typed)
    assert not (tmp_path / "run" / "encoder").exists()
