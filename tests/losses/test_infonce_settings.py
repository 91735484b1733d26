"""Directions, margin and focal weight of InfoNCE against naive loops, other libraries, and across processes."""

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mirror import MirrorEncoder, MirrorError
from mirror.config import BatchConfig, Directions, LossForm
from mirror.data.batches import BatchKey
from mirror.losses.infonce import InfoNCE, info_nce
from tests.conftest import SENTENCES
from tests.helpers import loss_of, module_of, pairs_of
from tests.losses.inputs import TEMPERATURE, TEXTS, different, vectors_of
from tests.losses.processes import gradients, in_two_processes, small_model, views_of

directions_of = pytest.mark.parametrize("directions", list(Directions))
EXTRAS = [(0.0, 0.0), (0.3, 0.0), (0.0, 0.5), (0.2, 2.0)]


def naive(vectors: Tensor, texts: Tensor, directions: Directions, mask: bool, margin: float, focal: float) -> Tensor:
    """The definition, one number at a time, with the positive in the denominator."""
    n = vectors.shape[1]
    unit = [[v / v.norm() for v in side] for side in vectors]
    rows = [(side, i) for side in ((0,) if directions is Directions.cross else (0, 1)) for i in range(n)]
    losses = []
    for side, i in rows:
        near = (unit[side][i] @ unit[1 - side][i] - margin) / TEMPERATURE
        terms = [near.exp()]
        for other, j in product((0, 1), range(n)):
            if j == i or (directions is not Directions.all and other == side):
                continue
            if not (mask and int(texts[other][j]) in (int(texts[0][i]), int(texts[1][i]))):
                terms.append((unit[side][i] @ unit[other][j] / TEMPERATURE).exp())
        p = near.exp() / torch.stack(terms).sum()
        losses.append(-p.log() * (1 - p.detach()).clamp(min=0) ** focal)
    return torch.stack(losses).mean()


@directions_of
@pytest.mark.parametrize(("margin", "focal"), EXTRAS)
@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("at_a_time", [3 * 7, 2**20])
@pytest.mark.parametrize("texts", TEXTS.values(), ids=TEXTS)
def test_value_and_gradient_are_the_definition_s(
    directions: Directions,
    margin: float,
    focal: float,
    mask: bool,
    at_a_time: int,
    texts: Tensor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mirror.losses.infonce.ENTRIES", at_a_time)
    ours, theirs = vectors_of(7).requires_grad_(), vectors_of(7).requires_grad_()
    loss = info_nce(ours, texts, TEMPERATURE, mask_duplicates=mask, directions=directions, margin=margin, focal=focal)
    expected = naive(theirs, texts, directions, mask, margin, focal)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)


def test_cross_without_the_positive_is_the_definition_s() -> None:
    vectors = vectors_of(6)
    logits = F.cosine_similarity(vectors[0][:, None], vectors[1][None], dim=-1) / TEMPERATURE
    others = logits.masked_fill(torch.eye(6, dtype=torch.bool), -torch.inf)
    expected = (others.logsumexp(1) - logits.diag()).mean()
    loss = info_nce(vectors, different(6), TEMPERATURE, form=LossForm.decoupled, directions=Directions.cross)
    torch.testing.assert_close(loss, expected.float())


def test_cross_is_sentence_transformers_s() -> None:
    losses: Any = pytest.importorskip("sentence_transformers.losses")
    ours, theirs = vectors_of(9).float().requires_grad_(), vectors_of(9).float().requires_grad_()
    loss = info_nce(ours, different(9), 0.05, directions=Directions.cross)
    ranking = losses.MultipleNegativesRankingLoss(model=None, scale=20.0)
    expected = ranking.compute_loss_from_embeddings([theirs[0], theirs[1]], None)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)


def test_both_is_the_mean_of_cross_from_either_side() -> None:
    vectors = vectors_of(6)
    one, other = (
        info_nce(given, different(6), 0.1, directions=Directions.cross) for given in (vectors, vectors.flip(0))
    )
    torch.testing.assert_close(info_nce(vectors, different(6), 0.1, directions=Directions.both), (one + other) / 2)


@directions_of
@pytest.mark.parametrize("focal", [0.5, 2.0])
def test_extremes_are_finite(directions: Directions, focal: float) -> None:
    """Equal twins at a low temperature, where p is 1, and a batch of one text, which has no negatives."""
    same = vectors_of(6)[:1].repeat(2, 1, 1)
    for texts in (different(6), torch.zeros(2, 6, dtype=torch.long)):
        vectors = same.clone().requires_grad_()
        loss = info_nce(vectors, texts, 0.001, mask_duplicates=True, directions=directions, focal=focal)
        loss.backward()
        assert vectors.grad is not None
        assert torch.isfinite(loss)
        assert torch.isfinite(vectors.grad).all()


CASES = [(directions, *extras, mask) for directions in Directions for extras in EXTRAS for mask in (False, True)]


def one_step(case: tuple[Directions, float, float, bool], views: Tensor, texts: Tensor) -> dict[str, Tensor]:
    directions, margin, focal, mask = case

    def loss(model: Any) -> Tensor:
        vectors = model(views)
        return info_nce(
            vectors, texts, TEMPERATURE, directions=directions, margin=margin, focal=focal, mask_duplicates=mask
        )

    return gradients(small_model(), loss)


def share(rank: int, world: int) -> list[dict[str, Tensor]]:
    """What one process learns in each case."""
    views, texts = views_of(8)
    return [one_step(case, views[:, rank::world], texts[:, rank::world]) for case in CASES]


def test_two_processes_give_the_loss_and_gradients_of_one(tmp_path: Path) -> None:
    expected = share(0, 1)
    processes = in_two_processes(share, tmp_path)
    for number, whole in enumerate(expected):
        torch.testing.assert_close(sum(found[number]["loss"] for found in processes) / 2, whole["loss"])
        for found in processes:
            for name in whole.keys() - {"loss"}:
                torch.testing.assert_close(found[number][name], whole[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("extra", [{"margin": 0.3}, {"focal": 0.5}])
def test_what_the_decoupled_form_cannot_do_is_told(extra: dict[str, Any]) -> None:
    with pytest.raises(MirrorError, match=r"loss\.form=nt_xent"):
        InfoNCE(form=LossForm.decoupled, **extra)


def test_other_than_two_views_are_refused(tiny_bert: Path) -> None:
    encoder = MirrorEncoder.load(tiny_bert)
    batch = pairs_of([(text, text) for text in SENTENCES[:4]], encoder, BatchConfig(size=4))[BatchKey(0, 0)]
    three = replace(batch, text_ids=batch.text_ids[:1].expand(3, -1))
    with pytest.raises(MirrorError, match="two views of each text, not 3"):
        loss_of(module_of(encoder), three)


def test_negatives_and_description() -> None:
    assert InfoNCE().negatives(10) == 18
    assert InfoNCE(directions=Directions.cross).negatives(10) == 9
    assert InfoNCE().describe() == "InfoNCE (nt_xent), temperature 0.04"
    described = InfoNCE(directions=Directions.both, margin=0.3, focal=0.5).describe()
    assert described.endswith("directions both, margin 0.3, focal 0.5")


def test_meaning_names_the_loss_of_chance() -> None:
    """Views of equal vectors: each twin is as near as any other text."""
    vectors = torch.ones(2, 100, 8)
    ids = torch.arange(100).expand(2, -1)
    assert InfoNCE().meaning(100).startswith(f"{float(info_nce(vectors, ids, 0.04)):.2f} where")
    cross = float(info_nce(vectors, ids, 0.04, directions=Directions.cross))
    assert InfoNCE(directions=Directions.cross).meaning(100).startswith(f"{cross:.2f} where")
    for other in (InfoNCE(margin=0.1), InfoNCE(focal=1.0), InfoNCE(form=LossForm.decoupled)):
        assert other.meaning(100) == ""
