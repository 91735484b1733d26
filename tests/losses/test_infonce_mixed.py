"""Negatives mixed from the nearest ones, against naive loops and across processes."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mirror import MirrorError
from mirror.config import Directions, LossForm
from mirror.config.compose import compose
from mirror.losses.infonce import InfoNCE, _draws, info_nce
from mirror.training.parts import check_parts
from tests.losses.inputs import TEMPERATURE, TEXTS, different, vectors_of
from tests.losses.processes import assert_two_are_one

MIXED, AMONG = 5, 3
directions_of = pytest.mark.parametrize("directions", list(Directions))


def found(vectors: Tensor, texts: Tensor, **settings: Any) -> Tensor:
    torch.manual_seed(7)
    return info_nce(vectors, texts, TEMPERATURE, mixed=MIXED, mixed_from=AMONG, mask_duplicates=True, **settings)


def naive(vectors: Tensor, texts: Tensor, directions: Directions, form: LossForm) -> Tensor:
    """The definition, one number at a time."""
    torch.manual_seed(7)
    n, draws = vectors.shape[1], _draws(MIXED, vectors.float())
    unit = [[v / v.norm() for v in side] for side in vectors]
    losses = []
    for side in (0,) if directions is Directions.cross else (0, 1):
        for i in range(n):
            row, own = unit[side][i], (int(texts[0][i]), int(texts[1][i]))
            sides = (0, 1) if directions is Directions.all else (1 - side,)
            others = [unit[s][j] for s in sides for j in range(n) if j != i and int(texts[s][j]) not in own]
            positive = row @ unit[1 - side][i] / TEMPERATURE
            if not others:
                continue
            nearest = sorted(others, key=lambda other: -float((row @ other).detach()))[:AMONG]
            logits = [row @ other / TEMPERATURE for other in others]
            for one, two, share in draws[side, i].tolist() if len(nearest) > 1 else []:
                a = int(one * len(nearest))
                rest = [k % len(nearest) for k in range(a + 1, a + len(nearest))]
                b = rest[int(two * len(rest))]
                mixture = share * nearest[a] + (1 - share) * nearest[b]
                logits.append(row @ (mixture / mixture.norm()) / TEMPERATURE)
            logits += [positive] if form is LossForm.nt_xent else []
            losses.append(torch.stack(logits).logsumexp(0) - positive)
    return torch.stack(losses).sum() / (n if directions is Directions.cross else 2 * n)


@directions_of
@pytest.mark.parametrize("form", list(LossForm))
@pytest.mark.parametrize("at_a_time", [3 * 7, 2**20])
@pytest.mark.parametrize("texts", TEXTS.values(), ids=TEXTS)
def test_value_and_gradient_are_the_definition_s(
    directions: Directions, form: LossForm, at_a_time: int, texts: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mirror.losses.infonce.ENTRIES", at_a_time)
    ours, theirs = vectors_of(7).requires_grad_(), vectors_of(7).requires_grad_()
    loss, expected = found(ours, texts, directions=directions, form=form), naive(theirs, texts, directions, form)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)


def of_directions(directions: Directions, vectors: Tensor, texts: Tensor) -> Tensor:
    return found(vectors, texts, directions=directions)


@directions_of
def test_two_processes_give_the_loss_and_gradients_of_one(directions: Directions, tmp_path: Path) -> None:
    assert_two_are_one(partial(of_directions, directions), tmp_path)


def test_other_steps_mix_others_and_none_is_the_default() -> None:
    vectors, texts = vectors_of(7), different(7)
    torch.manual_seed(8)
    assert info_nce(vectors, texts, TEMPERATURE, mixed=MIXED) != found(vectors, texts)
    state = torch.get_rng_state()
    info_nce(vectors, texts, TEMPERATURE)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("texts", [torch.zeros(2, 6, dtype=torch.long), torch.tensor([[0, 0, 0, 0, 0, 1]] * 2)])
def test_too_few_to_mix_are_finite(texts: Tensor) -> None:
    vectors = vectors_of(6).requires_grad_()
    loss = found(vectors, texts)
    loss.backward()
    assert loss.isfinite()
    assert vectors.grad is not None
    assert vectors.grad.isfinite().all()


def test_negatives_description_and_range() -> None:
    loss = InfoNCE(mixed=8)
    assert loss.negatives(10) == 26
    assert loss.describe().endswith("8 negatives mixed from the nearest 16")
    for typed in ("loss.mixed=-1", "loss.mixed_from=1"):
        with pytest.raises(MirrorError, match=typed.partition("=")[0].replace(".", r"\.")):
            check_parts(compose("train", [typed]))
