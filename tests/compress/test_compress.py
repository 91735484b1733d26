"""Smaller encoders load anywhere, and what they lose is measured."""

import copy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mirror import MirrorEncoder, MirrorError, mirror_tune
from mirror.compress.run import export
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
    assert rows["after"]["megabytes"] == pytest.approx(rows["before"]["megabytes"] / 2, rel=0.1)  # and a header
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
    assert rows["after"]["megabytes"] == pytest.approx(rows["before"]["megabytes"] + 4 * (32 * 8 + 8) / 1e6, rel=0.1)


def test_a_bag_of_token_vectors(encoder: Path, eval_dir: Path, tmp_path: Path) -> None:
    model2vec = pytest.importorskip("model2vec")
    from sentence_transformers import SentenceTransformer

    rows = exported(tmp_path / "run", encoder, eval_dir, "format=static", "dimensions=8")
    saved = tmp_path / "run" / "encoder"
    assert (rows["before"]["dimensions"], rows["after"]["dimensions"]) == (32, 8)
    assert rows["after"]["megabytes"] < rows["before"]["megabytes"]
    assert rows["after"]["largest change of a cosine"] > 0
    # One of nothing, one with a character that the vocabulary lacks.
    texts = [*SENTENCES[:9], "", "☃ a guitar"]
    ours = MirrorEncoder.load(saved).encode(texts)
    library = model2vec.StaticModel.from_pretrained(saved)
    np.testing.assert_allclose(ours, library.encode(texts), atol=1e-5)
    np.testing.assert_allclose(SentenceTransformer(str(saved), device="cpu").encode(texts[:9]), ours[:9], atol=1e-5)
    # A bag: the order of the words makes no difference.
    both = SentenceTransformer(str(saved), device="cpu").encode(["a guitar at home", "home at guitar a"])
    np.testing.assert_allclose(both[0], both[1], atol=1e-5)
    assert "Distilled by model2vec:" in (saved / "README.md").read_text()


@pytest.mark.parametrize("pooling", ["mean", "first_last"])
@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_a_graph_gives_the_same_vectors(
    kind: str, pooling: str, tiny_bert: Path, eval_dir: Path, tmp_path: Path
) -> None:
    MirrorEncoder.load(tiny_bert, pooling).save(tmp_path / "encoder")
    rows = exported(tmp_path / "run", tmp_path / "encoder", eval_dir, f"format={kind}")
    saved = tmp_path / "run" / "encoder"
    assert not [*saved.glob("*.safetensors")]
    ours, graph = MirrorEncoder.load(tmp_path / "encoder"), MirrorEncoder.load(saved)
    np.testing.assert_allclose(graph.encode(SENTENCES[:9]), ours.encode(SENTENCES[:9]), atol=1e-5)
    np.testing.assert_allclose(copy.deepcopy(graph).encode(SENTENCES[:2]), ours.encode(SENTENCES[:2]), atol=1e-5)
    assert rows["after"]["largest change of a cosine"] < 1e-5
    assert f'backend="{kind}"' in (saved / "README.md").read_text()


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_int8(kind: str, encoder: Path, eval_dir: Path, tmp_path: Path) -> None:
    whole = exported(tmp_path / "whole", encoder, eval_dir, f"format={kind}")["after"]
    rows = exported(tmp_path / "run", encoder, eval_dir, f"format={kind}", "weights=int8")["after"]
    assert rows["megabytes"] < whole["megabytes"]  # of so small a model the graph weighs more than the weights
    assert 1e-5 < rows["largest change of a cosine"] < 0.1


def test_a_graph_with_shorter_vectors(encoder: Path, eval_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("\n".join(SENTENCES) + "\n")
    shorter = ["dimensions=8", f"input={tmp_path}/texts.txt"]
    exported(tmp_path / "torch", encoder, eval_dir, *shorter)
    exported(tmp_path / "onnx", encoder, eval_dir, "format=onnx", *shorter)
    one, other = (MirrorEncoder.load(tmp_path / name / "encoder").encode(SENTENCES[:9]) for name in ("torch", "onnx"))
    assert one.shape == (9, 8)
    np.testing.assert_allclose(other, one, atol=1e-5)


def test_a_graph_is_neither_tuned_nor_exported_again(encoder: Path, eval_dir: Path, tmp_path: Path) -> None:
    exported(tmp_path / "run", encoder, eval_dir, "format=onnx")
    saved = tmp_path / "run" / "encoder"
    with pytest.raises(MirrorError, match=r"encoder=.* holds a graph of onnx and no weights"):
        exported(tmp_path / "again", saved, eval_dir, "weights=bf16")
    with pytest.raises(MirrorError, match=r"model=.* holds a graph of onnx and no weights"):
        mirror_tune(saved, SENTENCES, overrides={"eval.data_dir": str(eval_dir)})
    with pytest.raises(MirrorError, match="gives no other layers"):
        MirrorEncoder.load(saved, "first_last").encode("a text")


def test_static_without_its_library(
    encoder: Path, eval_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "model2vec.distill", None)
    with pytest.raises(MirrorError, match=r"needs the package model2vec .*: pip install 'mirror-encoders\[static\]'"):
        exported(tmp_path / "run", encoder, eval_dir, "format=static")


@pytest.mark.parametrize(
    ("typed", "reason"),
    [
        ([], "Nothing gets smaller"),
        (["format=static", "weights=bf16"], r"format=static has no weights=bf16: choose fp32, fp16, int8"),
        (["weights=int8"], r"format=torch has no weights=int8: choose fp32, bf16, fp16"),
        (["format=static", "input=texts.txt"], r"input=texts.txt is not read, format=static needs no texts"),
        (["weights=bf16", "input=texts.txt"], r"input=texts.txt is not read, only dimensions=… needs texts"),
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
