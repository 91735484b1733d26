"""Distillation: a student's vectors, cosines, layers or scores of pairs follow a teacher's."""

from collections.abc import Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mirror.config import Match, Rule
from mirror.data.batches import MirroredBatch
from mirror.errors import MirrorError
from mirror.losses.base import Components, Loss, check_two_views
from mirror.losses.embedder import Embedder
from mirror.losses.gather import gather, gather_in_order, gather_texts, world_size
from mirror.losses.teacher import Given, PairTeacher, Teacher, folders, layer_poolings


class Distil(Loss):
    """Each view's vector follows the teacher's vector of the text that it shows; the teacher is frozen.

    - ``match=cosine``: the mean of 1 - cos(student, teacher) (``EmbedDistillLoss`` of sentence-transformers).
    - ``match=mse``: the mean squared difference of the coordinates (``MSELoss`` of sentence-transformers).
    - ``match=similarity``: the mean squared difference of the cosines of all pairs of views in the batch.
    - ``match=scores``: the mean squared difference of the cosines of pairs and a cross-encoder's scores of them
      (Distilled Sentence Embedding, Barkan et al. 2020, with the cosine as the student's score). Pairs are the given
      ones, and each first text with the second texts of ``others`` other pairs of the batch.

    Of several teachers the first two follow the mean of the unit vectors, the third the mean of the cosines. Where the
    sizes of the vectors differ, the first two learn a linear map from the student's to the teacher's, which is left
    behind when the encoder is saved.

    ``layers`` adds the term of PKD (Sun et al. 2019): the mean squared difference of the coordinates of unit vectors
    of the student's layers and of the named ones of the teacher.

    Args:
        embedder: tells the size of its vectors and the number of its layers.
        teacher: folder of the encoder to learn from, or several. It reads each text whole, up to its own limit.
        match: what the student follows: the directions of vectors (cosine), their coordinates (mse), the cosines within
            a batch (similarity), or a cross-encoder's scores of pairs (scores).
        layers: of the teacher, from 0, one for each layer of the student, in their order; null is none.
        layers_weight: of their term (β in PKD).
        translations: both texts of a given pair follow the teacher's vector of the first one (Reimers and Gurevych
            2020).
        others: see ``match=scores``.
        keep: folder in which the teacher's vectors or scores are kept, each made once for all runs; null keeps none.

    Raises:
        MirrorError: the teacher is missing, cannot be loaded or is of another kind, or the layers do not fit.
    """

    equal_views = True

    def __init__(
        self,
        embedder: Embedder,
        teacher: Given = None,
        match: Match = Match.cosine,
        layers: list[int] | None = None,
        layers_weight: Annotated[float, Rule(lambda weight: weight > 0, "above 0")] = 1.0,
        translations: bool = False,
        others: Annotated[int, Rule(lambda count: count >= 0, "0 or more")] = 1,
        keep: str | None = "outputs/teachers",
    ) -> None:
        super().__init__()
        self.match, self.translations, self.others = match, translations, others
        self.layers, self.layers_weight, self.layered = layers or [], layers_weight, bool(layers)
        self.paired = "loss.translations=true" if translations else None
        named = folders(teacher)
        self.teachers, self.scorers = list[Teacher](), list[PairTeacher]()
        self.map: nn.Linear | None = None
        self.layer_map: nn.Linear | None = None
        if match is Match.scores:
            if layers or translations:
                raise MirrorError(
                    "loss.match=scores follows scores alone: leave out loss.layers and loss.translations."
                )
            self.scorers = [PairTeacher(name, keep=keep) for name in named]
            return
        token = "cls" if embedder.encoder.pooling.name.startswith("cls") else "mean"
        if layers:
            self._check_layers(embedder, layers, named)
        self.teachers = [Teacher(name, keep=keep, layers=self.layers, token=token) for name in named]
        own = embedder.encoder.backbone.config
        self.poolings = layer_poolings(embedder.encoder, range(own.num_hidden_layers if layers else 0), token)
        sizes = {found.name: found.dimension for found in self.teachers}
        if match is not Match.similarity:
            if len({*sizes.values()}) > 1:
                told = ", ".join(f"{name} {size}" for name, size in sizes.items())
                raise MirrorError(
                    f"teacher=[…]: vectors of different sizes have no mean ({told}): set loss.match=similarity."
                )
            if embedder.dimension != (size := self.teachers[0].dimension):
                self.map = nn.Linear(embedder.dimension, size)
        if layers and own.hidden_size != (size := self.teachers[0].sizes[1]):
            self.layer_map = nn.Linear(own.hidden_size, size)

    @staticmethod
    def _check_layers(embedder: Embedder, layers: Sequence[int], teachers: Sequence[str]) -> None:
        most = embedder.encoder.backbone.config.num_hidden_layers
        if len(layers) != most or min(layers) < 0:
            raise MirrorError(
                f"loss.layers={list(layers)} names {len(layers)} layers of the teacher, and the student has {most}: "
                "name one for each, from 0."
            )
        if len(teachers) > 1:
            raise MirrorError("loss.layers follows the layers of one teacher: give one, or leave it out.")

    def forward(self, embed: Embedder, batch: MirroredBatch) -> Components:
        """The loss over views of any number; with ``layers`` also its two terms.

        Raises:
            MirrorError: with ``match=scores``, the batch has other than two views of each text.
        """
        if self.scorers:
            check_two_views(batch)
            return {"loss": self._of_scores(embed(batch), batch)}
        vectors, *ours = embed.with_layers(batch, self.poolings) if self.layers else [embed(batch)]  # (V, N, D) each
        texts = batch.texts[:1] * len(batch.texts) if self.translations else batch.texts
        taught = [teacher.with_layers(texts, vectors.device) for teacher in self.teachers]  # (V, N, D') each
        with torch.autocast(vectors.device.type, enabled=False):
            loss = self._of_vectors(vectors.float(), [found[0] for found in taught], batch)
            if not self.layers:
                return {"loss": loss}
            states = torch.stack(ours).float()  # (L, V, N, H)
            states = states if self.layer_map is None else self.layer_map(states)
            layers = self._mean(patient(states, torch.stack(taught[0][1:])).mean(dim=0), batch)
            return {"loss": loss + self.layers_weight * layers, "vectors": loss.detach(), "layers": layers.detach()}

    def _of_vectors(self, student: Tensor, taught: Sequence[Tensor], batch: MirroredBatch) -> Tensor:
        """Student (V, N, D), teachers (V, N, D') each."""
        if self.match is Match.similarity:
            return similarity_mse(student, taught, batch.text_ids)
        student = student if self.map is None else self.map(student)
        teacher = taught[0]
        if len(taught) > 1:
            teacher = torch.stack([F.normalize(found, dim=-1) for found in taught]).mean(dim=0)
        if self.match is Match.cosine:
            return self._mean(1 - F.cosine_similarity(student, teacher, dim=-1), batch)
        return self._mean((student - teacher).square().mean(dim=-1), batch)

    def _of_scores(self, vectors: Tensor, batch: MirroredBatch) -> Tensor:
        with torch.autocast(vectors.device.type, enabled=False):
            unit = F.normalize(vectors.float(), dim=-1)
            everyone = gather_in_order(unit, batch.text_ids)  # (2, M, D)
            total, seconds = everyone.vectors.shape[1], gather_texts(batch.texts[1])
            steps = torch.arange(min(self.others, total - 1) + 1, device=unit.device)  # 0 is the pair's own second text
            partners = (everyone.own[:, None] + steps) % total  # (N, K + 1)
            cosines = (unit[0][:, None] * everyone.vectors[1][partners]).sum(-1)  # (N, K + 1)
            rows = zip(batch.texts[0], partners.tolist(), strict=True)
            pairs = [[(text, seconds[place]) for place in places] for text, places in rows]
            wanted = torch.stack([teacher.scores(pairs, unit.device) for teacher in self.scorers]).mean(dim=0)
            return (cosines - wanted).square().mean(dim=1).sum() / total * world_size()

    @staticmethod
    def _mean(distances: Tensor, batch: MirroredBatch) -> Tensor:
        """Of (V, N), over the texts of all devices."""
        total = gather(distances.detach()[..., None], batch.text_ids).vectors.shape[1]
        return distances.sum() / (len(distances) * total) * world_size()

    def describe(self) -> str:
        """What is learnt, and from whom."""
        of = {
            Match.cosine: "directions",
            Match.mse: "vectors",
            Match.similarity: "cosines",
            Match.scores: "scores of pairs",
        }[self.match]
        through = " through a linear map" if self.map is not None else ""
        layers = f", of layers {', '.join(map(str, self.layers))} too" if self.layers else ""
        both = ", of each pair's first text" if self.translations else ""
        names = " and ".join([teacher.name for teacher in self.teachers] + [scorer.name for scorer in self.scorers])
        return f"distillation of the {of} of {names}{through}{layers}{both}"


def similarity_mse(student: Tensor, teachers: Sequence[Tensor], text_ids: Tensor) -> Tensor:
    """The mean over all pairs of views, on all devices, of the squared difference of the student's cosines and the
    mean of the teachers'.

    Args:
        student: (V, N, D).
        teachers: (V, N, D') each.
        text_ids: (V, N).
    """

    def cosines(vectors: Tensor) -> Tensor:
        unit = F.normalize(vectors, dim=-1)
        everyone = gather(unit, text_ids).vectors  # (V, M, D)
        return unit.flatten(0, 1) @ everyone.flatten(0, 1).T  # (VN, VM)

    ours, theirs = cosines(student), torch.stack([cosines(found) for found in teachers]).mean(dim=0)
    return (ours - theirs).square().sum() / ours.shape[1] ** 2 * world_size()


def patient(student: Tensor, teacher: Tensor) -> Tensor:
    """The mean squared difference of the coordinates of unit vectors, (…, H) each, to (…): PKD's term of a layer."""
    return (F.normalize(student, dim=-1) - F.normalize(teacher, dim=-1)).square().mean(dim=-1)
