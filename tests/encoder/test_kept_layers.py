"""Models with some of their layers, in every architecture: they save, load and give what the layers alone give."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel

from mirror import MirrorEncoder, MirrorError
from tests.architectures import ARCHITECTURES, build
from tests.conftest import SENTENCES


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_fewer_layers_save_and_load(kind: str, tmp_path: Path) -> None:
    folder = build(kind, tmp_path / kind)
    whole = MirrorEncoder.load(folder, "mean")
    layers = whole.backbone.config.num_hidden_layers
    kept = [0, *range(2, layers)]  # ModernBERT's lowest layer stands at the bottom alone
    smaller = MirrorEncoder.load(folder, "mean", keep_layers=kept)
    assert smaller.backbone.config.num_hidden_layers == layers - 1
    smaller.save(tmp_path / "saved")
    again = MirrorEncoder.load(tmp_path / "saved")
    ours, theirs, before = (torch.from_numpy(e.encode(SENTENCES[:4])) for e in (smaller, again, whole))
    torch.testing.assert_close(theirs, ours)
    assert not torch.allclose(ours, before)
    same = torch.from_numpy(MirrorEncoder.load(folder, "mean", keep_layers=[*range(layers)]).encode(SENTENCES[:4]))
    torch.testing.assert_close(same, before)


def test_the_lower_layers_give_what_they_gave_in_the_whole(tiny_bert: Path) -> None:
    encoder = MirrorEncoder.load(tiny_bert, keep_layers=[0])
    tokens = encoder.tokenizer(SENTENCES[0], return_tensors="pt")
    whole = AutoModel.from_pretrained(tiny_bert)(**tokens, output_hidden_states=True).hidden_states[1][0, 0]
    torch.testing.assert_close(torch.from_numpy(encoder.encode(SENTENCES[0])), whole.detach(), rtol=1e-4, atol=1e-5)


def test_a_pooling_of_all_layers_is_made_for_those_that_stay(tiny_bert: Path, tmp_path: Path) -> None:
    MirrorEncoder.load(tiny_bert, "first_last").save(tmp_path / "saved")
    encoder = MirrorEncoder.load(tmp_path / "saved", keep_layers=[1])
    assert encoder.pooling.name == "first_last"
    assert encoder.encode(SENTENCES[:2]).shape == (2, 32)


def test_a_layer_that_cannot_stand_at_the_bottom(tmp_path: Path) -> None:
    folder = build("modernbert", tmp_path / "model")
    with pytest.raises(
        MirrorError, match=r"model\.keep_layers=\[1, 2\]: the layers of .* do not stand in each other's"
    ):
        MirrorEncoder.load(folder, keep_layers=[1, 2])


@pytest.mark.parametrize("pooling", ["first_last", "last_two"])
def test_one_layer_is_the_first_and_the_last(tiny_bert: Path, tmp_path: Path, pooling: str) -> None:
    encoder = MirrorEncoder.load(tiny_bert, pooling, keep_layers=[0])
    vectors = encoder.encode(SENTENCES[:4])
    np.testing.assert_allclose(
        vectors, MirrorEncoder.load(tiny_bert, "mean", keep_layers=[0]).encode(SENTENCES[:4]), atol=1e-6
    )
    encoder.save(tmp_path / "saved")
    np.testing.assert_array_equal(MirrorEncoder.load(tmp_path / "saved").encode(SENTENCES[:4]), vectors)
    theirs = SentenceTransformer(str(tmp_path / "saved")).encode(SENTENCES[:4])
    np.testing.assert_allclose(theirs, vectors, atol=1e-5)
