"""A loss in two processes that share the texts, and in one that has them all."""

from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

LossOf = Callable[[Tensor, Tensor], Tensor]
"""Vectors (2, N, D) and numbers of texts (2, N) to a loss; a function that can be pickled."""
SHARES = ([5, 3], [4, 4], [1, 7])


def step(loss_of: LossOf, model: nn.Module, inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The loss, and the gradients of the model's weights."""
    loss = loss_of(model(inputs), torch.arange(inputs.shape[1]).expand(2, -1))
    loss.backward()
    return loss.detach(), [weight.grad for weight in model.parameters() if weight.grad is not None]


def made(texts: int) -> tuple[nn.Module, Tensor]:
    """A small model, and both views of all texts, (2, M, 12)."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 8)), torch.randn(2, texts, 12)


def one_of_two(rank: int, folder: Path, loss_of: LossOf) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    results = []
    for share in SHARES:
        model, inputs = made(sum(share))
        own = inputs.split(share, dim=1)[rank]
        results.append(step(loss_of, DistributedDataParallel(model), own))
    torch.save(results, folder / f"{rank}.pt")
    dist.destroy_process_group()


def assert_two_are_one(loss_of: LossOf, folder: Path) -> None:
    """Both have the gradients of one process, and the mean of their losses is its loss."""
    # Forked: a spawned process would import everything anew, which takes minutes on a busy machine.
    mp.start_processes(one_of_two, (folder, loss_of), nprocs=2, start_method="fork")  # type: ignore[attr-defined, no-untyped-call]
    both = [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]
    for number, share in enumerate(SHARES):
        loss, gradients = step(loss_of, *made(sum(share)))
        torch.testing.assert_close((both[0][number][0] + both[1][number][0]) / 2, loss, rtol=1e-5, atol=1e-5)
        for process in both:
            for ours, expected in zip(process[number][1], gradients, strict=True):
                torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
