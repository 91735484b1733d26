"""Triplets against naive loops, pytorch-metric-learning, and across processes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mirror.data.batches import MirroredBatch
from mirror.losses.embedder import Embedder
from mirror.losses.triplet import Triplet
from tests.losses.inputs import TEXTS, different, vectors_of
from tests.losses.processes import gradients, in_two_processes, small_model, views_of


class Made(Embedder):
    """Vectors that another network makes."""

    def __init__(self, vectors: Tensor) -> None:
        torch.nn.Module.__init__(self)
        self.vectors = vectors

    def forward(self, batch: MirroredBatch) -> Tensor:
        return self.vectors


def value(vectors: Tensor, texts: Tensor, **settings: Any) -> Tensor:
    loss: Tensor = Triplet(**settings)(Made(vectors), MirroredBatch([], texts, [], [], 0))["loss"]
    return loss


def candidates(texts: Tensor, i: int, mask: bool) -> list[int]:
    mine = (int(texts[0, i]), int(texts[1, i]))
    return [j for j in range(texts.shape[1]) if j != i and not (mask and int(texts[1, j]) in mine)]


@pytest.mark.parametrize("margin", [0.2, 1.0])
@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("texts", TEXTS.values(), ids=TEXTS)
def test_hardest_negative_is_the_definition_s(texts: Tensor, mask: bool, margin: float) -> None:
    ours, theirs = vectors_of(7).requires_grad_(), vectors_of(7).requires_grad_()
    loss = value(ours, texts, margin=margin, mask_duplicates=mask)
    left, right = ([v / v.norm() for v in side] for side in theirs)
    losses = []
    for i in range(7):
        far = [(left[i] - right[j]).norm() for j in candidates(texts, i, mask)]
        losses.append(((left[i] - right[i]).norm() - min(far) + margin).clamp(min=0))
    expected = torch.stack(losses).mean()
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected.float())
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("texts", TEXTS.values(), ids=TEXTS)
def test_random_negatives_follow_torch_s_seed_and_are_all_met(texts: Tensor) -> None:
    """With distances that tell which negative was drawn for the first text, whose loss alone depends on them."""
    allowed, met = candidates(texts, 0, mask=True), set[int]()
    vectors = torch.eye(7, 8).repeat(2, 1, 1)
    for seed in range(60):
        torch.manual_seed(seed)
        given = vectors.clone().requires_grad_()
        loss = value(given, texts, margin=2.0, hardest=False)
        torch.manual_seed(seed)
        assert torch.equal(loss, value(vectors, texts, margin=2.0, hardest=False))
        loss.backward()
        assert given.grad is not None
        # The gradient of an anchor is along its negative alone, as its positive lies where it is.
        pulled = given.grad[0, 0].abs()
        pulled[0] = 0
        met.add(int(pulled.argmax()))
    assert met == set(allowed)


def test_hardest_triplets_are_pytorch_metric_learning_s() -> None:
    losses: Any = pytest.importorskip("pytorch_metric_learning.losses")
    reducers: Any = pytest.importorskip("pytorch_metric_learning.reducers")
    vectors, numbers = vectors_of(9).float(), torch.arange(9)
    left, right = torch.nn.functional.normalize(vectors, dim=-1)
    nearest = (torch.cdist(left, right) + 9 * torch.eye(9)).argmin(1)
    peer = losses.TripletMarginLoss(margin=0.7, reducer=reducers.MeanReducer())
    expected = peer(left, numbers, (numbers, numbers, nearest), ref_emb=right, ref_labels=numbers)
    torch.testing.assert_close(value(vectors, different(9), margin=0.7), expected)


def test_extremes_are_finite() -> None:
    """Twins that are equal, and a batch of one text alone, which has no triplet."""
    same = vectors_of(6)[:1].repeat(2, 1, 1)
    for texts in (different(6), torch.zeros(2, 6, dtype=torch.long)):
        vectors = same.clone().requires_grad_()
        loss = value(vectors, texts, margin=2.0)
        loss.backward()
        assert vectors.grad is not None
        assert torch.isfinite(vectors.grad).all()
        assert (loss == 0) == (len(texts.unique()) == 1)


SETTINGS = [{"hardest": hardest, "mask_duplicates": mask} for hardest in (False, True) for mask in (False, True)]


def share(rank: int, world: int) -> list[dict[str, Tensor]]:
    """What one process learns with each setting."""
    views, texts = views_of(9)
    found = []
    for settings in SETTINGS:
        torch.manual_seed(rank)  # the devices draw different things

        def loss(model: Any, settings: dict[str, Any] = settings) -> Tensor:
            return value(model(views[:, rank::world]), texts[:, rank::world], **settings)

        found.append(gradients(small_model(), loss))
    return found


def test_two_processes_give_the_loss_and_gradients_of_one(tmp_path: Path) -> None:
    expected, processes = share(0, 1), in_two_processes(share, tmp_path)
    for number, whole in enumerate(expected):
        torch.testing.assert_close(sum(found[number]["loss"] for found in processes) / 2, whole["loss"])
        for found in processes:
            for name in whole.keys() - {"loss"}:
                torch.testing.assert_close(found[number][name], whole[name], rtol=1e-5, atol=1e-5)


def test_negatives_and_description() -> None:
    assert Triplet().negatives(10) == 1
    assert Triplet(margin=0.5, hardest=False).describe() == "triplet, margin 0.5, random negative"
