import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from mirror import MirrorEncoder, MirrorError
from mirror.search.vectors import VECTORS, kept_vectors, nearest, unit_vectors
from tests.conftest import SENTENCES


@pytest.fixture
def encoder(tiny_bert: Path) -> MirrorEncoder:
    return MirrorEncoder.load(tiny_bert, "mean")


def folders(store: Path) -> list[Path]:
    return sorted(path for path in store.iterdir() if path.is_dir())


def forbid(encoder: MirrorEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    def encode(*arguments: object, **settings: object) -> None:
        raise AssertionError("the texts were encoded again")

    monkeypatch.setattr(encoder, "encode", encode)


def test_vectors_are_those_of_the_encoder_and_stay(
    encoder: MirrorEncoder, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = kept_vectors(encoder, SENTENCES, "notes", tmp_path / "store")
    expected = encoder.encode(SENTENCES)
    np.testing.assert_allclose(vectors, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-6)
    copy = shutil.copytree(tiny_bert, tmp_path / "copy")
    again = MirrorEncoder.load(copy, "mean")
    forbid(again, monkeypatch)
    np.testing.assert_array_equal(vectors, kept_vectors(again, SENTENCES, "notes", tmp_path / "store"))
    assert len(folders(tmp_path / "store")) == 1


@pytest.mark.parametrize("change", ["weights", "pooling", "max_tokens", "tokenizer"])
def test_another_encoder_has_vectors_of_its_own(
    change: str, encoder: MirrorEncoder, tiny_bert: Path, tmp_path: Path
) -> None:
    kept_vectors(encoder, SENTENCES, "notes", tmp_path)
    other = MirrorEncoder.load(
        tiny_bert, "cls" if change == "pooling" else "mean", max_tokens=3 if "max" in change else None
    )
    if change == "weights":
        with torch.no_grad():
            next(other.backbone.parameters())[7, 3] += 1
    if change == "tokenizer":
        other.tokenizer.add_tokens(["zyx"])
    vectors = kept_vectors(other, SENTENCES, "notes", tmp_path)
    np.testing.assert_allclose(vectors, unit_vectors(other, SENTENCES), atol=1e-6)
    assert len(folders(tmp_path)) == 2


def test_vectors_of_texts_that_changed_are_replaced(encoder: MirrorEncoder, tmp_path: Path) -> None:
    """Those of another collection stay."""
    kept_vectors(encoder, SENTENCES, "pydocs", tmp_path)
    kept_vectors(encoder, SENTENCES, "*", tmp_path)
    before = folders(tmp_path)
    vectors = kept_vectors(encoder, SENTENCES[1:], "*", tmp_path)
    assert len(vectors) == len(SENTENCES) - 1
    assert len(folders(tmp_path)) == 2
    assert len({*before} & {*folders(tmp_path)}) == 1


def test_nearest_is_exact(encoder: MirrorEncoder) -> None:
    vectors = unit_vectors(encoder, SENTENCES)
    cosines = encoder.similarity(SENTENCES[7], SENTENCES)[0]
    found = nearest(vectors, vectors[7], 5)
    assert [place for place, _ in found] == np.argsort(-cosines)[:5].tolist()
    assert [cosine for _, cosine in found] == pytest.approx(sorted(cosines)[::-1][:5], abs=1e-5)
    assert len(nearest(vectors[:3], vectors[7], 5)) == 3


def test_a_damaged_file_is_named(encoder: MirrorEncoder, tmp_path: Path) -> None:
    kept_vectors(encoder, SENTENCES, "notes", tmp_path)
    (folder,) = folders(tmp_path)
    (folder / VECTORS).write_bytes((folder / VECTORS).read_bytes()[:40])
    with pytest.raises(MirrorError, match=f"{folder.name}.* cannot be used .*remove it, or set"):
        kept_vectors(encoder, SENTENCES, "notes", tmp_path)


def test_a_place_that_cannot_be_written(encoder: MirrorEncoder, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MirrorError, match=r"set keep=false"):
        kept_vectors(encoder, SENTENCES, "notes", tmp_path / "file")
