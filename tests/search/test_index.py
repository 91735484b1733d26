import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from mirror import MirrorEncoder, MirrorError
from mirror.search.index import GRAPH, VECTORS, kept_vectors, nearest, nearest_in_graph, unit_vectors
from tests.conftest import SENTENCES, files_no_larger_than


@pytest.fixture
def encoder(tiny_bert: Path) -> MirrorEncoder:
    return MirrorEncoder.load(tiny_bert, "mean")


def forbid(encoder: MirrorEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    def encode(*arguments: object, **settings: object) -> None:
        raise AssertionError("the texts were encoded again")

    monkeypatch.setattr(encoder, "encode", encode)


def test_vectors_are_those_of_the_encoder_and_stay(
    encoder: MirrorEncoder, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors, folder = kept_vectors(encoder, SENTENCES, "notes", tmp_path / "store")
    expected = encoder.encode(SENTENCES)
    np.testing.assert_allclose(vectors, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-6)
    copy = shutil.copytree(tiny_bert, tmp_path / "copy")
    again = MirrorEncoder.load(copy, "mean")
    forbid(again, monkeypatch)
    other, same = kept_vectors(again, SENTENCES, "notes", tmp_path / "store")
    assert same == folder
    np.testing.assert_array_equal(vectors, other)


@pytest.mark.parametrize("change", ["weights", "pooling", "max_tokens", "tokenizer"])
def test_another_encoder_has_vectors_of_its_own(
    change: str, encoder: MirrorEncoder, tiny_bert: Path, tmp_path: Path
) -> None:
    _, first = kept_vectors(encoder, SENTENCES, "notes", tmp_path)
    other = MirrorEncoder.load(
        tiny_bert, "cls" if change == "pooling" else "mean", max_tokens=3 if "max" in change else None
    )
    if change == "weights":
        with torch.no_grad():
            next(other.backbone.parameters())[7, 3] += 1
    if change == "tokenizer":
        other.tokenizer.add_tokens(["zyx"])
    vectors, second = kept_vectors(other, SENTENCES, "notes", tmp_path)
    np.testing.assert_allclose(vectors, unit_vectors(other, SENTENCES), atol=1e-6)
    assert first != second
    assert first.exists()


def test_vectors_of_texts_that_changed_are_replaced(encoder: MirrorEncoder, tmp_path: Path) -> None:
    _, other = kept_vectors(encoder, SENTENCES, "pydocs", tmp_path)
    _, old = kept_vectors(encoder, SENTENCES, "*", tmp_path)
    vectors, new = kept_vectors(encoder, SENTENCES[1:], "*", tmp_path)
    assert len(vectors) == len(SENTENCES) - 1
    assert sorted(path for path in tmp_path.iterdir() if path.is_dir()) == sorted([other, new])
    assert not old.exists()


def test_nearest_is_exact(encoder: MirrorEncoder) -> None:
    vectors = unit_vectors(encoder, SENTENCES)
    cosines = encoder.similarity(SENTENCES[7], SENTENCES)[0]
    found = nearest(vectors, vectors[7], 5)
    assert [place for place, _ in found] == np.argsort(-cosines)[:5].tolist()
    assert [cosine for _, cosine in found] == pytest.approx(sorted(cosines)[::-1][:5], abs=1e-5)
    assert len(nearest(vectors[:3], vectors[7], 5)) == 3


def test_the_graph_finds_the_nearest_and_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faiss = pytest.importorskip("faiss")
    rng = np.random.default_rng(0)
    vectors = (rng.standard_normal((40, 32))[rng.integers(0, 40, 3000)] + rng.standard_normal((3000, 32))).astype("f4")
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = [nearest_in_graph(tmp_path, vectors, vectors[i], 10) for i in range(50)]
    exact = [nearest(vectors, vectors[i], 10) for i in range(50)]
    shared = [len({p for p, _ in a} & {p for p, _ in b}) for a, b in zip(found, exact, strict=True)]
    assert np.mean(shared) > 9.5
    assert found[3][0][0] == 3
    assert found[3][0][1] == pytest.approx(1, abs=1e-5)
    assert found[0][4][1] == pytest.approx(exact[0][4][1], abs=0.05)
    monkeypatch.setattr(faiss, "IndexHNSWFlat", None)  # not built again
    assert nearest_in_graph(tmp_path, vectors, vectors[3], 10) == found[3]
    assert [path.name for path in tmp_path.iterdir()] == [GRAPH]
    assert len(nearest_in_graph(tmp_path, vectors, vectors[3], 3000)) == 3000


def test_more_than_the_graph_leads_to(tmp_path: Path) -> None:
    """Equal vectors can cut a graph in pieces: what is found is true, and nothing else is told."""
    pytest.importorskip("faiss")
    vectors = np.eye(4, dtype="f4")[np.arange(4).repeat(500)]
    found = nearest_in_graph(tmp_path, vectors, vectors[0], 2000)
    assert found
    assert all(0 <= place < 2000 for place, _ in found)
    assert [cosine for _, cosine in found] == [float(place < 500) for place, _ in found]


def test_a_graph_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    vectors = np.eye(64, dtype="f4")
    with files_no_larger_than(1000), pytest.raises(MirrorError, match=r"cannot be used .*index=exact"):
        nearest_in_graph(tmp_path, vectors, vectors[0], 2)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("file", [VECTORS, GRAPH])
def test_a_damaged_file_is_named(file: str, encoder: MirrorEncoder, tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    vectors, folder = kept_vectors(encoder, SENTENCES, "notes", tmp_path)
    nearest_in_graph(folder, vectors, vectors[0], 2)
    (folder / file).write_bytes((folder / file).read_bytes()[:40])
    with pytest.raises(MirrorError, match=f"{folder.name}.* cannot be used .*remove it, or set"):
        nearest_in_graph(folder, kept_vectors(encoder, SENTENCES, "notes", tmp_path)[0], vectors[0], 2)


def test_a_place_that_cannot_be_written(encoder: MirrorEncoder, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MirrorError, match=r"set keep=false"):
        kept_vectors(encoder, SENTENCES, "notes", tmp_path / "file")


def test_the_index_needs_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(MirrorError, match=r"needs the package faiss: pip install 'mirror-encoders\[index\]'"):
        index_module.check_faiss()
