"""Two processes that share a batch, for the tests of losses."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

INPUTS, OUTPUTS = 12, 8


def small_model() -> nn.Module:
    """Vectors in, vectors out."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(INPUTS, 16), nn.Tanh(), nn.Linear(16, OUTPUTS))


def views_of(total: int) -> tuple[Tensor, Tensor]:
    """Both views of all texts, (2, M, INPUTS), and the texts' numbers with some duplicates, (2, M)."""
    views = torch.randn(2, total, INPUTS, generator=torch.Generator().manual_seed(total))
    return views, (torch.arange(total) % max(3, total - 2)).expand(2, -1)


def gradients(model: nn.Module, loss_of: Callable[[Any], Tensor]) -> dict[str, Tensor]:
    """The loss and the gradients by name, averaged over the processes."""
    wrapped = DistributedDataParallel(model) if dist.is_initialized() else model
    loss = loss_of(wrapped)
    loss.backward()
    found = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    return {"loss": loss.detach(), **found}


def in_two_processes(part: Callable[[int, int], Any], folder: Path) -> list[Any]:
    """What ``part(rank, 2)``, a function of a module, returns in each of two processes."""
    spawn(_process, (part, folder), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


def _process(rank: int, part: Callable[[int, int], Any], folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    torch.save(part(rank, 2), folder / f"{rank}.pt")
    dist.destroy_process_group()


def assert_two_are_one(loss_of: Callable[[Tensor, Tensor], Tensor], folder: Path) -> None:
    """Each of two processes has the gradients of one with all texts, and the mean of their losses is its loss.

    Args:
        loss_of: vectors (2, N, D) and numbers of texts (2, N) to a loss; a function of a module.
        folder: where they meet.
    """
    part = partial(_share, loss_of)
    expected, processes = part(0, 1), in_two_processes(part, folder)
    torch.testing.assert_close(sum(found["loss"] for found in processes) / 2, expected.pop("loss"))
    for found in processes:
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-5)


def _share(loss_of: Callable[[Tensor, Tensor], Tensor], rank: int, world: int) -> dict[str, Tensor]:
    views, texts = views_of(9)
    return gradients(small_model(), lambda model: loss_of(model(views[:, rank::world]), texts[:, rank::world]))
