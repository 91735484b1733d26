"""Distillation: a student's vectors, or their cosines, follow a teacher's."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mirror.config import Match
from mirror.data.batches import MirroredBatch
from mirror.losses.base import Components, Loss
from mirror.losses.embedder import Embedder
from mirror.losses.gather import gather, world_size
from mirror.losses.teacher import Teacher


class Distil(Loss):
    """Each view's vector follows the teacher's vector of the same string; the teacher is frozen.

    - ``match=cosine``: the mean of 1 - cos(student, teacher) (``EmbedDistillLoss`` of sentence-transformers).
    - ``match=mse``: the mean squared difference of the coordinates (``MSELoss`` of sentence-transformers).
    - ``match=similarity``: the mean squared difference of the cosines of all pairs of views in the batch.

    Where the sizes of the vectors differ, the first two learn a linear map from the student's to the teacher's, which
    is left behind when the encoder is saved.

    Args:
        embedder: tells the size of its vectors.
        teacher: folder of the encoder to learn from. It reads each string to its own limit, the student to
            ``batch.max_tokens``, and it does not see what a view maker does to tokens.
        match: see above.

    Raises:
        MirrorError: the teacher is missing or cannot be loaded.
    """

    equal_views = True

    def __init__(self, embedder: Embedder, teacher: str | None = None, match: Match = Match.cosine) -> None:
        super().__init__()
        self.teacher, self.match = Teacher(teacher), match
        sizes = embedder.dimension, self.teacher.dimension
        self.map = None if match is Match.similarity or sizes[0] == sizes[1] else nn.Linear(*sizes)

    def forward(self, embed: Embedder, batch: MirroredBatch) -> Components:
        """One component, the loss, over views of any number."""
        vectors = embed(batch)  # (V, N, D)
        teacher = self.teacher.vectors(batch.strings, vectors.device)  # (V, N, D')
        with torch.autocast(vectors.device.type, enabled=False):
            student = vectors.float() if self.map is None else self.map(vectors.float())
            if self.match is Match.similarity:
                return {"loss": similarity_mse(student, teacher, batch.text_ids)}
            total = gather(student.detach()[..., :1], batch.text_ids).vectors.shape[1]
            if self.match is Match.cosine:
                distances = 1 - F.cosine_similarity(student, teacher, dim=-1)  # (V, N)
            else:
                distances = (student - teacher).square().mean(dim=-1)
            return {"loss": distances.sum() / (len(student) * total) * world_size()}

    def describe(self) -> str:
        """What is learnt, and from whom."""
        of = {Match.cosine: "directions", Match.mse: "vectors", Match.similarity: "cosines"}[self.match]
        through = " through a linear map" if self.map is not None else ""
        return f"distillation of the {of} of {self.teacher.name}{through}"


def similarity_mse(student: Tensor, teacher: Tensor, text_ids: Tensor) -> Tensor:
    """The mean over all pairs of views, on all devices, of the squared difference of student's and teacher's cosines.

    Args:
        student: (V, N, D).
        teacher: (V, N, D').
        text_ids: (V, N).
    """

    def cosines(vectors: Tensor) -> Tensor:
        unit = F.normalize(vectors, dim=-1)
        everyone = gather(unit, text_ids).vectors  # (V, M, D)
        return unit.flatten(0, 1) @ everyone.flatten(0, 1).T  # (VN, VM)

    ours, theirs = cosines(student), cosines(teacher)
    return (ours - theirs).square().sum() / ours.shape[1] ** 2 * world_size()
