"""Distillation against naive loops, sentence-transformers, and across processes; what a student becomes."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from mirror import MirrorEncoder, MirrorError
from mirror.config import Match
from mirror.config.compose import compose
from mirror.losses.distil import Distil
from mirror.losses.embedder import Embedder
from mirror.runs.record import by_step
from mirror.training.run import train
from tests.conftest import SENTENCES
from tests.helpers import SMALL
from tests.losses.inputs import Known, cosine
from tests.losses.processes import assert_two_are_one

MATCHES = list(Match)


def value(match: Match, vectors: Tensor, texts: Tensor) -> Tensor:
    """Of a student with vectors of the teacher's size, 5."""
    loss = Distil.__new__(Distil)
    torch.nn.Module.__init__(loss)
    loss.match, loss.map, loss.teacher = match, None, Known(0)  # type: ignore[assignment]
    batch: Any = SimpleNamespace(text_ids=texts, strings=[[str(int(n)) for n in side] for side in texts])
    embed: Any = lambda _: vectors[..., :5]  # noqa: E731
    found: Tensor = loss(embed, batch)["loss"]
    return found


def naive(match: Match, vectors: Tensor, texts: Tensor) -> Tensor:
    """The definition, one number at a time."""
    student, teacher = vectors[..., :5].flatten(0, 1), Known(0).table[texts].flatten(0, 1)
    if match is Match.similarity:
        pairs = [(i, j) for i in range(len(student)) for j in range(len(student))]
        terms = [(cosine(student[i], student[j]) - cosine(teacher[i], teacher[j])) ** 2 for i, j in pairs]
    elif match is Match.cosine:
        terms = [1 - cosine(one, other) for one, other in zip(student, teacher, strict=True)]
    else:
        terms = [((one - other) ** 2).sum() / 5 for one, other in zip(student, teacher, strict=True)]
    return torch.stack(terms).mean()


@pytest.mark.parametrize("match", MATCHES)
def test_values_and_gradients_are_the_definition_s(match: Match) -> None:
    ours = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    texts = torch.tensor([[0, 1, 2, 3, 4, 4], [0, 6, 2, 8, 9, 4]])
    found, expected = value(match, ours, texts), naive(match, theirs, texts)
    torch.testing.assert_close(found, expected)
    found.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("match", [Match.cosine, Match.mse])
def test_values_are_sentence_transformers_s(match: Match) -> None:
    losses: Any = pytest.importorskip("sentence_transformers.losses")
    vectors = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0))
    texts = torch.arange(6).expand(2, -1)
    peer = losses.EmbedDistillLoss(torch.nn.Identity(), distance_metric=match.value)
    expected = peer.compute_loss_from_embeddings(list(vectors), list(Known(0).table[texts]))
    torch.testing.assert_close(value(match, vectors, texts), expected)


@pytest.mark.parametrize("match", MATCHES)
def test_two_processes_give_the_loss_and_gradients_of_one(match: Match, tmp_path: Path) -> None:
    assert_two_are_one(partial(value, match), tmp_path)


def run(model: Path, folder: Path, *typed: str) -> MirrorEncoder:
    folder.mkdir()
    config: Any = compose("train", ["loss=distil", "eval=none", f"model.path='{model}'", *SMALL, *typed])
    return train(config, folder, SENTENCES[:60])


@pytest.mark.parametrize("match", MATCHES)
def test_student_comes_nearer_to_its_teacher(match: Match, tiny_bert: Path, tmp_path: Path) -> None:
    teacher = tmp_path / "teacher"
    MirrorEncoder.load(tiny_bert, "mean").save(teacher)
    run(tiny_bert, tmp_path / "run", f"loss.teacher='{teacher}'", f"loss.match={match.value}", "trainer.max_epochs=6")
    losses = [loss for _, loss in by_step(tmp_path / "run")]
    assert losses[-1] < 0.8 * losses[0]
    card = (tmp_path / "run" / "encoder" / "README.md").read_text()
    assert f"of {teacher} |" in card


def test_vectors_of_other_sizes_go_through_a_map(tiny_bert: Path, tmp_path: Path) -> None:
    teacher = tmp_path / "teacher"
    MirrorEncoder.load(tiny_bert, "concat").save(teacher)  # 96 dimensions
    embedder = Embedder(MirrorEncoder.load(tiny_bert))
    assert Distil(embedder, str(teacher), Match.similarity).map is None
    loss = Distil(embedder, str(teacher), Match.mse)
    assert loss.map is not None
    assert loss.map.weight.shape == (96, 32)
    assert set(loss.state_dict()) == {"map.weight", "map.bias"}
    assert "through a linear map" in loss.describe()
    given = [f"loss.teacher='{teacher}'", "loss.match=mse"]
    assert run(tiny_bert, tmp_path / "run", *given).dimension == 32


def test_without_a_teacher(tiny_bert: Path, tmp_path: Path) -> None:
    with pytest.raises(MirrorError, match=r"loss\.teacher is not set: add loss\.teacher=…"):
        run(tiny_bert, tmp_path / "run")
