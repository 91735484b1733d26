"""Contrastive tension against naive loops, sentence-transformers, and across processes."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mirror.data.batches import MirroredBatch
from mirror.encoder.perturb import set_dropout
from mirror.losses.base import Loss
from mirror.losses.embedder import Embedder
from mirror.losses.tension import Tension, TensionInBatch
from tests.helpers import module_of
from tests.losses.inputs import STEPS, batches, loaded
from tests.losses.processes import in_two_processes

KINDS = [(kind, mask) for kind in ("pairs", "batch") for mask in (False, True)]


def loss_of_kind(kind: str, mask: bool, embedder: Embedder) -> Loss:
    """The loss, with two encoders that differ."""
    loss: Tension | TensionInBatch
    if kind == "pairs":
        loss = Tension(embedder, negatives_each=3, mask_duplicates=mask)
    else:
        loss = TensionInBatch(embedder, scale=5, mask_duplicates=mask)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in loss.second.parameters():
            weight.add_(0.01 * torch.randn(weight.shape, generator=draw))
    return loss


def naive(loss: Any, embed: Embedder, batch: MirroredBatch) -> Tensor:
    """The definition, one pair at a time."""
    ours, theirs = embed.side(batch, 0), loss.second.side(batch, 1)
    ids, terms = batch.text_ids[0].tolist(), []
    n = len(ids)
    if isinstance(loss, Tension):
        for i in range(n):
            terms.append(-torch.sigmoid(ours[i] @ theirs[i]).log())
            for j in ((i + k) % n for k in range(1, 4)):
                if not (loss.mask_duplicates and ids[i] == ids[j]):
                    terms.append(-torch.sigmoid(-(ours[i] @ theirs[j])).log())
        return torch.stack(terms).sum() / n
    for one, other in ((ours, theirs), (theirs, ours)):
        for i in range(n):
            kept = [j for j in range(n) if j == i or not (loss.mask_duplicates and ids[i] == ids[j])]
            cosines = torch.stack([F.cosine_similarity(one[i], other[j], dim=0) for j in kept])
            terms.append(-(cosines * loss.log_scale.exp()).softmax(0)[kept.index(i)].log())
    return torch.stack(terms).mean()


def learnt(
    model: Path, kind: str, mask: bool, rank: int = 0, world: int = 1, by_loops: bool = False
) -> list[dict[str, Tensor]]:
    """Loss and gradients of two batches."""
    encoder = loaded(model)
    with torch.no_grad():  # dot products at which the logistic function is not flat
        encoder.backbone.encoder.layer[-1].output.LayerNorm.weight.mul_(0.05)
    module = module_of(encoder, loss_of_kind(kind, mask, Embedder(encoder))).train()
    step: nn.Module = DistributedDataParallel(module, find_unused_parameters=True) if dist.is_initialized() else module
    found = []
    for key in STEPS[1:3]:
        module.zero_grad()
        batch = batches(encoder, rank, world)[key]
        loss = naive(module.loss, module.embed, batch) if by_loops else step(batch)["loss"]
        loss.backward()
        grads = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
        found.append({"loss": loss.detach(), **grads})
    return found


def compare(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    largest = max(1.0, *(float(value.abs().max()) for value in expected.values()))
    for name in expected.keys() - {"loss"}:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-4 * largest)


@pytest.mark.parametrize(("kind", "mask"), KINDS)
def test_value_and_gradient_are_the_definition_s(kind: str, mask: bool, tiny_bert: Path) -> None:
    ours, expected = learnt(tiny_bert, kind, mask), learnt(tiny_bert, kind, mask, by_loops=True)
    for one, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(one["loss"], other["loss"], rtol=1e-4, atol=1e-5)
        assert one.keys() == other.keys()
        assert any(name.startswith("loss.second") for name in one)
        compare(one, other)


def part(model: Path, rank: int, world: int) -> list[list[dict[str, Tensor]]]:
    return [learnt(model, *kind, rank, world) for kind in KINDS]


def test_two_processes_give_the_loss_and_gradients_of_one(tiny_bert: Path, tmp_path: Path) -> None:
    processes = in_two_processes(partial(part, tiny_bert), tmp_path)
    for number, kind in enumerate(KINDS):
        for step, expected in enumerate(learnt(tiny_bert, *kind)):
            both = [found[number][step] for found in processes]
            torch.testing.assert_close((both[0]["loss"] + both[1]["loss"]) / 2, expected["loss"], rtol=1e-4, atol=1e-5)
            compare(both[0], expected)
            compare(both[1], expected)


class Given(nn.Module):
    """Vectors where sentence-transformers expects an encoder."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"sentence_embedding": features[self.name]}


class Fixed(Embedder):
    """Vectors where a loss expects an encoder with its texts."""

    def __init__(self, vectors: Tensor) -> None:
        nn.Module.__init__(self)
        self.vectors = vectors

    def side(self, batch: MirroredBatch, side: int) -> Tensor:
        return self.vectors[side]

    def take_dropout(self, embed: Embedder) -> None:
        pass


def test_both_forms_are_sentence_transformers_s() -> None:
    losses: Any = pytest.importorskip("sentence_transformers.losses")
    vectors = torch.randn(2, 6, 16, generator=torch.Generator().manual_seed(0)) / 3
    batch = MirroredBatch([], torch.arange(6).expand(2, -1), [], [], 0)
    peer = losses.ContrastiveTensionLossInBatchNegatives(Given("first"), scale=20.0)
    peer.model2 = Given("second")  # both encoders of theirs read one list of texts
    batchwise = peer([{"first": vectors[0], "second": vectors[1]}], None)
    torch.testing.assert_close(TensionInBatch(Fixed(vectors))(Fixed(vectors), batch)["loss"], batchwise)
    # All pairs of the batch as one list: 6 positives, 5 negatives to each.
    i, j = (index.flatten() for index in torch.meshgrid(torch.arange(6), torch.arange(6), indexing="ij"))
    pairs = [{"vectors": vectors[0][i]}, {"vectors": vectors[1][j]}]
    pairwise = losses.ContrastiveTensionLoss(Given("vectors"))(pairs, (i == j).float()) / 6
    torch.testing.assert_close(Tension(Fixed(vectors), 5)(Fixed(vectors), batch)["loss"], pairwise)


@pytest.mark.parametrize("kind", ["pairs", "batch"])
def test_the_second_encoder_s_dropout_is_the_first_s(kind: str, tiny_bert: Path) -> None:
    """A run sets it after the loss is made."""
    encoder = loaded(tiny_bert, dropout=0.5)
    loss = loss_of_kind(kind, mask=True, embedder=Embedder(encoder))
    module, batch = module_of(encoder, loss).train(), batches(encoder)[STEPS[0]]
    assert not torch.equal(module(batch)["loss"], module(batch)["loss"])
    set_dropout(encoder.backbone, 0.0)
    assert torch.equal(module(batch)["loss"], module(batch)["loss"])


def test_negatives_and_description(tiny_bert: Path) -> None:
    embedder = Embedder(loaded(tiny_bert))
    assert Tension(embedder).negatives(16) == 7
    assert Tension(embedder).negatives(5) == 4
    assert TensionInBatch(embedder).negatives(16) == 15
    assert "7 negatives" in Tension(embedder).describe()
    assert "from 20" in TensionInBatch(embedder).describe()
