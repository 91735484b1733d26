"""InfoNCE over mirrored batches: each text's twin against the other vectors of the batch (paper, equation 1)."""

import math
from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mirror.config import Directions, LossForm, Rule
from mirror.data.batches import MirroredBatch
from mirror.errors import MirrorError
from mirror.losses.base import Components, Loss, check_two_views
from mirror.losses.embedder import Embedder
from mirror.losses.gather import draw_together, gather, world_size

ENTRIES = 2**20
"""Of the similarity matrix, made at a time: of 8,192 texts the whole of it, with what its gradient needs, would be
several GB. Batches of up to 512 texts are made as a whole."""


class InfoNCE(Loss):
    """InfoNCE over the two views of each text of a batch.

    Args:
        temperature: divides the cosine similarities.
        form: with the positive in the denominator (NT-Xent, Chen et al. 2020; the authors' code) or without it
            (decoupled, Yeh et al. 2022; the formula as the paper prints it).
        mask_duplicates: texts that stand twice in a batch are not negatives of each other.
        directions: which vectors are rows and which are their negatives; see ``Directions``.
        margin: is subtracted from the positive's cosine (additive margin; LaBSE, Feng et al. 2022, equation 2: 0.3).
        focal: power of the weight (1 - p) of each row, where p is the probability of its positive
            (KaLM-Embedding-V2: 0.5); the weight itself has no gradient.
        mixed: so many further negatives of each row are mixed from two of its nearest ones, at a random share, and
            scaled to length 1 (MoCHi, Kalantidis et al. 2020). They carry gradients, as all negatives of a batch do.
        mixed_from: of so many nearest negatives.

    Raises:
        MirrorError: ``margin`` or ``focal`` with the decoupled form.
    """

    def __init__(
        self,
        temperature: Annotated[float, Rule(lambda t: 0 < t <= 100, "above 0 and at most 100")] = 0.04,
        form: LossForm = LossForm.nt_xent,
        mask_duplicates: bool = True,
        directions: Directions = Directions.all,
        margin: Annotated[float, Rule(lambda m: 0 <= m <= 2, "from 0 to 2")] = 0.0,
        focal: Annotated[float, Rule(lambda power: 0 <= power <= 10, "from 0 to 10")] = 0.0,
        mixed: Annotated[int, Rule(lambda count: 0 <= count <= 1024, "from 0 to 1024")] = 0,
        mixed_from: Annotated[int, Rule(lambda count: count >= 2, "at least 2")] = 16,
    ) -> None:
        super().__init__()
        if form is LossForm.decoupled and (margin or focal):
            raise MirrorError(
                "loss.margin and loss.focal need the positive in the denominator: leave them at 0 with "
                "loss.form=decoupled, or choose loss.form=nt_xent."
            )
        self.temperature, self.form, self.mask_duplicates = temperature, form, mask_duplicates
        self.directions, self.margin, self.focal = directions, margin, focal
        self.mixed, self.mixed_from = mixed, mixed_from

    def forward(self, embed: Embedder, batch: MirroredBatch) -> Components:
        """One component, the loss.

        Raises:
            MirrorError: the batch has other than two views of each text.
        """
        check_two_views(batch)
        loss = info_nce(
            embed(batch),  # (2, N, D)
            batch.text_ids,
            self.temperature,
            form=self.form,
            mask_duplicates=self.mask_duplicates,
            directions=self.directions,
            margin=self.margin,
            focal=self.focal,
            mixed=self.mixed,
            mixed_from=self.mixed_from,
        )
        return {"loss": loss}

    def negatives(self, texts: int) -> int:
        """All vectors but one's own and one's twin, or those of the other side but one's twin; and the mixed ones."""
        return (2 * texts - 2 if self.directions is Directions.all else texts - 1) + self.mixed

    def meaning(self, texts: int) -> str:
        """Of the plain loss: the number where nothing is known, and that where a text's twin alone is near."""
        plain = self.form is LossForm.nt_xent and self.directions is not Directions.both
        if not plain or self.margin or self.focal:
            return ""
        chance = math.log(1 + self.negatives(texts))
        return (
            f"{chance:.2f} where a text's other view is as near as any other text, 0 where it alone is near; a small "
            "loss is no good encoder yet: the scores tell"
        )

    def describe(self) -> str:
        """Form, temperature, and what is not the default."""
        extras = [f"directions {self.directions.value}"] if self.directions is not Directions.all else []
        extras += [f"margin {self.margin}"] if self.margin else []
        extras += [f"focal {self.focal}"] if self.focal else []
        extras += [f"{self.mixed} negatives mixed from the nearest {self.mixed_from}"] if self.mixed else []
        return ", ".join([f"InfoNCE ({self.form.value}), temperature {self.temperature}", *extras])


def info_nce(
    vectors: Tensor,
    text_ids: Tensor,
    temperature: float,
    *,
    form: LossForm = LossForm.nt_xent,
    mask_duplicates: bool = False,
    directions: Directions = Directions.all,
    margin: float = 0.0,
    focal: float = 0.0,
    mixed: int = 0,
    mixed_from: int = 16,
) -> Tensor:
    """InfoNCE over 2N vectors: each text's twin against the other vectors.

    Under ``torch.distributed`` the negatives are those of all devices, and the mean of the devices' gradients is
    the gradient of one process with the whole batch: each device scores its own rows against everyone's columns.

    Args:
        vectors: (2, N, D), of the two views; any length, any dtype.
        text_ids: (2, N), equal numbers for equal texts.
        temperature: divides the cosine similarities.
        form: with the positive in the denominator or without it; see ``InfoNCE``.
        mask_duplicates: leave out of a row's negatives all that equal its own text or its positive.
        directions: which vectors are rows and columns; see ``Directions``.
        margin: see ``InfoNCE``.
        focal: see ``InfoNCE``.
        mixed: see ``InfoNCE``.
        mixed_from: see ``InfoNCE``.

    Returns:
        The mean over the rows, a scalar in float32. At most ``ENTRIES`` of the similarity matrix are held at a time,
        and made again for the gradient: memory is linear in N.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        unit = F.normalize(vectors.float(), dim=-1)  # (2, N, D)
        everyone, ids, first = gather(unit, text_ids)  # (2, M, D), (2, M)
        n, total = unit.shape[1], everyone.shape[1]
        own = torch.arange(first, first + n, device=unit.device)  # (N,)
        draws = _draws(mixed, unit)  # (2, N, S, 3)
        if directions is Directions.all:
            own = torch.cat([own, own + total])  # (2N,): each row's place among the columns
            twin = (own + total) % (2 * total)
            flat = ids.flatten()
            both = torch.stack([flat[own], flat[twin]], dim=1)  # (2N, 2)
            rows = [Rows(unit.flatten(0, 1), both, twin, own, draws.flatten(0, 1))]
            columns = [Columns(everyone.flatten(0, 1), flat)]
        else:
            sides = (0, 1) if directions is Directions.both else (0,)
            rows = [Rows(unit[side], text_ids[[side, 1 - side]].T, own, None, draws[side]) for side in sides]
            columns = [Columns(everyone[1 - side], ids[1 - side]) for side in sides]
        sums = [
            contrasted(
                one,
                other,
                temperature,
                form=form,
                mask_duplicates=mask_duplicates,
                margin=margin,
                focal=focal,
                mixed_from=mixed_from,
            )
            for one, other in zip(rows, columns, strict=True)
        ]
        loss = sums[0] if len(sums) == 1 else torch.stack(sums).sum()
        # Sum over own rows / all rows: the devices' losses add up to the loss of one process. DDP averages the
        # gradients, hence the factor.
        return loss / (total if directions is Directions.cross else 2 * total) * world_size()


class Rows(NamedTuple):
    """Vectors that look for their positives among the columns."""

    vectors: Tensor  # (R, D), of length 1
    text_ids: Tensor  # (R, 2), of the text and of its positive
    twin: Tensor  # (R,), the positive's place among the columns
    own: Tensor | None = None  # (R,), the row's own place among them; None where it has none
    draws: Tensor | None = None  # (R, S, 3), from 0 to 1: which negatives make the S mixed ones, and at what share


class Columns(NamedTuple):
    """Positives and negatives."""

    vectors: Tensor  # (C, D), of length 1
    text_ids: Tensor  # (C,)
    blocked: Tensor | None = None  # (C,), true where a column is nobody's negative


def contrasted(
    rows: Rows,
    columns: Columns,
    temperature: float,
    *,
    form: LossForm = LossForm.nt_xent,
    mask_duplicates: bool = False,
    margin: float = 0.0,
    focal: float = 0.0,
    mixed_from: int = 16,
) -> Tensor:
    """The sum over the rows of -log p(positive); the settings as in ``info_nce``."""

    def summed(vectors: Tensor, others: Tensor, row_ids: Tensor, twin: Tensor, own: Tensor, draws: Tensor) -> Tensor:
        logits = vectors @ others.T / temperature  # (R, C)
        positive = logits.gather(1, twin[:, None])  # (R, 1)
        if margin:
            positive = positive - margin / temperature
            logits = logits.scatter(1, twin[:, None], positive)
        excluded = torch.zeros_like(logits, dtype=torch.bool)
        if mask_duplicates:
            excluded = (columns.text_ids[None] == row_ids[:, :1]) | (columns.text_ids[None] == row_ids[:, 1:])
        if columns.blocked is not None:
            excluded = excluded | columns.blocked
        excluded = excluded.scatter(1, own[:, None], True)
        excluded = excluded.scatter(1, twin[:, None], form is LossForm.decoupled)
        logits = logits.masked_fill(excluded, -torch.inf)
        # A row without any negative has nothing to learn; log 0 would make it infinite.
        alone = excluded.all(dim=1, keepdim=True)
        if draws.shape[1]:
            negatives = logits.detach().scatter(1, twin[:, None], -torch.inf)
            similar, there = _mixed(vectors, others, negatives, draws, mixed_from)  # (R, S) each
            logits = torch.cat([logits, (similar / temperature).masked_fill(~there, -torch.inf)], dim=1)
        losses = torch.where(alone, positive, logits).logsumexp(dim=1, keepdim=True) - positive
        if focal:
            # 1 - p, exact where p is near 1; rounding may leave a loss a little below 0.
            losses = losses * (-torch.expm1(-losses.detach())).clamp(min=0) ** focal
        return losses.sum()

    own = rows.twin if rows.own is None else rows.own
    draws = rows.vectors.new_empty(len(own), 0, 3) if rows.draws is None else rows.draws
    of_rows = (rows.text_ids, rows.twin, own, draws)
    at_a_time = max(1, ENTRIES // len(columns.vectors))
    if len(rows.vectors) <= at_a_time:
        return summed(rows.vectors, columns.vectors, *of_rows)
    pieces = zip(*(tensor.split(at_a_time) for tensor in (rows.vectors, *of_rows)), strict=True)
    parts = [
        checkpoint(summed, piece, columns.vectors, *rest, use_reentrant=False, preserve_rng_state=False)
        for piece, *rest in pieces
    ]
    return torch.stack(parts).sum()


def _draws(mixed: int, unit: Tensor) -> Tensor:
    """(2, N, S, 3) for S mixed negatives of each of this device's rows; those of a text do not depend on who has it."""
    if not mixed:
        return unit.new_empty(*unit.shape[:2], 0, 3)
    draw = draw_together(unit.shape[1], unit.device)
    draws = torch.rand(2, draw.total, mixed, 3, generator=torch.Generator().manual_seed(draw.seed))
    return draws.to(unit.device)[:, draw.own]


def _mixed(vectors: Tensor, others: Tensor, negatives: Tensor, draws: Tensor, among: int) -> tuple[Tensor, Tensor]:
    """The cosines of rows with mixed negatives, and where there were two to mix, (R, S) each.

    Args:
        vectors: (R, D), of length 1.
        others: (C, D), of length 1.
        negatives: (R, C), logits; -inf where a column is no negative.
        draws: (R, S, 3); see ``Rows``.
        among: how many of the nearest ones are mixed.
    """
    nearness, places = negatives.topk(min(among, negatives.shape[1]), dim=1)  # (R, K)
    count = (nearness > -torch.inf).sum(dim=1, keepdim=True)  # (R, 1)
    first = (draws[..., 0] * count).long()  # (R, S)
    second = (first + 1 + (draws[..., 1] * (count - 1)).long()) % count.clamp(min=1)  # another one
    share = draws[..., 2:]  # (R, S, 1)
    mixed = share * others[places.gather(1, first)] + (1 - share) * others[places.gather(1, second)]  # (R, S, D)
    cosines = (vectors[:, None] * F.normalize(mixed, dim=-1)).sum(dim=-1)
    return cosines, (count > 1).expand_as(cosines)
