"""Masked language modelling beside a loss: against transformers text by text, across processes, in runs."""

import copy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from transformers import AutoModelForMaskedLM

from mirror import MirrorEncoder, MirrorError
from mirror.config import BatchConfig
from mirror.config.compose import compose
from mirror.data.batches import BatchKey
from mirror.encoder.packing import TokenBlock
from mirror.losses.auxiliary import Beside
from mirror.losses.embedder import Embedder
from mirror.losses.infonce import InfoNCE
from mirror.losses.mlm import MaskedLanguageModel
from mirror.losses.tension import TensionInBatch
from mirror.runs.record import by_step
from mirror.training.run import train
from tests.architectures import ARCHITECTURES, build
from tests.conftest import SENTENCES
from tests.helpers import SMALL, module_of, pairs_of
from tests.losses.inputs import loaded
from tests.losses.processes import in_two_processes

KEY = BatchKey(0, 0)
Seen = list[tuple[TokenBlock, TokenBlock, Tensor]]


def made(model: Path, share: float = 0.3, micro: int | None = None, rank: int = 0, world: int = 1) -> tuple[Any, Any]:
    """The training step with the loss, and its batch of eight texts."""
    encoder = loaded(model)
    loss = MaskedLanguageModel(Embedder(encoder), weight=0.5, share=share)
    pairs = [(text, text) for text in SENTENCES[:16]]
    batch = pairs_of(pairs, encoder, BatchConfig(size=16, micro=micro), rank=rank, world=world)[KEY]
    return module_of(encoder, loss).train(), batch


def record(loss: Any) -> Seen:
    """What the loss masks from now on: blocks as they are, as they are seen, and the places to guess."""
    found: Seen = []
    mask = loss._masked

    def recorded(block: TokenBlock, draws: Tensor) -> tuple[TokenBlock, Tensor]:
        seen, places = mask(block, draws)
        found.append((block, seen, places))
        return seen, places

    loss._masked = recorded
    return found


def by_text(recorded: Seen) -> dict[tuple[int, int], tuple[list[int], list[int], list[bool]]]:
    """Ids, seen ids and choice of each text, by number of the part and place in it."""
    texts = {}
    for number, (block, seen, places) in enumerate(recorded):
        chosen = torch.zeros(block.text_index.numel(), dtype=torch.bool)
        chosen[places] = True
        for k, text in enumerate(block.texts.tolist()):
            at = block.text_index == k
            ids, masked = block.inputs["input_ids"][at], seen.inputs["input_ids"][at]
            texts[number, text] = ids.tolist(), masked.tolist(), chosen.view_as(at)[at].tolist()
    return texts


def test_value_and_gradient_are_transformers_s(tiny_bert: Path) -> None:
    module, batch = made(tiny_bert)
    model = AutoModelForMaskedLM.from_pretrained(tiny_bert).train()
    model.bert.load_state_dict(module.embed.encoder.backbone.state_dict(), strict=False)
    for part in model.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    recorded = record(module.loss)
    found = module(batch)
    found["loss"].backward()
    texts, sums, count = by_text(recorded), [], 0
    for ids, seen, chosen in texts.values():
        scores = model(input_ids=torch.tensor([seen])).logits[0]
        sums.append(F.cross_entropy(scores[chosen], torch.tensor(ids)[chosen], reduction="sum"))
        count += sum(chosen)
    expected = torch.stack(sums).sum() / count
    (0.5 * expected).backward()
    torch.testing.assert_close(found["mlm"], expected.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["loss"], 0.5 * expected, rtol=1e-4, atol=1e-5)
    backbone = dict(module.embed.encoder.backbone.named_parameters())
    compared = 0
    for name, weight in model.bert.named_parameters():
        if weight.grad is not None:
            torch.testing.assert_close(backbone[name].grad, weight.grad, rtol=1e-3, atol=1e-4)
            compared += 1
    assert compared > 20
    head = dict(module.loss.head.model.cls.named_parameters())
    for name, weight in model.cls.named_parameters():
        torch.testing.assert_close(head[name].grad, weight.grad, rtol=1e-3, atol=1e-4)


def test_what_is_masked(tiny_bert: Path) -> None:
    module, batch = made(tiny_bert, share=0.5)
    recorded = record(module.loss)
    for seed in range(20):
        torch.manual_seed(seed)
        module(batch)
    tokenizer = module.embed.encoder.tokenizer
    triples = [triple for texts in by_text(recorded).values() for triple in zip(*texts, strict=True)]
    ordinary = [triple for triple in triples if triple[0] not in tokenizer.all_special_ids]
    assert all(seen == token and not chosen for token, seen, chosen in triples if token in tokenizer.all_special_ids)
    assert all(seen == token for token, seen, chosen in triples if not chosen)
    guessed = [(token, seen) for token, seen, chosen in ordinary if chosen]
    assert abs(len(guessed) / len(ordinary) - 0.5) < 0.03
    masked = sum(seen == tokenizer.mask_token_id for _, seen in guessed) / len(guessed)
    kept = sum(seen == token for token, seen in guessed) / len(guessed)
    assert abs(masked - 0.8) < 0.03
    assert abs(kept - 0.1) < 0.03


def test_parts_and_packing_make_no_difference(tiny_bert: Path) -> None:
    found = []
    for micro, packing in ((None, True), (3, True), (None, False)):
        module, _ = made(tiny_bert)
        encoder = module.embed.encoder
        encoder.layout.packing = packing
        pairs = [(text, text) for text in SENTENCES[:16]]
        batch = pairs_of(pairs, encoder, BatchConfig(size=16, micro=micro))[KEY]
        assert batch.sides[0][0][0].packed == packing
        torch.manual_seed(3)
        value = module(batch)["loss"]
        value.backward()
        found.append([value, *(p.grad for p in encoder.backbone.parameters() if p.grad is not None)])
    for others in found[1:]:
        for one, other in zip(found[0], others, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def learnt(model: Path, rank: int = 0, world: int = 1) -> dict[str, Tensor]:
    module, batch = made(model, rank=rank, world=world)
    step: nn.Module = DistributedDataParallel(module, find_unused_parameters=True) if dist.is_initialized() else module
    torch.manual_seed(0)
    loss = step(batch)["loss"]
    loss.backward()
    return {"loss": loss.detach(), **{n: p.grad for n, p in module.named_parameters() if p.grad is not None}}


def test_two_processes_give_the_loss_and_gradients_of_one(tiny_bert: Path, tmp_path: Path) -> None:
    expected, both = learnt(tiny_bert), in_two_processes(partial(learnt, tiny_bert), tmp_path)
    torch.testing.assert_close((both[0]["loss"] + both[1]["loss"]) / 2, expected["loss"], rtol=1e-5, atol=1e-5)
    for found in both:
        for name in expected.keys() - {"loss"}:
            torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_heads_of_all_architectures(name: str, tmp_path: Path) -> None:
    """Scores are those of the whole model, or the model is refused."""
    folder = build(name, tmp_path / name)
    encoder = MirrorEncoder.load(folder)
    if name in ("electra", "xlnet"):  # the one is a discriminator, of the other transformers has no such model
        with pytest.raises(MirrorError, match="has no head that fills in masks"):
            MaskedLanguageModel(Embedder(encoder))
        return
    head = MaskedLanguageModel(Embedder(encoder)).head
    model = AutoModelForMaskedLM.from_pretrained(folder).eval()
    inputs = encoder.tokenizer(SENTENCES[0], return_tensors="pt")
    with torch.no_grad():
        states = encoder.backbone(**inputs).last_hidden_state[0]
        torch.testing.assert_close(head.eval()(states), model(**inputs).logits[0], rtol=1e-4, atol=1e-4)


def test_the_head_holds_no_second_backbone(tiny_bert: Path) -> None:
    encoder = loaded(tiny_bert)
    loss = MaskedLanguageModel(Embedder(encoder))
    ours = {id(weight) for weight in loss.parameters()}
    assert id(encoder.backbone.get_input_embeddings().weight) in ours
    assert not any("encoder.layer" in name for name in loss.state_dict())


def run(model: Path, folder: Path, *typed: str) -> None:
    folder.mkdir()
    given = ["auxiliary=mlm", "eval=none", f"model.path='{model}'", *SMALL, *typed]
    train(compose("train", given), folder, SENTENCES[:60])


def test_beside_two_encoders_in_a_run(tiny_bert: Path, tmp_path: Path) -> None:
    run(tiny_bert, tmp_path / "run", "loss=tension_in_batch", "batch.micro=5", "trainer.max_epochs=4")
    curve = [value for _, value in by_step(tmp_path / "run", "mlm")]
    assert len(curve) == 12
    assert curve[-1] < curve[0]
    assert len(by_step(tmp_path / "run", "scale")) == 12
    folder = tmp_path / "run" / "encoder"
    card = (folder / "README.md").read_text()
    assert "beside it masked language modelling, weight 0.1, 15 % of the tokens |" in card
    with pytest.raises(MirrorError, match=r"auxiliary=mlm: .*encoder has no head that fills in masks"):
        run(folder, tmp_path / "again")
    assert not (tmp_path / "again" / "encoder").exists()


def test_the_sum_has_the_parts_of_both(tiny_bert: Path) -> None:
    module, batch = made(tiny_bert)
    main, auxiliary = InfoNCE(), module.loss
    torch.manual_seed(0)
    both = Beside(main, auxiliary)(module.embed, batch)
    torch.manual_seed(0)
    alone = copy.copy(main)(module.embed, batch)["loss"]
    torch.testing.assert_close(both["loss"], alone + 0.5 * both["mlm"])
    assert Beside(main, auxiliary).negatives(10) == 18


def test_what_cannot_stand_beside_each_other(tiny_bert: Path) -> None:
    apart = TensionInBatch(Embedder(loaded(tiny_bert)))
    with pytest.raises(MirrorError, match="auxiliary=TensionInBatch lays the two views apart, InfoNCE does not"):
        Beside(InfoNCE(), apart)


@pytest.mark.parametrize("typed", ["auxiliary.weight=0", "auxiliary.share=1", "auxiliary.rate=2"])
def test_settings_that_are_none(typed: str, tiny_bert: Path, tmp_path: Path) -> None:
    with pytest.raises(MirrorError, match=typed.partition("=")[0].replace(".", r"\.")):
        run(tiny_bert, tmp_path / "run", typed)
