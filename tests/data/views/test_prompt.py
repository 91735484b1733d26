"""Texts in templates: tokens, the mask token's state, denoising, what is saved, and a run to its end."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mirror.config import BatchConfig
from mirror.config.compose import compose
from mirror.config.parts import check_part
from mirror.data.batches import BatchKey, MirroredPairs
from mirror.data.rows import Pair
from mirror.data.view_check import check_views
from mirror.data.views import Prompt, Repetition
from mirror.encoder.encoder import MirrorEncoder
from mirror.encoder.perturb import Dropout
from mirror.encoder.prompt import Denoising, MaskPooling
from mirror.errors import MirrorError
from mirror.runs.record import by_step
from mirror.training.run import train
from tests.architectures import build
from tests.conftest import SENTENCES
from tests.helpers import ids_of, stop_and_resume

ONE, OTHER = 'This sentence of "{text}" means {mask}.', "{mask} is: {text}!"
MASK = {"_target_": "mirror.encoder.prompt.MaskPooling"}
PAIRS: list[Pair] = [(text, text) for text in SENTENCES]


@pytest.fixture(params=["bert", "roberta", "xlnet"])
def encoder(request: pytest.FixtureRequest, tmp_path: Path) -> MirrorEncoder:
    return MirrorEncoder.load(build(request.param, tmp_path / request.param), {**MASK, "template": ONE})


def made(encoder: MirrorEncoder, views: Any = None, **batch: Any) -> MirroredPairs:
    views = views or Prompt(encoder.pooling.template, OTHER)
    return MirroredPairs(
        PAIRS, encoder.layout, views, BatchConfig(max_tokens=100, **batch), 0, template=encoder.pooling.template
    )


def framed(encoder: MirrorEncoder, text: str, template: str) -> list[int]:
    """As the authors put the tokens together; XLNet's special tokens both end a text."""
    tokenizer, (left, right) = (
        encoder.tokenizer,
        template.replace("{mask}", encoder.tokenizer.mask_token).split("{text}"),
    )
    plain: list[int] = tokenizer.encode(text, add_special_tokens=False)
    before, after = tokenizer.encode(left.rstrip()), tokenizer.encode(right)
    whole: list[int] = before[:-2] + plain + after if encoder.layout.cls_last else before[:-1] + plain + after[1:]
    return whole


def bare(encoder: MirrorEncoder, length: int, template: str) -> Tensor:
    """The state of the mask token in a template alone, the end of which stands as behind ``length`` tokens."""
    left, right = encoder.layout.frame(template)
    before, after = left["input_ids"], right["input_ids"]
    ids = torch.tensor([before + after])
    first = encoder.layout.first_position(64)
    places = {}
    if first is not None:
        gap = [*range(len(before)), *range(len(before) + length, len(before) + length + len(after))]
        places = {"position_ids": first + torch.tensor([gap])}
    types = {name: torch.tensor([left[name] + right[name]]) for name in left if name == "token_type_ids"}
    states: Tensor = encoder.backbone(ids, **places, **types, return_dict=True).last_hidden_state[0]
    return states[(ids[0] == encoder.tokenizer.mask_token_id).nonzero()[0, 0]].detach()


@pytest.mark.parametrize("template", [ONE, OTHER])
def test_tokens_in_a_template(encoder: MirrorEncoder, template: str) -> None:
    tokens = encoder.layout.tokenize(SENTENCES[:30], template=template)
    assert tokens["input_ids"] == [framed(encoder, text, template) for text in SENTENCES[:30]]
    assert [len(types) for types in tokens.get("token_type_ids", tokens["input_ids"])] == [
        len(ids) for ids in tokens["input_ids"]
    ]
    whole = encoder.layout.tokenize(["a"])
    if encoder.layout.cls_last:
        assert [types[-1] for types in tokens["token_type_ids"]] == [whole["token_type_ids"][0][-1]] * 30
    cut = encoder.layout.tokenize([SENTENCES[3] * 5], 40, template)["input_ids"][0]
    assert len(cut) == 40
    assert cut[-1] == whole["input_ids"][0][-1]
    assert cut.count(encoder.tokenizer.mask_token_id) == 1
    taken = sum(len(part["input_ids"]) for part in encoder.layout.frame(template))
    with pytest.raises(MirrorError, match=rf"takes {taken} of the {taken} tokens of a text: raise max_tokens"):
        encoder.layout.tokenize(["a"], taken, template)


@pytest.mark.parametrize("template", [ONE, OTHER])
def test_the_vector_is_the_mask_tokens_state(encoder: MirrorEncoder, template: str) -> None:
    encoder.pooling = encoder.make_pooling({**MASK, "template": template})
    mask = encoder.tokenizer.mask_token
    texts = [*SENTENCES[:10], f"a {mask} of its own", "a"]
    expected = []
    with torch.inference_mode():
        for text in texts:
            ids = torch.tensor([framed(encoder, text, template)])
            places = (ids[0] == encoder.tokenizer.mask_token_id).nonzero()[:, 0]
            place = places[-1 if template is ONE else 0]
            types = torch.zeros_like(ids)
            types[0, -1] = 2 if encoder.layout.cls_last else 0
            states = encoder.backbone(ids, token_type_ids=types, return_dict=True).last_hidden_state
            expected.append(states[0, place])
        tokens = encoder.layout.tokenize(texts, template=template)
        laid = encoder(encoder.layout.blocks(tokens))
        padded = encoder(encoder.layout.padded(tokens))
    torch.testing.assert_close(laid, torch.stack(expected), atol=2e-5, rtol=0)
    torch.testing.assert_close(padded, torch.stack(expected), atol=2e-5, rtol=0)
    torch.testing.assert_close(torch.tensor(encoder.encode(texts)), torch.stack(expected), atol=2e-5, rtol=0)


@pytest.mark.parametrize("pack", [True, False])
def test_denoising_against_the_authors_rule(encoder: MirrorEncoder, pack: bool) -> None:
    encoder.layout.packing = pack
    views = Prompt(ONE, OTHER)
    blocks = made(encoder, views, size=40)[BatchKey(0, 0)].sides[0][0]
    with encoder.perturbed([Dropout(0.0)]):
        plain = encoder(blocks).detach()
    with encoder.perturbed([Dropout(0.0), *views.perturbations()]):
        denoised = encoder(blocks)
        denoised.sum().backward()
        assert encoder.block is blocks[-1]
    texts = [text for text, _ in made(encoder, views, size=40).texts(BatchKey(0, 0))]
    lengths = [len(ids) for ids in encoder.layout._plain(texts, None)["input_ids"]]
    noise = [bare(encoder, length, template) for template in (ONE, OTHER) for length in lengths]
    torch.testing.assert_close(plain - denoised.detach(), torch.stack(noise), atol=5e-5, rtol=0)
    with encoder.perturbed([Dropout(0.0)]):
        torch.testing.assert_close(encoder(blocks), plain)
    with encoder.perturbed(views.perturbations()):
        encoder.eval()
        torch.testing.assert_close(encoder(blocks), plain)


def test_each_view_stands_in_its_template(encoder: MirrorEncoder) -> None:
    rows = ids_of(made(encoder, size=40)[BatchKey(1, 2)].sides[0][0])
    texts = [text for text, _ in made(encoder, size=40).texts(BatchKey(1, 2))]
    assert rows == [framed(encoder, text, template) for template in (ONE, OTHER) for text in texts]
    found = check_views(made(encoder, size=40), encoder, [Dropout(0.0), Denoising([ONE, OTHER])])
    assert found.changed == 1
    assert found.cosine < 1 - 1e-4


def test_other_views_stand_in_the_encoders_template(encoder: MirrorEncoder) -> None:
    pairs = made(encoder, Repetition(encoder.layout), size=40)
    rows = ids_of(pairs[BatchKey(0, 0)].sides[0][0])
    texts = [text for text, _ in pairs.texts(BatchKey(0, 0))]
    assert rows[:40] == [framed(encoder, text, ONE) for text in texts]
    assert {*map(len, rows[40:])} != {*map(len, rows[:40])}


def test_the_template_is_saved(encoder: MirrorEncoder, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    encoder.pooling = encoder.make_pooling({**MASK, "template": OTHER})
    expected = encoder.encode(SENTENCES[:20])
    with caplog.at_level(logging.WARNING):
        encoder.save(tmp_path / "saved")
    assert "saved: sentence-transformers has no MaskPooling, the folder loads with mirror alone." in caplog.text
    again = MirrorEncoder.load(tmp_path / "saved")
    assert again.pooling.template == OTHER
    assert (again.encode(SENTENCES[:20]) == expected).all()
    raw = again.make_pooling("mean")
    with pytest.raises(MirrorError, match="different templates"):
        again.encode_by(SENTENCES[:2], [again.pooling, raw])
    assert (again.encode_by(SENTENCES[:2], [raw])[0] != expected[:2]).any()


def test_bad_input(tiny_bert: Path) -> None:
    with pytest.raises(MirrorError, match=r"model/pooling=mask: the model's tokenizer has no mask token; choose"):
        MaskPooling(None)
    encoder = MirrorEncoder.load(tiny_bert)
    encoder.tokenizer.mask_token = None
    with pytest.raises(MirrorError, match=r"model/pooling=mask: the model's tokenizer has no mask token"):
        encoder.make_pooling(MASK)
    with pytest.raises(MirrorError, match=r"aug=prompt reads texts at the mask token .*: add model/pooling=mask"):
        Prompt(None)
    for template in ("{text} means", "means {mask}", "{text} {text} {mask}", ""):
        with pytest.raises(MirrorError, match=r"template=.* is out of range: it must be a sentence that holds {text}"):
            check_part({**MASK, "template": template}, "model.pooling", "mask_id")
        with pytest.raises(MirrorError, match=r"aug.other=.* is out of range: it must be a sentence that holds {text}"):
            check_part({"_target_": "mirror.data.views.Prompt", "other": template}, "aug", "template")


def test_a_run_to_its_end_and_resumed(tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(SENTENCES[:100]))
    settings = [
        f"data.path='{texts}'", f"model.path='{tiny_bert}'", "eval=none", "data.size=44", "batch.size=16",
        "batch.max_tokens=64", "select=last", "trainer.max_epochs=2", "trainer.precision=fp32",
        "trainer.accelerator=cpu", "trainer.progress=false", "checkpoint_every=2",
    ]  # fmt: skip
    config = compose("train", ["experiment=promptbert", "batch.micro=5", *settings])
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    whole.mkdir()
    stopped.mkdir()
    train(config, whole)
    stop_and_resume(config, stopped, monkeypatch)
    assert len(by_step(whole)) == 6
    assert by_step(stopped) == by_step(whole)
    card = (whole / "encoder" / "README.md").read_text()
    assert (
        'templates This sentence of "{text}" means {mask}. and This sentence : "{text}" means {mask}., denoised' in card
    )
    assert "**Loads with mirror alone**" in card
    assert "from sentence_transformers" not in card
    assert MirrorEncoder.load(whole / "encoder").pooling.template == ONE
    (tmp_path / "cls").mkdir()
    with pytest.raises(MirrorError, match=r"add model/pooling=mask"):
        train(compose("train", ["aug=prompt", *settings]), tmp_path / "cls")
