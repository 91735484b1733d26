"""The vectors of all devices, with gradients."""

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor


class Gathered(NamedTuple):
    """Vectors and text numbers of all devices; M texts over all devices."""

    vectors: Tensor  # (V, M, D)
    text_ids: Tensor  # (V, M)
    first: int
    """Place of this device's first text among the M."""


def gather(vectors: Tensor, text_ids: Tensor) -> Gathered:
    """Everyone's vectors, in the order of the devices, which may hold different numbers of texts.

    The gradient of one's own vectors is the sum over all devices that used them. A loss that each device computes for
    its own rows, divides by the number of all rows and multiplies by ``world_size()`` has the gradients of one process
    with all the texts, since DDP averages them.

    Args:
        vectors: (V, N, D).
        text_ids: (V, N).
    """
    world = world_size()
    if world == 1:
        return Gathered(vectors, text_ids, 0)
    n = vectors.shape[1]
    counts = [torch.zeros(1, dtype=torch.long, device=vectors.device) for _ in range(world)]
    dist.all_gather(counts, torch.tensor([n], device=vectors.device))
    sizes = [int(count) for count in counts]
    # all_gather wants equal shapes: the smaller devices fill up, and the filling is cut off again.
    room = max(sizes)
    everyone = _AllGather.apply(F.pad(vectors, (0, 0, 0, room - n)))  # type: ignore[no-untyped-call]  # (world, V, room, D)
    filled = F.pad(text_ids, (0, room - n))
    id_parts = [torch.zeros_like(filled) for _ in range(world)]
    dist.all_gather(id_parts, filled)
    return Gathered(
        torch.cat([part[:, :size] for part, size in zip(everyone, sizes, strict=True)], dim=1),
        torch.cat([part[:, :size] for part, size in zip(id_parts, sizes, strict=True)], dim=1),
        sum(sizes[: dist.get_rank()]),
    )


class InOrder(NamedTuple):
    """Vectors and text numbers of all devices, as one process with the whole batch has them."""

    vectors: Tensor  # (V, M, D)
    text_ids: Tensor  # (V', M)
    own: Tensor  # (N,), the places of this device's texts among the M


def gather_in_order(vectors: Tensor, text_ids: Tensor) -> InOrder:
    """Everyone's vectors in the order of the batch, for losses that depend on it; gradients as in ``gather``.

    Device r of W holds texts r, r + W, r + 2W and so on of a batch (``MirroredPairs``).

    Args:
        vectors: (V, N, D).
        text_ids: (V', N).
    """
    world = world_size()
    own = torch.arange(vectors.shape[1], device=vectors.device) * world + (dist.get_rank() if world > 1 else 0)
    found = gather(vectors, torch.cat([text_ids, own[None]]))
    order = found.text_ids[-1].argsort()
    return InOrder(found.vectors[:, order], found.text_ids[:-1, order], own)


def gather_texts(texts: list[str]) -> list[str]:
    """Everyone's texts in the order of the batch, as ``gather_in_order`` has their vectors."""
    if world_size() == 1:
        return texts
    parts: list[list[str]] = [[] for _ in range(world_size())]
    dist.all_gather_object(parts, texts)
    return [part[place] for place in range(len(parts[0])) for part in parts if place < len(part)]


class Draw(NamedTuple):
    """What a draw for the texts of a whole batch needs, so that it does not depend on who has them."""

    seed: int
    """The same on every device, another at every step."""
    own: Tensor  # (N,), the places of this device's texts among the M
    total: int
    """M."""


def draw_together(texts: int, device: torch.device) -> Draw:
    """A seed for all devices from their random states, and the places of this device's texts."""
    seeds = torch.randint(2**31, (1, texts)).to(device)
    everyone = gather_in_order(seeds[..., None].float(), seeds)
    # The devices take that of the batch's first text.
    return Draw(int(everyone.text_ids[0, 0]), everyone.own, everyone.text_ids.shape[1])


def world_size() -> int:
    """The number of processes that share a batch."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


class _AllGather(torch.autograd.Function):
    """Everyone's tensors, stacked; the gradient of one's own is the sum over all who used it."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, own.contiguous())
        return torch.stack(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous()
        dist.all_reduce(total)
        return total[dist.get_rank()]
