"""Span masking takes what it says from where it says; dropout and drophead reach every layer and stay finite."""

import re
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from mirror.config import AugConfig, DataConfig, Sample, SpanUnit
from mirror.data.texts import read_texts
from mirror.data.views import DropHead, Span, mask_span, set_dropout
from mirror.encoder.encoder import MirrorEncoder
from mirror.errors import MirrorError
from tests.conftest import SENTENCES

MASK = "<mask>"
DISTINCT = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMN"
"""Forty characters, each once: where a span was taken can be read from the result."""
OFFICIAL = {"literal_mask": True, "spaced_mask": True, "first_match": True, "spare_last": True}


def no_tokens(text: str) -> list[Span]:
    raise AssertionError("only aug.unit=token asks for tokens")


def mask(text: str, seed: int = 0, **aug: Any) -> str:
    return mask_span(text, Random(seed), AugConfig(**aug), MASK, no_tokens)


@pytest.mark.parametrize("k", [1, 5, 17])
@pytest.mark.parametrize("text", SENTENCES[::40])
def test_exactly_k_characters_become_one_mask(text: str, k: int) -> None:
    possible = {text[:i] + MASK + text[i + k :] for i in range(len(text) - k + 1)}
    assert {mask(text, seed, span_k=k) for seed in range(50)} <= possible


def starts(**aug: Any) -> Counter[int]:
    rng, config = Random(0), AugConfig(**aug)
    return Counter(mask_span(DISTINCT, rng, config, MASK, no_tokens).index(MASK) for _ in range(36_000))


def test_every_place_is_equally_likely() -> None:
    found = starts(span_k=5)
    assert set(found) == set(range(36))  # from the first character to the last
    assert all(750 < count < 1250 for count in found.values())  # 1000 expected, standard deviation 31


def test_last_character_is_spared_on_request() -> None:
    assert set(starts(span_k=5, spare_last=True)) == set(range(35))


@pytest.mark.parametrize(
    ("text", "aug"),
    [
        (DISTINCT, {"span_k": 0}),
        (DISTINCT[:29], {}),
        ("short", {}),
        ("", {"min_chars": 0}),
        (DISTINCT[:5], {"span_k": 5, "min_chars": 0}),  # nothing would be left of it
        (DISTINCT, {"span_k": 40}),
        ("one two three four five six seven", {"span_k": 7, "unit": SpanUnit.word}),
    ],
)
def test_text_is_left_whole_and_nothing_drawn(text: str, aug: dict[str, Any]) -> None:
    rng = Random(0)
    state = rng.getstate()
    assert mask_span(text, rng, AugConfig(**aug), MASK, no_tokens) == text
    assert rng.getstate() == state


@pytest.mark.parametrize(("text", "aug"), [(DISTINCT[:30], {}), (DISTINCT[:6], {"span_k": 5, "min_chars": 0})])
def test_shortest_text_that_is_masked(text: str, aug: dict[str, Any]) -> None:
    assert len(mask(text, **aug)) == len(text) - 5 + len(MASK)


@pytest.mark.parametrize("k", [1, 2])
def test_words_are_masked_whole(k: int) -> None:
    text = "  the quick brown fox jumps over   the lazy dog."
    words = [match.span() for match in re.finditer(r"\S+", text)]
    possible = {text[: words[i][0]] + MASK + text[words[i + k - 1][1] :] for i in range(len(words) - k + 1)}
    assert {mask(text, seed, span_k=k, unit=SpanUnit.word) for seed in range(200)} == possible


def test_tokens_are_masked_whole(tiny_bert: Path) -> None:
    encoder = MirrorEncoder.load(tiny_bert)
    text = SENTENCES[3]
    spans = encoder.token_spans(text)
    assert len(spans) < len(text)
    possible = {text[: spans[i][0]] + "[MASK]" + text[spans[i + 1][1] :] for i in range(len(spans) - 1)}
    aug = AugConfig(span_k=2, unit=SpanUnit.token)
    found = {mask_span(text, Random(seed), aug, "[MASK]", encoder.token_spans) for seed in range(300)}
    assert found == possible


def test_literal_mask_is_bert_s_whatever_the_model() -> None:
    result = mask(DISTINCT, literal_mask=True)
    assert "[MASK]" in result
    assert MASK not in result


def test_spaced_mask_stands_between_spaces() -> None:
    assert mask(DISTINCT, spaced_mask=True) == mask(DISTINCT).replace(MASK, f" {MASK} ")


def test_first_match_masks_the_first_occurrence() -> None:
    text = "ha" * 20
    assert {mask(text, seed, first_match=True) for seed in range(50)} == {
        MASK + text[5:],
        "h" + MASK + text[6:],
    }
    assert len({mask(text, seed) for seed in range(50)}) > 10


def test_first_match_changes_nothing_where_the_span_stands_once() -> None:
    assert mask(DISTINCT, seed=3, first_match=True) == mask(DISTINCT, seed=3)


def test_share_of_official_masks_that_land_elsewhere(data_dir: Path) -> None:
    """About 0.64 % of the authors' sentences."""
    file = data_dir / "corpora" / "stsbenchmark_train_10k_sents_random_sampled.txt"
    table = read_texts(DataConfig(path=str(file), size=None, sample=Sample.first, deduplicate=False), 0)
    drawn = elsewhere = 0
    for seed, (text, _) in enumerate(table.pairs):
        official = mask(text, seed, **OFFICIAL)
        drawn += official != text
        elsewhere += official != mask(text, seed, **{**OFFICIAL, "first_match": False})
    assert drawn > 8_000
    assert 0.004 < elsewhere / drawn < 0.009


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

    def __init__(self, layer: nn.Module, backbone: nn.Module, rate: float) -> None:
        layer.register_forward_pre_hook(lambda _, inputs: setattr(self, "before", inputs[0].detach()))
        self.drophead = DropHead(backbone, rate)
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
    blocks = encoder.blocks(encoder.tokenize(SENTENCES))
    assert blocks[0].packed
    assert len(blocks[0].text_index) < len(SENTENCES)
    return encoder.train(), blocks


@pytest.mark.parametrize("rate", [0.2, 0.5, 0.99])
def test_drophead_scales_and_drops_by_text(rate: float, packed: tuple[MirrorEncoder, list[Any]]) -> None:
    encoder, blocks = packed
    seen = Heads(encoder.backbone.encoder.layer[1].attention.output.dense, encoder.backbone, rate)
    encoder.drophead = seen.drophead
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
    encoder.drophead = DropHead(encoder.backbone, 0.5)
    for k, layer in enumerate((first, second)):
        layer.register_forward_pre_hook(lambda _, inputs, k=k: records[k].append(inputs[0].detach() == 0))
    encoder(blocks)
    encoder(blocks)
    assert not torch.equal(records[0][0], records[1][0])
    assert not torch.equal(records[0][0], records[0][1])


def test_drophead_is_off_in_evaluation_and_after_removal(packed: tuple[MirrorEncoder, list[Any]]) -> None:
    encoder, blocks = packed
    plain_vectors = encoder(blocks)
    encoder.drophead = DropHead(encoder.backbone, 0.5)
    assert not torch.allclose(encoder(blocks), plain_vectors)
    assert torch.equal(encoder.eval()(blocks), plain_vectors)
    encoder.train()
    encoder.drophead.remove()
    assert torch.equal(encoder(blocks), plain_vectors)


def test_drophead_at_rate_0_changes_nothing(packed: tuple[MirrorEncoder, list[Any]]) -> None:
    encoder, blocks = packed
    plain_vectors = encoder(blocks)
    encoder.drophead = DropHead(encoder.backbone, 0.0)
    assert torch.equal(encoder(blocks), plain_vectors)


def test_drophead_s_gradients_are_finite(packed: tuple[MirrorEncoder, list[Any]]) -> None:
    encoder, blocks = packed
    encoder.drophead = DropHead(encoder.backbone, 0.99)
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
    drophead = DropHead(backbone, 0.5)
    assert len(drophead.handles) == (1 if kind == "albert" else 2)  # ALBERT's layers share their weights
    drophead.text_index, drophead.texts = torch.tensor([[0] * 12, [1] * 12]), 2
    a, b = outputs(backbone), outputs(backbone)
    assert torch.isfinite(a).all()
    assert not torch.equal(a, b)
    assert not torch.equal(a, whole)


@pytest.mark.parametrize("kind", ["xlnet", "xlm"])
def test_drophead_refuses_what_it_does_not_know(kind: str) -> None:
    with pytest.raises(MirrorError, match=r"aug\.drophead=0\.2 .*XL"):
        DropHead(small(kind), 0.2)
