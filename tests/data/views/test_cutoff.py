"""ConSERT's changes of the embeddings: which they are, of which view, packed and padded."""

from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor

from mirror.config import BatchConfig, EmbeddingChange
from mirror.config.compose import compose
from mirror.config.parts import check_part
from mirror.data.batches import BatchKey, MirroredPairs
from mirror.data.rows import Pair
from mirror.data.view_check import check_views
from mirror.data.views import Cutoff
from mirror.encoder.encoder import MirrorEncoder
from mirror.encoder.packing import TokenBlock
from mirror.encoder.perturb import Dropout, EmbeddingCutoff
from mirror.errors import MirrorError
from mirror.runs.record import by_step
from mirror.training.run import train
from tests.architectures import build
from tests.conftest import SENTENCES
from tests.helpers import ids_of, stop_and_resume

NONE, FEATURE, TOKEN, SHUFFLE = EmbeddingChange
PAIRS: list[Pair] = [(text, text) for text in SENTENCES]


@pytest.fixture(params=["bert", "roberta"])
def encoder(request: pytest.FixtureRequest, tmp_path: Path) -> MirrorEncoder:
    return MirrorEncoder.load(build(request.param, tmp_path / request.param))


def made(encoder: MirrorEncoder, views: Cutoff, seed: int = 0, **batch: Any) -> MirroredPairs:
    return MirroredPairs(PAIRS, encoder.layout, views, BatchConfig(**batch), seed)


def cut(encoder: MirrorEncoder, views: Cutoff, block: TokenBlock) -> list[Tensor]:
    """The embeddings of each text of a block, (tokens, D), as the layers get them."""
    seen: list[Tensor] = []
    with encoder.perturbed([Dropout(0.0), *views.perturbations()]):
        handle = encoder.backbone.embeddings.register_forward_hook(lambda *found: seen.append(found[2].detach()))
        encoder([block])
        handle.remove()
    owner = block.text_index.flatten()
    return [seen[0].flatten(0, 1)[owner == text] for text in range(len(block.texts))]


@pytest.mark.parametrize("pack", [True, False])
def test_each_view_is_cut_in_its_own_way(encoder: MirrorEncoder, pack: bool) -> None:
    encoder.layout.packing = pack
    views = Cutoff(encoder.layout, FEATURE, TOKEN)
    blocks = [block for part in made(encoder, views, size=40)[BatchKey(0, 0)].sides[0] for block in part]
    assert blocks[0].packed is pack
    assert torch.cat([block.views for block in blocks]).bincount().tolist() == [40, 40]
    features: Counter[int] = Counter()
    for block in blocks:
        for text, view in zip(cut(encoder, views, block), block.views, strict=True):
            zeros = text == 0
            if view == 0:
                columns = zeros.all(dim=0)
                assert columns.sum() == int(0.2 * 32) == zeros.sum() / len(text)
                features.update(columns.nonzero().flatten().tolist())
            else:
                assert zeros.all(dim=1).sum() == int(0.2 * len(text)) > 0
                assert zeros.sum() == int(0.2 * len(text)) * 32
    assert len(features) == 32  # each text draws its own


def test_parts_and_sides_know_their_views(encoder: MirrorEncoder) -> None:
    views = Cutoff(encoder.layout)
    parts = made(encoder, views, size=40, micro=15)[BatchKey(0, 0)].sides[0]
    assert len(parts) == 3
    order = [[block.views[block.texts.argsort()] for block in part] for part in parts]
    assert [len(part) for part in order] == [1, 1, 1]
    assert torch.cat([part[0] for part in order]).tolist() == [0] * 40 + [1] * 40
    apart = MirroredPairs(PAIRS, encoder.layout, views, BatchConfig(size=40), 0, apart=True)[BatchKey(0, 0)]
    assert [side[0][0].views.unique().tolist() for side in apart.sides] == [[0], [1]]


def test_nothing_is_cut_outside_training(encoder: MirrorEncoder) -> None:
    before = encoder.encode(SENTENCES[:5])
    views = Cutoff(encoder.layout)
    with encoder.perturbed(views.perturbations()):
        encoder.eval()
        assert (encoder.encode(SENTENCES[:5]) == before).all()
    assert not encoder.backbone.embeddings._forward_hooks


def test_shuffled_tokens_are_shuffled_positions(encoder: MirrorEncoder) -> None:
    """What the authors do to position ids, beside it."""
    views = Cutoff(encoder.layout, NONE, SHUFFLE)
    encoder.pooling = encoder.make_pooling("last_two")
    ids = encoder.layout.tokenize(SENTENCES[:1])["input_ids"][0]
    places = views.places(ids, 1, Random(3))
    assert sorted(places) == list(range(len(ids))) != places
    assert views.places(ids, 0, Random(3)) == list(range(len(ids)))
    first = encoder.layout.first_position(64)
    assert first is not None
    positions = torch.empty(len(ids), dtype=torch.long)
    positions[places] = torch.arange(len(ids))
    with torch.inference_mode():
        output = encoder.backbone(
            torch.tensor([ids]), position_ids=first + positions[None], output_hidden_states=True, return_dict=True
        )
        expected = torch.stack(output.hidden_states[-2:]).mean(0).mean(1)
        blocks = encoder.layout.blocks({"input_ids": [[ids[place] for place in places]]})
        torch.testing.assert_close(encoder(blocks), expected, atol=1e-5, rtol=0)
        encoder.pooling = encoder.make_pooling("cls")  # found wherever it stands
        torch.testing.assert_close(encoder(blocks), output.last_hidden_state[:, 0], atol=1e-5, rtol=0)


def test_batches_follow_from_the_seed(encoder: MirrorEncoder) -> None:
    views = Cutoff(encoder.layout)
    key = BatchKey(1, 1)
    rows = [ids_of(made(encoder, views, seed, size=40)[key].sides[0][0]) for seed in (0, 0, 1)]
    assert rows[0] == rows[1] != rows[2]
    assert [sorted(row) for row in rows[0][:40]] == [sorted(row) for row in rows[0][40:]]
    found = check_views(made(encoder, views, size=40), encoder, [Dropout(0.0), *views.perturbations()])
    assert found.changed == 1
    assert found.cosine < 1 - 1e-3


def test_texts_too_short(encoder: MirrorEncoder) -> None:
    short: list[Pair] = [("a", "a"), ("at", "at")]
    with pytest.raises(MirrorError, match=r"None of the 2 texts is long enough for this aug= \(nothing changed in"):
        MirroredPairs(short, encoder.layout, Cutoff(encoder.layout, NONE, TOKEN), BatchConfig(), 0)
    assert Cutoff(encoder.layout).unchangeable(short) == 0


@pytest.mark.parametrize("name", ["xlnet", "xlm"])
def test_models_without_such_a_layer_are_refused(name: str, tmp_path: Path) -> None:
    encoder = MirrorEncoder.load(build(name, tmp_path / name))
    with pytest.raises(MirrorError, match=r"aug=cutoff does not work with XL\w+, which has no layer of all its"):
        EmbeddingCutoff([0.2, 0.0], [0.0, 0.0]).attach(encoder)
    places = Cutoff(encoder.layout, NONE, SHUFFLE).places(list(range(20)), 1, Random(0))
    assert (places[0] == 0) is (name == "xlm")  # whose first token is taken for its CLS


@pytest.mark.parametrize(("setting", "value"), [("share", 0.0), ("share", 1.0), ("left", "rows")])
def test_settings_out_of_range(setting: str, value: Any) -> None:
    with pytest.raises(MirrorError, match=rf"aug.{setting}={value}"):
        check_part({"_target_": "mirror.data.views.Cutoff", setting: value}, "aug", "layout")


def test_a_run_to_its_end_and_resumed(tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(SENTENCES[:100]))
    config = compose("train", [
        "aug=cutoff", f"data.path='{texts}'", f"model.path='{tiny_bert}'", "eval=none", "data.size=44", "batch.size=16",
        "batch.micro=5", "trainer.max_epochs=2", "trainer.precision=fp32", "trainer.accelerator=cpu",
        "trainer.progress=false", "checkpoint_every=2",
    ])  # fmt: skip
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    whole.mkdir()
    stopped.mkdir()
    train(config, whole)
    stop_and_resume(config, stopped, monkeypatch)
    assert len(by_step(whole)) == 6
    assert by_step(stopped) == by_step(whole)
    card = (whole / "encoder" / "README.md").read_text()
    assert "| 20 % of the embeddings' features cut in the left view, positions shuffled in the right view, drop" in card
