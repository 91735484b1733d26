"""The queue against a list that is kept by hand, another library, and across processes."""

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

from mirror import MirrorEncoder
from mirror.config import BatchConfig
from mirror.config.compose import compose
from mirror.config.parts import build
from mirror.data.batches import BatchKey
from mirror.data.texts import LongPairs
from mirror.encoder.perturb import set_dropout
from mirror.errors import MirrorError
from mirror.losses.embedder import Embedder
from mirror.losses.heads import TanhHead
from mirror.losses.infonce import Columns, Rows, contrasted
from mirror.losses.queue import EMPTY, Queue
from mirror.training.run import train
from tests.conftest import SENTENCES
from tests.helpers import SMALL, module_of, pairs_of, table_of
from tests.losses.inputs import STEPS, batches, loaded
from tests.losses.processes import in_two_processes

FORMS = [(in_batch, mask) for in_batch in (False, True) for mask in (False, True)]


def course(model: Path, in_batch: bool, mask: bool, rank: int = 0, world: int = 1) -> list[dict[str, Tensor]]:
    """Loss, gradients and queue after each of a few steps of plain gradient descent."""
    encoder = loaded(model)
    loss = Queue(Embedder(encoder), 20, 0.5, 0.1, in_batch, mask_duplicates=mask)
    module = module_of(encoder, loss).train()
    step: nn.Module = DistributedDataParallel(module, find_unused_parameters=True) if dist.is_initialized() else module
    pairs, found = batches(encoder, rank, world), []
    for key in STEPS:
        module.zero_grad()
        value = step(pairs[key])["loss"]
        value.backward()
        grads = {name: p.grad.clone() for name, p in encoder.named_parameters() if p.grad is not None}
        descend(encoder, 1e-4)
        loss.after_step(module.embed)
        state = {"keys": loss.keys.clone(), "text_ids": loss.text_ids.clone(), "pointer": loss.pointer.clone()}
        found.append({"loss": value.detach(), **state, **grads})
    return found


def descend(encoder: MirrorEncoder, rate: float) -> None:
    with torch.no_grad():
        for weight in encoder.parameters():
            if weight.grad is not None:
                weight.sub_(rate * weight.grad)


@pytest.mark.parametrize(("in_batch", "mask"), FORMS)
def test_value_and_gradient_are_the_definition_s(in_batch: bool, mask: bool, tiny_bert: Path) -> None:
    encoder = loaded(tiny_bert)
    second = copy.deepcopy(encoder)
    loss = Queue(Embedder(encoder), 20, 0.5, 0.1, in_batch, mask_duplicates=mask)
    module = module_of(encoder, loss).train()
    pairs, queue = batches(encoder), list[tuple[Tensor, int]]()
    for key in STEPS:
        batch = pairs[key]
        encoder.zero_grad()
        z1, z2 = (F.normalize(encoder(side[0]), dim=-1) for side in batch.sides)
        with torch.no_grad():
            keys = F.normalize(second(batch.sides[0 if in_batch else 1][0]), dim=-1)
        ids, losses = batch.text_ids[0].tolist(), []
        for i in range(len(ids)):
            near = z1[i] @ (z2 if in_batch else keys)[i] / 0.1
            others = [(z2[j], ids[j]) for j in range(len(ids)) if j != i] if in_batch else []
            far = [z1[i] @ other / 0.1 for other, text in [*others, *queue] if not (mask and text == ids[i])]
            losses.append(torch.stack([near, *far]).logsumexp(0) - near)
        expected = torch.stack(losses).mean()
        expected.backward()
        wanted = {name: p.grad.clone() for name, p in encoder.named_parameters() if p.grad is not None}
        encoder.zero_grad()
        found = module(batch)["loss"]
        found.backward()
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        largest = max(1.0, *(float(grad.abs().max()) for grad in wanted.values()))
        for name, weight in encoder.named_parameters():
            if name in wanted:
                torch.testing.assert_close(weight.grad, wanted[name], rtol=1e-3, atol=1e-4 * largest)
        descend(encoder, 0.003)
        loss.after_step(module.embed)
        with torch.no_grad():
            for mine, theirs in zip(second.parameters(), encoder.parameters(), strict=True):
                mine.copy_(0.5 * mine + 0.5 * theirs)
        queue = [*queue, *zip(keys, ids, strict=True)][-20:]
    assert sorted(loss.text_ids.tolist()) == sorted(text for _, text in queue)


def test_the_first_step_of_the_queue_alone_teaches_nothing(tiny_bert: Path) -> None:
    first = course(tiny_bert, in_batch=False, mask=True)[0]
    assert first["loss"] == 0
    assert (first["text_ids"] == EMPTY).sum() == 12


def test_batch_and_queue_are_pytorch_metric_learning_s() -> None:
    losses: Any = pytest.importorskip("pytorch_metric_learning.losses")
    draw = torch.Generator().manual_seed(0)
    z1, others = (F.normalize(torch.randn(n, 16, generator=draw), dim=-1) for n in (6, 15))
    rows, numbers = torch.arange(6), torch.arange(15)
    ours = contrasted(Rows(z1, rows.expand(2, -1).T, rows), Columns(others, numbers), 0.07) / 6
    torch.testing.assert_close(ours, losses.NTXentLoss(0.07)(z1, rows, ref_emb=others, ref_labels=numbers))


def part(model: Path, rank: int, world: int) -> list[list[dict[str, Tensor]]]:
    return [course(model, *form, rank, world) for form in FORMS]


def test_two_processes_learn_what_one_learns_and_hold_the_same_queue(tiny_bert: Path, tmp_path: Path) -> None:
    processes = in_two_processes(partial(part, tiny_bert), tmp_path)
    for number, form in enumerate(FORMS):
        for step, expected in enumerate(course(tiny_bert, *form)):
            both = [found[number][step] for found in processes]
            mean = (both[0]["loss"] + both[1]["loss"]) / 2
            torch.testing.assert_close(mean, expected["loss"], rtol=1e-3, atol=1e-4)
            for name in expected.keys() - {"loss"}:
                torch.testing.assert_close(both[0][name], both[1][name], rtol=0, atol=0)
                torch.testing.assert_close(both[0][name], expected[name], rtol=1e-3, atol=1e-3)


def test_a_batch_larger_than_the_queue_leaves_its_last_keys(tiny_bert: Path) -> None:
    encoder = loaded(tiny_bert)
    loss = Queue(Embedder(encoder), size=3)
    module, batch = module_of(encoder, loss).train(), batches(encoder)[STEPS[0]]
    module(batch)
    assert loss.text_ids.tolist() == batch.text_ids[1, -3:].tolist()
    module.eval()(batch)
    assert loss.text_ids.tolist() == batch.text_ids[1, -3:].tolist()  # measuring leaves it alone


def test_dropout_of_the_keys(tiny_bert: Path) -> None:
    """That of the encoder, which is set after the loss is made; or none."""
    for dropout in (True, False):
        encoder = loaded(tiny_bert)
        loss = Queue(Embedder(encoder), size=8, key_dropout=dropout)
        module, batch = module_of(encoder, loss).train(), batches(encoder)[STEPS[0]]
        set_dropout(encoder.backbone, 0.5)
        module(batch)
        module.eval()
        clean = F.normalize(loss.key_embed.side(batch, 1), dim=-1)
        assert torch.allclose(loss.keys, clean, atol=1e-5) != dropout


def test_keys_have_the_size_that_the_head_makes(tiny_bert: Path) -> None:
    encoder = loaded(tiny_bert)
    assert Queue(Embedder(encoder, nn.Linear(encoder.dimension, 7)), size=2).keys.shape == (2, 7)
    assert Queue(Embedder(encoder, TanhHead(encoder.dimension)), size=2).keys.shape == (2, encoder.dimension)


def test_numbers_of_texts_hold_beyond_a_batch_of_long_data(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue knows a text of an earlier batch by its number."""
    monkeypatch.setattr("mirror.data.texts.MAX_IN_MEMORY", 100)
    table = table_of(SENTENCES[:120])
    assert isinstance(table.pairs, LongPairs)
    pairs = pairs_of(table.pairs, MirrorEncoder.load(tiny_bert), BatchConfig(size=16))
    numbers: dict[str, int] = {}
    for epoch in (0, 1):
        for step in range(pairs.steps):
            key = BatchKey(epoch, step)
            for pair, number in zip(pairs.texts(key), pairs[key].text_ids[0].tolist(), strict=True):
                assert numbers.setdefault(pair[0], number) == number
    assert len(set(numbers.values())) == len(numbers) == 120


def test_a_queue_that_no_memory_holds_is_refused(tiny_bert: Path) -> None:
    section = compose("train", ["loss=queue", "loss.size=2000000", "eval=none"]).loss
    with pytest.raises(MirrorError, match=r"loss\.size=2000000 .*from 1 to 1048576"):
        build(section, "loss", Queue, embedder=Embedder(loaded(tiny_bert)))


def test_a_queue_that_the_run_never_fills_is_refused(tiny_bert: Path, tmp_path: Path) -> None:
    typed = ["loss=queue", "loss.size=89", "eval=none", f"model.path='{tiny_bert}'", *SMALL]
    with pytest.raises(MirrorError, match=r"loss\.size=89: the run takes 88 texts in all and never fills this queue"):
        train(compose("train", typed), tmp_path, SENTENCES[:60])
    with pytest.raises(MirrorError, match="takes 16 texts in all"):
        train(compose("train", [*typed, "trainer.max_steps=1"]), tmp_path, SENTENCES[:60])


def test_negatives_and_description(tiny_bert: Path) -> None:
    embedder = Embedder(loaded(tiny_bert))
    assert Queue(embedder, size=50).negatives(10) == 50
    loss = Queue(embedder, size=50, in_batch=True)
    assert loss.negatives(10) == 59
    assert loss.describe() == "batch and queue of 50 keys, momentum 0.999, temperature 0.07"
