"""VICReg against naive loops, against lightly, across processes, and as a recipe."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from mirror.losses.vicreg import VICReg, vicreg
from tests.losses.processes import assert_two_are_one


def vectors_of(n: int = 9, dimension: int = 5) -> Tensor:
    """Some coordinates vary more than the hinge asks for, some less."""
    scale = torch.linspace(0.2, 3, dimension)
    return torch.randn(2, n, dimension, generator=torch.Generator().manual_seed(0)) * scale + 1


def ids(n: int) -> Tensor:
    return torch.arange(n).expand(2, -1)


def naive(vectors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The definition, one number at a time."""
    _, n, size = vectors.shape
    pairs = [(vectors[0, i, k] - vectors[1, i, k]) ** 2 for i in range(n) for k in range(size)]
    near, spread, apart = torch.stack(pairs).sum() / (n * size), torch.zeros(()), torch.zeros(())
    for view in vectors:
        means = [torch.stack([view[i, k] for i in range(n)]).sum() / n for k in range(size)]
        for a in range(size):
            for b in range(size):
                products = [(view[i, a] - means[a]) * (view[i, b] - means[b]) for i in range(n)]
                covariance = torch.stack(products).sum() / (n - 1)
                if a == b:
                    spread = spread + torch.clamp(1 - (covariance + 1e-4).sqrt(), min=0) / size
                else:
                    apart = apart + covariance**2 / size
    return near, spread, apart


def combined(vectors: Tensor, text_ids: Tensor) -> Tensor:
    near, spread, apart = vicreg(vectors, text_ids)
    return 2 * near + 3 * spread + apart


def test_values_and_gradients_are_the_definition_s() -> None:
    ours, theirs = vectors_of().requires_grad_(), vectors_of().requires_grad_()
    found, expected = vicreg(ours, ids(9)), naive(theirs)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert expected[1] > 0
    combined(ours, ids(9)).backward()
    (2 * expected[0] + 3 * expected[1] + expected[2]).backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5)


def test_lightly_agrees() -> None:
    peer = pytest.importorskip("lightly.loss", reason="lightly, the second implementation, is not installed")
    vectors = vectors_of()
    near, spread, apart = vicreg(vectors, ids(9))
    # It takes the mean of both views' hinges, where the paper and we take the sum.
    torch.testing.assert_close(25 * near + 12.5 * spread + apart, peer.VICRegLoss()(*vectors))


def test_loss_is_the_weighted_sum() -> None:
    class Batch:
        text_ids = ids(9)

    found = VICReg(2.0, 3.0, 0.5)(lambda batch: vectors_of(), Batch())
    assert found.keys() == {"loss", "invariance", "variance", "covariance"}
    expected = 2 * found["invariance"] + 3 * found["variance"] + 0.5 * found["covariance"]
    torch.testing.assert_close(found["loss"], expected)


def test_float32_inside_autocast() -> None:
    expected = vicreg(vectors_of(), ids(9))
    with torch.autocast("cpu", torch.bfloat16):
        assert vicreg(vectors_of(), ids(9)) == expected


def test_vectors_that_are_all_equal_are_finite() -> None:
    vectors = torch.ones(2, 4, 3, requires_grad=True)
    combined(vectors, ids(4)).backward()
    assert vectors.grad is not None
    assert torch.isfinite(vectors.grad).all()


def test_two_processes_give_the_loss_and_gradients_of_one(tmp_path: Path) -> None:
    assert_two_are_one(combined, tmp_path)
