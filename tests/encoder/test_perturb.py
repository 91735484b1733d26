"""Dropout and drophead reach every layer, stay finite, and leave an encoder as they found it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from mirror.encoder.encoder import MirrorEncoder
from mirror.encoder.perturb import DropHead, Dropout, set_dropout
from mirror.errors import MirrorError
from tests.conftest import SENTENCES

# Shapes as small as the classes allow; dropout is set far from what the tests set.
SMALL: dict[str, dict[str, Any]] = {
    "bert": {"num_hidden_layers": 2},
    "roberta": {"num_hidden_layers": 2},
    "electra": {"num_hidden_layers": 2, "embedding_size": 16},
    "albert": {"num_hidden_layers": 2, "embedding_size": 16},
    "deberta-v2": {"num_hidden_layers": 2, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "mpnet": {"num_hidden_layers": 2},
    "modernbert": {"num_hidden_layers": 2, "pad_token_id": 0, "attention_dropout": 0.4, "mlp_dropout": 0.4},
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "attention_dropout": 0.4, "dropout": 0.4},
    "xlm": {"emb_dim": 32, "n_layers": 2, "n_heads": 4, "dropout": 0.4, "attention_dropout": 0.4},
    "xlnet": {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64, "dropout": 0.4},
}
ALIKE = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64}


def small(kind: str, **changes: Any) -> Any:
    """A backbone of two layers and four heads, in training mode."""
    settings = {"vocab_size": 50, **SMALL[kind], **changes}
    if kind not in ("distilbert", "xlm", "xlnet"):
        settings = {**ALIKE, "hidden_dropout_prob": 0.4, "attention_probs_dropout_prob": 0.4, **settings}
    torch.manual_seed(0)
    return AutoModel.from_config(AutoConfig.for_model(kind, **settings)).train()


def encoder_of(backbone: Any) -> MirrorEncoder:
    """As far as a perturbation looks: a backbone, and a block of two texts of twelve tokens."""
    block = SimpleNamespace(text_index=torch.tensor([[0] * 12, [1] * 12]), texts=[0, 1])
    return cast(MirrorEncoder, SimpleNamespace(backbone=backbone, block=block))


def outputs(backbone: Any) -> Tensor:
    hidden: Tensor = backbone(input_ids=torch.arange(5, 29).view(2, 12)).last_hidden_state
    return hidden.detach()


@pytest.mark.parametrize("kind", SMALL)
def test_set_dropout_reaches_everything(kind: str) -> None:
    backbone = small(kind)
    assert not torch.equal(outputs(backbone), outputs(backbone))
    set_dropout(backbone, 0.0)
    assert torch.equal(outputs(backbone), outputs(backbone))
    set_dropout(backbone, 0.1)
    assert not torch.equal(outputs(backbone), outputs(backbone))
    backbone.eval()
    assert torch.equal(outputs(backbone), outputs(backbone))


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "modernbert"])
def test_set_dropout_reaches_the_attention(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fused kernel takes the rate as an argument: no dropout module shows it."""
    rates: list[float] = []
    real = F.scaled_dot_product_attention

    def watched(*args: Any, **kwargs: Any) -> Tensor:
        rates.append(kwargs["dropout_p"])
        return real(*args, **kwargs)

    monkeypatch.setattr(F, "scaled_dot_product_attention", watched)
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    backbone = small(kind)
    set_dropout(backbone, 0.15)
    outputs(backbone)
    assert rates == [0.15, 0.15]


class Heads:
    """What drophead makes of the heads of one layer: its scale for each token and head."""

    def __init__(self, layer: nn.Module, encoder: MirrorEncoder, rate: float) -> None:
        layer.register_forward_pre_hook(lambda _, inputs: setattr(self, "before", inputs[0].detach()))
        self.drophead = DropHead(rate)
        self.drophead.attach(encoder)
        layer.register_forward_pre_hook(lambda _, inputs: setattr(self, "after", inputs[0].detach()))
        self.before, self.after = torch.empty(0), torch.empty(0)

    @property
    def scale(self) -> Tensor:
        """(R, W, H); every unit of a head has the same."""
        ratio: Tensor = (self.after / self.before).unflatten(-1, (self.drophead.heads, -1))
        assert torch.allclose(ratio, ratio[..., :1].expand_as(ratio), rtol=1e-4)
        return ratio[..., 0]


@pytest.fixture
def packed(tiny_bert: Path) -> tuple[MirrorEncoder, list[Any]]:
    """An encoder in training without dropout, and rows with several texts each."""
    encoder = MirrorEncoder.load(tiny_bert)
    set_dropout(encoder.backbone, 0.0)
    blocks = encoder.layout.blocks(encoder.layout.tokenize(SENTENCES))
    assert blocks[0].packed
    assert len(blocks[0].text_index) < len(SENTENCES)
    return encoder.train(), blocks


@pytest.mark.parametrize("rate", [0.2, 0.5, 0.99])
def test_drophead_scales_and_drops_by_text(rate: float, packed: tuple[MirrorEncoder, list[Any]]) -> None:
    encoder, blocks = packed
    seen = Heads(encoder.backbone.encoder.layer[1].attention.output.dense, encoder, rate)
    assert torch.isfinite(encoder(blocks)).all()
    owner = blocks[0].text_index
    by_text = []
    for text in range(len(SENTENCES)):
        of_text = seen.scale[owner == text]  # (tokens, H)
        assert torch.allclose(of_text, of_text[:1].expand_as(of_text), rtol=1e-4)
        by_text.append(of_text[0])
    scale = torch.stack(by_text)  # (B, H)
    kept = (scale > 0).sum(dim=1)
    assert (kept >= 1).all()
    # What is kept makes up for what is dropped: the sum over the heads is as without dropping.
    torch.testing.assert_close(scale.sum(dim=1), torch.full((len(SENTENCES),), 4.0), rtol=1e-4, atol=1e-4)
    # A head falls with probability `rate`, except where all would: then one stays.
    expected = 4 * (1 - rate) + rate**4
    assert abs(float(kept.float().mean()) - expected) < 0.25  # standard deviation of the mean: at most 0.065
    # Texts draw their own heads, so the two views of a text differ; all heads fall alike.
    assert len({tuple(row) for row in (scale > 0).tolist()}) > 3
    shares = (scale > 0).float().mean(dim=0)
    assert shares.max() - shares.min() < 0.2


def test_drophead_draws_anew_in_each_layer_and_pass(packed: tuple[MirrorEncoder, list[Any]]) -> None:
    encoder, blocks = packed
    first, second = (layer.attention.output.dense for layer in encoder.backbone.encoder.layer)
    records: dict[int, list[Tensor]] = {0: [], 1: []}
    DropHead(0.5).attach(encoder)
    for k, layer in enumerate((first, second)):
        layer.register_forward_pre_hook(lambda _, inputs, k=k: records[k].append(inputs[0].detach() == 0))
    encoder(blocks)
    encoder(blocks)
    assert not torch.equal(records[0][0], records[1][0])
    assert not torch.equal(records[0][0], records[0][1])


def test_drophead_is_off_in_evaluation_and_after_removal(packed: tuple[MirrorEncoder, list[Any]]) -> None:
    encoder, blocks = packed
    plain_vectors = encoder(blocks)
    drophead = DropHead(0.5)
    drophead.attach(encoder)
    assert not torch.allclose(encoder(blocks), plain_vectors)
    assert torch.equal(encoder.eval()(blocks), plain_vectors)
    encoder.train()
    drophead.detach()
    assert torch.equal(encoder(blocks), plain_vectors)


def test_drophead_at_rate_0_changes_nothing(packed: tuple[MirrorEncoder, list[Any]]) -> None:
    encoder, blocks = packed
    plain_vectors = encoder(blocks)
    DropHead(0.0).attach(encoder)
    assert torch.equal(encoder(blocks), plain_vectors)


def test_drophead_s_gradients_are_finite(packed: tuple[MirrorEncoder, list[Any]]) -> None:
    encoder, blocks = packed
    DropHead(0.99).attach(encoder)
    encoder(blocks).square().sum().backward()
    gradients = [p.grad for p in encoder.parameters() if p.grad is not None]
    assert gradients
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize(
    "kind", ["bert", "roberta", "electra", "albert", "deberta-v2", "mpnet", "modernbert", "distilbert"]
)
def test_drophead_works_on_the_common_families(kind: str) -> None:
    backbone = small(kind)
    set_dropout(backbone, 0.0)
    whole = outputs(backbone)
    hooks = sum(len(module._forward_pre_hooks) for module in backbone.modules())
    drophead = DropHead(0.5)
    drophead.attach(encoder_of(backbone))
    hooked = sum(len(module._forward_pre_hooks) for module in backbone.modules()) - hooks
    assert hooked == (1 if kind == "albert" else 2)  # ALBERT's layers share their weights
    a, b = outputs(backbone), outputs(backbone)
    assert torch.isfinite(a).all()
    assert not torch.equal(a, b)
    assert not torch.equal(a, whole)


@pytest.mark.parametrize("kind", ["xlnet", "xlm"])
def test_drophead_refuses_what_it_does_not_know(kind: str) -> None:
    with pytest.raises(MirrorError, match=r"aug\.drophead=0\.2 .*XL"):
        DropHead(0.2).attach(encoder_of(small(kind)))


def test_dropout_is_set_and_brought_back(tiny_bert: Path) -> None:
    encoder = MirrorEncoder.load(tiny_bert)

    def rates() -> list[float]:
        return [module.p for module in encoder.modules() if isinstance(module, nn.Dropout)]

    before = rates()
    with encoder.perturbed([Dropout(0.37)]):
        assert encoder.training
        assert {*rates()} == {0.37}
    assert rates() == before
    assert not encoder.training


def test_a_perturbation_that_fails_leaves_none_attached() -> None:
    backbone = small("xlnet")
    encoder = MirrorEncoder.__new__(MirrorEncoder)
    nn.Module.__init__(encoder)
    encoder.backbone = backbone
    before = [module.p for module in backbone.modules() if isinstance(module, nn.Dropout)]
    with pytest.raises(MirrorError, match="drophead"), encoder.perturbed([Dropout(0.0), DropHead(0.2)]):
        pass
    assert [module.p for module in backbone.modules() if isinstance(module, nn.Dropout)] == before
