"""RankCSE: beside InfoNCE, the two views rank the batch alike, and as a teacher ranks it."""

import math
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from mirror.config import Directions, RankLoss, Rule
from mirror.data.batches import MirroredBatch
from mirror.losses.base import Components, Loss, check_two_views
from mirror.losses.embedder import Embedder
from mirror.losses.gather import gather_in_order, world_size
from mirror.losses.infonce import info_nce
from mirror.losses.teacher import Given, Teacher, folders

Temperature = Annotated[float, Rule(lambda t: 0 < t <= 100, "above 0 and at most 100")]
Weight = Annotated[float, Rule(lambda weight: 0 <= weight <= 1000, "from 0 to 1000")]


class Ranking(Loss):
    """InfoNCE in one direction + ``consistency`` · JS + ``distillation`` · ListMLE or ListNet (Liu et al. 2023).

    Each text's list holds the cosines of its first view with the second views of all texts of the batch, over
    ``temperature``. JS is the Jensen-Shannon divergence between the softmax of that list and of the list of its second
    view with all first ones. The teachers' lists are cosines of their own vectors of the same strings, those of two
    mixed by ``share``, those of several given together averaged.

    The authors' code is not public: details and defaults are those of perceptiveshawty/RankCSE
    (``rankcse/models.py``), but for two defects. Its logarithm of the mixture in JS is clamped to a number above 0,
    which makes it a constant; its weight of JS is never used.

    Args:
        temperature: divides the student's cosines (0.05).
        teacher: folder of the encoder to learn the ranking from, or several.
        second_teacher: folder of another one; null is none.
        share: of the teacher beside a second one in the list (α; 0.33 in that code's script).
        distillation: weight of the ranking distillation (γ; 1).
        consistency: weight of JS (β; 1).
        method: see ``RankLoss``.
        teacher_temperature: divides the teachers' cosines; only ListNet depends on it (half of the student's).
        mask_duplicates: equal texts are not negatives of each other in InfoNCE; the lists hold them all.
        keep: folder in which the teachers' vectors are kept, each made once for all runs; null keeps none.

    Raises:
        MirrorError: a teacher is missing or cannot be loaded.
    """

    def __init__(
        self,
        temperature: Temperature = 0.05,
        teacher: Given = None,
        second_teacher: str | None = None,
        share: Annotated[float, Rule(lambda share: 0 < share < 1, "above 0 and below 1")] = 0.33,
        distillation: Weight = 1.0,
        consistency: Weight = 1.0,
        method: RankLoss = RankLoss.listmle,
        teacher_temperature: Temperature = 0.025,
        mask_duplicates: bool = True,
        keep: str | None = "outputs/teachers",
    ) -> None:
        super().__init__()
        self.temperature, self.mask_duplicates = temperature, mask_duplicates
        self.distillation, self.consistency = distillation, consistency
        self.method, self.teacher_temperature = method, teacher_temperature
        self.teachers = list[Teacher]()
        self.shares = list[float]()
        if distillation:
            self.teachers = [Teacher(name, keep=keep) for name in folders(teacher)]
            self.shares = [(share if second_teacher else 1.0) / len(self.teachers)] * len(self.teachers)
            if second_teacher:
                self.teachers.append(Teacher(second_teacher, "loss.second_teacher", keep=keep))
                self.shares.append(1 - share)

    def forward(self, embed: Embedder, batch: MirroredBatch) -> Components:
        """The loss, and its three terms before their weights.

        Raises:
            MirrorError: the batch has other than two views of each text.
        """
        check_two_views(batch)
        vectors = embed(batch)  # (2, N, D)
        contrast = info_nce(
            vectors,
            batch.text_ids,
            self.temperature,
            mask_duplicates=self.mask_duplicates,
            directions=Directions.cross,
        )
        taught = [teacher.vectors(batch.texts, vectors.device) for teacher in self.teachers]  # (2, N, D') each
        with torch.autocast(vectors.device.type, enabled=False):
            ours, back, own = lists(vectors, batch.text_ids)  # (N, M) twice, (N,)
            scale = world_size() / ours.shape[1]
            parts = {"contrast": contrast}
            if self.consistency:
                parts["consistency"] = jensen_shannon(ours / self.temperature, back / self.temperature) * scale
            if self.distillation:
                wanted = self._mixed([lists(found, batch.text_ids)[0] for found in taught])  # (N, M)
                if self.method is RankLoss.listmle:
                    parts["distillation"] = list_mle(ours / self.temperature, wanted) * scale
                else:
                    student, teacher = ours / self.temperature, wanted / self.teacher_temperature
                    parts["distillation"] = list_net(student, teacher, own) * scale
        weights = {"contrast": 1.0, "consistency": self.consistency, "distillation": self.distillation}
        loss = torch.stack([weights[name] * part for name, part in parts.items()]).sum()
        return {"loss": loss, **{name: part.detach() for name, part in parts.items()}}

    def _mixed(self, cosines: list[Tensor]) -> Tensor:
        """One list of all teachers."""
        return torch.stack([share * found for share, found in zip(self.shares, cosines, strict=True)]).sum(dim=0)

    def negatives(self, texts: int) -> int:
        """The other texts' second views."""
        return texts - 1

    def describe(self) -> str:
        """Weights, temperature and teachers."""
        line = f"RankCSE, temperature {self.temperature:g}, consistency {self.consistency:g}"
        if not self.distillation:
            return line
        names = [teacher.name for teacher in self.teachers]
        if len({*self.shares}) > 1:
            names = [f"{name} ({share:.3g})" for name, share in zip(names, self.shares, strict=True)]
        return f"{line}, {self.method.value} {self.distillation:g} to {' and '.join(names)}"


def lists(vectors: Tensor, text_ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The cosines of this device's first views with everyone's second views, of its second views with everyone's first
    ones, (N, M) each, and the places of its texts among the M, (N,).

    Args:
        vectors: (2, N, D).
        text_ids: (2, N).
    """
    unit = F.normalize(vectors.float(), dim=-1)
    everyone = gather_in_order(unit, text_ids)  # (2, M, D)
    return unit[0] @ everyone.vectors[1].T, unit[1] @ everyone.vectors[0].T, everyone.own


def jensen_shannon(ours: Tensor, theirs: Tensor) -> Tensor:
    """The sum over the rows of the Jensen-Shannon divergence of two softmaxes; logits of (N, M) each."""
    p, q = ours.log_softmax(dim=1), theirs.log_softmax(dim=1)
    middle = torch.logaddexp(p, q) - math.log(2)
    return (p.exp() * (p - middle) + q.exp() * (q - middle)).sum() / 2


def list_mle(ours: Tensor, wanted: Tensor) -> Tensor:
    """The sum over the rows of -log p of the order in which ``wanted`` ranks a list (Xia et al. 2008, ListMLE).

    p is the probability of drawing the items in that order, each from the softmax of ``ours`` over those left. Of equal
    ones the earlier comes first.

    Args:
        ours: logits, (N, M).
        wanted: (N, M).
    """
    order = wanted.argsort(dim=1, descending=True, stable=True)
    ranked = ours.gather(1, order)
    left = ranked.flip(1).logcumsumexp(dim=1).flip(1)  # of each item and those behind it
    return (left - ranked).sum()


def list_net(ours: Tensor, wanted: Tensor, own: Tensor) -> Tensor:
    """The sum over the rows of the cross entropy between the softmaxes of ``wanted`` and ``ours`` (Cao et al. 2007).

    A text's own twin is left out: in the teacher's list it would take nearly all of the probability.

    Args:
        ours: logits, (N, M).
        wanted: logits, (N, M).
        own: (N,), the twins' places.
    """
    if ours.shape[1] == 1:  # a text alone ranks nothing
        return ours.sum() * 0
    lowest = torch.finfo(ours.dtype).min
    p = ours.scatter(1, own[:, None], lowest).log_softmax(dim=1)
    q = wanted.scatter(1, own[:, None], lowest).softmax(dim=1)
    return -(q * p.scatter(1, own[:, None], 0.0)).sum()
