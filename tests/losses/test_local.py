"""The local loss: its gradients group by group, on every architecture; a run, and what it does not take."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel

from mirror import MirrorEncoder, MirrorError
from mirror.adapt.layers import heights
from mirror.config.compose import compose
from mirror.losses.embedder import Embedder
from mirror.losses.infonce import info_nce
from mirror.losses.local import Local
from mirror.runs.record import by_step
from mirror.training.run import train
from tests.architectures import ARCHITECTURES, build
from tests.conftest import SENTENCES
from tests.losses.inputs import STEPS, TEMPERATURE, batches, loaded

LAYERS = 3
TYPED = ["loss=local", "eval=none", "model=bert", "data.size=32", "batch.size=16", "trainer=cpu"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("bert", tmp_path_factory.mktemp("local") / "bert")


def three_layers(name: str, folder: Path) -> Path:
    """A tiny model of an architecture, of which some have two layers."""
    build(name, folder)
    config = AutoConfig.from_pretrained(folder)
    config.num_hidden_layers = LAYERS
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(folder)
    return folder


def gradients(loss: Tensor, encoder: MirrorEncoder) -> dict[str, Tensor]:
    learning = ((name, weight) for name, weight in encoder.backbone.named_parameters() if weight.requires_grad)
    names, weights = zip(*learning, strict=True)
    found = torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True)
    return {name: grad for name, grad in zip(names, found, strict=True) if grad is not None}


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("name", sorted({*ARCHITECTURES} - {"albert", "xlm"}))
def test_each_group_learns_from_its_own_loss(name: str, pooling: str, tmp_path: Path) -> None:
    """A weight's gradient is the sum, over the groups that hold its layer, of what the whole model would give it."""
    encoder = loaded(three_layers(name, tmp_path / name))
    encoder.pooling = encoder.make_pooling(pooling)
    embed, batch = Embedder(encoder), batches(encoder)[STEPS[0]]
    loss = Local(embed, TEMPERATURE)
    found = loss(embed, batch)
    assert list(found) == ["loss", "layer_2", "layer_3"]
    together = gradients(found["loss"], encoder)

    top, *lower = embed.with_layers(batch, loss.poolings)
    height = heights(encoder.backbone)
    expected: dict[str, Tensor] = {}
    for depth, vectors in enumerate([*lower, top], start=2):
        part = info_nce(vectors, batch.text_ids, TEMPERATURE, mask_duplicates=True)
        torch.testing.assert_close(found[f"layer_{depth}"], part)
        group = {depth - 1, depth, *([0] if depth == 2 else [])}
        for weight, grad in gradients(part, encoder).items():
            if height[weight] in group:
                expected[weight] = expected.get(weight, torch.zeros(())) + grad / (LAYERS - 1)
    of_all_layers = ("relative", "rel_emb", "encoder.LayerNorm")  # relative positions of MPNet and DeBERTa
    shared = {weight for weight in height if any(part in weight for part in of_all_layers)}
    assert {*together} - shared == {*expected} - shared
    for weight in expected.keys() - shared:
        torch.testing.assert_close(together[weight], expected[weight], rtol=1e-3, atol=1e-6, msg=weight)
    # Without the stops, the first layer would also learn from the last loss.
    plain = gradients(torch.stack([found["layer_2"].detach(), part]).mean(), encoder)
    assert any(height[weight] == 1 for weight in plain)


def test_a_shared_layer_has_the_same_dropout_twice(bert: Path) -> None:
    encoder = loaded(bert, dropout=0.3)
    embed, batch = Embedder(encoder), batches(encoder)[STEPS[0]]
    loss = Local(embed, TEMPERATURE)
    torch.manual_seed(1)
    found = loss(embed, batch)
    torch.manual_seed(1)
    top, lower = embed.with_layers(batch, loss.poolings)
    for part, vectors in (("layer_2", lower), ("layer_3", top)):
        assert found[part].equal(info_nce(vectors, batch.text_ids, TEMPERATURE, mask_duplicates=True))


def test_run_to_the_end(bert: Path, tmp_path: Path) -> None:
    train(compose("train", [*TYPED, "trainer.progress=false", f"model.path='{bert}'"]), tmp_path, SENTENCES[:32])
    for name in ("loss", "layer_2", "layer_3"):
        assert len(by_step(tmp_path, name)) == 2
    card = (tmp_path / "encoder" / "README.md").read_text()
    assert "| loss | InfoNCE (nt_xent) in 2 groups of layers, temperature 0.04 |" in card


def test_two_layers_are_one_group(tiny_bert: Path, tmp_path: Path) -> None:
    with pytest.raises(MirrorError, match="has 2 layers, and two are one group"):
        train(compose("train", [*TYPED, f"model.path='{tiny_bert}'"]), tmp_path, SENTENCES[:32])


@pytest.mark.parametrize("name", ["albert", "xlm"])
def test_layers_that_are_no_list(name: str, tmp_path: Path) -> None:
    model = build(name, tmp_path / name)
    with pytest.raises(MirrorError, match="wants a model with a list of several layers"):
        train(compose("train", [*TYPED, f"model.path='{model}'"]), tmp_path, SENTENCES[:32])


def test_no_gradient_caching(bert: Path, tmp_path: Path) -> None:
    with pytest.raises(MirrorError, match=r"^batch\.micro=4: Local encodes a batch as a whole; leave it out"):
        train(compose("train", [*TYPED, "batch.micro=4", f"model.path='{bert}'"]), tmp_path, SENTENCES[:32])
