"""InfoNCE over mirrored batches: each text's twin against the other vectors of the batch (paper, equation 1)."""

from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mirror.config import LossForm, Rule
from mirror.data.batches import MirroredBatch
from mirror.losses.base import Components, Loss
from mirror.losses.embedder import Embedder
from mirror.losses.gather import gather, world_size

ENTRIES = 2**20
"""Of the similarity matrix, made at a time: of 8,192 texts the whole of it, with what its gradient needs, would be
several GB. Batches of up to 512 texts are made as a whole."""


class InfoNCE(Loss):
    """InfoNCE over the 2N views of a batch.

    Args:
        temperature: divides the cosine similarities.
        form: with the positive in the denominator (NT-Xent, Chen et al. 2020; the authors' code) or without it
            (decoupled, Yeh et al. 2022; the formula as the paper prints it).
        mask_duplicates: texts that stand twice in a batch are not negatives of each other.
    """

    def __init__(
        self,
        temperature: Annotated[float, Rule(lambda t: 0 < t <= 100, "above 0 and at most 100")] = 0.04,
        form: LossForm = LossForm.nt_xent,
        mask_duplicates: bool = True,
    ) -> None:
        super().__init__()
        self.temperature, self.form, self.mask_duplicates = temperature, form, mask_duplicates

    def forward(self, embed: Embedder, batch: MirroredBatch) -> Components:
        """One component, the loss."""
        vectors = embed(batch)  # (2, N, D)
        loss = info_nce(vectors, batch.text_ids, self.temperature, form=self.form, mask_duplicates=self.mask_duplicates)
        return {"loss": loss}

    def negatives(self, texts: int) -> int:
        """All vectors but one's own and one's twin."""
        return 2 * texts - 2

    def describe(self) -> str:
        """Form and temperature."""
        return f"InfoNCE ({self.form.value}), temperature {self.temperature}"


def info_nce(
    vectors: Tensor,
    text_ids: Tensor,
    temperature: float,
    *,
    form: LossForm = LossForm.nt_xent,
    mask_duplicates: bool = False,
) -> Tensor:
    """InfoNCE over 2N vectors: each text's twin against the other 2N - 2 vectors.

    Under ``torch.distributed`` the negatives are those of all devices, and the mean of the devices' gradients is
    the gradient of one process with the whole batch: each device scores its own rows against everyone's columns.

    Args:
        vectors: (2, N, D), of the two views; any length, any dtype.
        text_ids: (2, N), equal numbers for equal texts.
        temperature: divides the cosine similarities.
        form: with the positive in the denominator or without it; see ``InfoNCE``.
        mask_duplicates: leave out of a row's negatives all that equal its own text or its positive.

    Returns:
        The mean over the 2N rows, a scalar in float32. At most ``ENTRIES`` of the similarity matrix are held at a time,
        and made again for the gradient: memory is linear in N.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        unit = F.normalize(vectors.float(), dim=-1)  # (2, N, D)
        everyone, ids, first = gather(unit, text_ids)  # (2, M, D), (2, M)
        rows, columns, column_ids = unit.flatten(0, 1), everyone.flatten(0, 1), ids.flatten()
        n, total = unit.shape[1], everyone.shape[1]
        own = torch.arange(first, first + n, device=rows.device)
        own = torch.cat([own, own + total])  # (2N,): each row's place among the columns
        twin = (own + total) % (2 * total)

        def summed(rows: Tensor, columns: Tensor, own: Tensor, twin: Tensor) -> Tensor:
            logits = rows @ columns.T / temperature  # (R, 2M)
            positive = logits.gather(1, twin[:, None])  # (R, 1)
            excluded = torch.zeros_like(logits, dtype=torch.bool)
            if mask_duplicates:
                alike = (column_ids[own][:, None], column_ids[twin][:, None])
                excluded = (column_ids[None] == alike[0]) | (column_ids[None] == alike[1])
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
        return loss / (2 * total) * world_size()
