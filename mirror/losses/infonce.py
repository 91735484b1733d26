"""InfoNCE over mirrored batches, and the gathering of vectors across devices."""

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mirror.config import LossForm

ENTRIES = 2**20
"""Of the similarity matrix, made at a time: of 8,192 texts the whole of it, with what its gradient needs, would be
several GB. Batches of up to 512 texts are made as a whole."""


class Gathered(NamedTuple):
    """Vectors and text numbers of all devices; M over all devices."""

    vectors: Tensor  # (2M, D): all left views, then all right views
    texts: Tensor  # (2M,)
    first: int
    """Place of this device's first left view."""


def info_nce(
    vectors: Tensor,
    texts: Tensor,
    temperature: float,
    *,
    form: LossForm = LossForm.nt_xent,
    mask_duplicates: bool = False,
) -> Tensor:
    """InfoNCE over 2N vectors (paper, equation 1): each text's twin against the other 2N - 2 vectors.

    Under ``torch.distributed`` the negatives are those of all devices, and the mean of the devices' gradients is
    the gradient of one process with the whole batch: each device scores its own rows against everyone's columns.

    Args:
        vectors: (2N, D), left views first, then the right views in the same order; any length, any dtype.
        texts: (2N,), equal numbers for equal texts.
        temperature: divides the cosine similarities.
        form: with the positive in the denominator (NT-Xent, Chen et al. 2020; the authors' code) or without it
            (decoupled, Yeh et al. 2022; the formula as the paper prints it).
        mask_duplicates: leave out of a row's negatives all that equal its own text or its positive.

    Returns:
        The mean over the 2N rows, a scalar in float32. At most ``ENTRIES`` of the similarity matrix are held at a time,
        and made again for the gradient: memory is linear in N.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        rows = F.normalize(vectors.float(), dim=-1)  # (2N, D)
        n = len(rows) // 2
        columns, column_texts, first = _gather(rows, texts)
        total = len(columns) // 2
        own = torch.arange(first, first + n, device=rows.device)
        own = torch.cat([own, own + total])  # (2N,): each row's place among the columns
        twin = (own + total) % (2 * total)

        def summed(rows: Tensor, columns: Tensor, own: Tensor, twin: Tensor) -> Tensor:
            logits = rows @ columns.T / temperature  # (R, 2M)
            positive = logits.gather(1, twin[:, None])  # (R, 1)
            excluded = torch.zeros_like(logits, dtype=torch.bool)
            if mask_duplicates:
                alike = (column_texts[own][:, None], column_texts[twin][:, None])
                excluded = (column_texts[None] == alike[0]) | (column_texts[None] == alike[1])
            excluded = excluded.scatter(1, own[:, None], True)
            excluded = excluded.scatter(1, twin[:, None], form is LossForm.decoupled)
            logits = logits.masked_fill(excluded, -torch.inf)
            # A row without any negative has nothing to learn; log 0 would make it infinite.
            alone = excluded.all(dim=1, keepdim=True)
            return (torch.where(alone, positive, logits).logsumexp(dim=1, keepdim=True) - positive).sum()

        at_a_time = max(1, ENTRIES // len(columns))
        if len(rows) <= at_a_time:
            loss = summed(rows, columns, own, twin)
        else:
            pieces = zip(*(tensor.split(at_a_time) for tensor in (rows, own, twin)), strict=True)
            parts = [
                checkpoint(summed, piece, columns, *places, use_reentrant=False, preserve_rng_state=False)
                for piece, *places in pieces
            ]
            loss = torch.stack(parts).sum()
        # Sum over own rows / all rows: the devices' losses add up to the loss of one process. DDP averages the
        # gradients, hence the factor.
        return loss / (2 * total) * _world_size()


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


def _world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _gather(rows: Tensor, texts: Tensor) -> Gathered:
    """Everyone's vectors, with gradients; the devices may hold different numbers of texts."""
    world = _world_size()
    if world == 1:
        return Gathered(rows, texts, 0)
    n = len(rows) // 2
    counts = [torch.zeros(1, dtype=torch.long, device=rows.device) for _ in range(world)]
    dist.all_gather(counts, torch.tensor([n], device=rows.device))
    sizes = [int(count) for count in counts]
    # all_gather wants equal shapes: the smaller devices fill up, and the filling is cut off again.
    room = max(sizes)
    left, right = (F.pad(part, (0, 0, 0, room - n)) for part in rows.split(n))  # (room, D) each
    everyone = _AllGather.apply(torch.cat([left, right]))  # type: ignore[no-untyped-call]  # (world, 2 * room, D)
    text_parts = [torch.zeros(2 * room, dtype=texts.dtype, device=rows.device) for _ in range(world)]
    dist.all_gather(text_parts, torch.cat([F.pad(part, (0, room - n)) for part in texts.split(n)]))
    sides = [slice(0, room), slice(room, 2 * room)]
    vectors = [part[side][:size] for side in sides for part, size in zip(everyone, sizes, strict=True)]
    numbers = [part[side][:size] for side in sides for part, size in zip(text_parts, sizes, strict=True)]
    return Gathered(torch.cat(vectors), torch.cat(numbers), sum(sizes[: dist.get_rank()]))
