"""Barlow Twins against naive loops, against lightly, across processes, and as a recipe."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from mirror.losses.barlow import BarlowTwins, barlow_twins
from tests.losses.processes import assert_two_are_one


def vectors_of(n: int = 9, dimension: int = 5) -> Tensor:
    return torch.randn(2, n, dimension, generator=torch.Generator().manual_seed(0)) * 3 + 1


def ids(n: int) -> Tensor:
    return torch.arange(n).expand(2, -1)


def naive(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """The definition, one number at a time."""
    _, n, size = vectors.shape
    normed = []
    for view in vectors:
        columns = []
        for k in range(size):
            mean = sum(view[i, k] for i in range(n)) / n
            variance = sum((view[i, k] - mean) ** 2 for i in range(n)) / n
            columns.append([(view[i, k] - mean) / torch.as_tensor(variance + 1e-5).sqrt() for i in range(n)])
        normed.append(columns)
    on, off = torch.zeros(()), torch.zeros(())
    for a in range(size):
        for b in range(size):
            c = sum(normed[0][a][i] * normed[1][b][i] for i in range(n)) / n
            if a == b:
                on = on + (1 - c) ** 2
            else:
                off = off + c**2
    return on, off


def combined(vectors: Tensor, text_ids: Tensor) -> Tensor:
    on, off = barlow_twins(vectors, text_ids)
    return on + 0.1 * off


def test_values_and_gradients_are_the_definition_s() -> None:
    ours, theirs = vectors_of().requires_grad_(), vectors_of().requires_grad_()
    found, expected = barlow_twins(ours, ids(9)), naive(theirs)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    (found[0] + 0.1 * found[1]).backward()
    (expected[0] + 0.1 * expected[1]).backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5)


def test_lightly_agrees() -> None:
    peer = pytest.importorskip("lightly.loss", reason="lightly, the second implementation, is not installed")
    vectors = vectors_of()
    on, off = barlow_twins(vectors, ids(9))
    torch.testing.assert_close(on + 0.005 * off, peer.BarlowTwinsLoss(lambda_param=0.005)(*vectors))


def test_loss_is_the_weighted_and_scaled_sum() -> None:
    class Batch:
        text_ids = ids(9)

    found = BarlowTwins(redundancy=0.3, scale=0.5)(lambda batch: vectors_of(), Batch())
    assert found.keys() == {"loss", "diagonal", "redundancy"}
    torch.testing.assert_close(found["loss"], 0.5 * (found["diagonal"] + 0.3 * found["redundancy"]))


def test_float32_inside_autocast() -> None:
    expected = barlow_twins(vectors_of(), ids(9))
    with torch.autocast("cpu", torch.bfloat16):
        assert barlow_twins(vectors_of(), ids(9)) == expected


def test_coordinates_that_are_constant_are_finite() -> None:
    vectors = torch.ones(2, 4, 3, requires_grad=True)
    combined(vectors, ids(4)).backward()
    assert vectors.grad is not None
    assert torch.isfinite(vectors.grad).all()


def test_two_processes_give_the_loss_and_gradients_of_one(tmp_path: Path) -> None:
    assert_two_are_one(combined, tmp_path)
