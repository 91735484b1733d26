"""InfoNCE against naive loops, against pytorch-metric-learning, and across processes."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from mirror.config import LossForm
from mirror.losses.infonce import info_nce
from tests.losses.inputs import TEMPERATURE, TEXTS, different, vectors_of

forms = pytest.mark.parametrize("form", list(LossForm))


def naive(vectors: Tensor, texts: Tensor, temperature: float, form: LossForm, mask_duplicates: bool) -> Tensor:
    """The definition, one number at a time."""
    vectors, texts = vectors.flatten(0, 1), texts.flatten()
    count = len(vectors)
    unit = [v / v.norm() for v in vectors]
    rows = []
    for i in range(count):
        twin = (i + count // 2) % count
        positive = unit[i] @ unit[twin] / temperature
        terms = [positive.exp()] if form is LossForm.nt_xent else []
        for j in range(count):
            duplicate = int(texts[j]) in (int(texts[i]), int(texts[twin]))
            if j not in (i, twin) and not (mask_duplicates and duplicate):
                terms.append((unit[i] @ unit[j] / temperature).exp())
        if terms:
            rows.append(torch.stack(terms).sum().log() - positive)
    return torch.stack(rows).sum() / count


@forms
@pytest.mark.parametrize("at_a_time", [3 * 14, 2**20])
@pytest.mark.parametrize("mask_duplicates", [False, True])
@pytest.mark.parametrize("texts", TEXTS.values(), ids=TEXTS)
def test_value_and_gradient_are_the_definition_s(
    form: LossForm, mask_duplicates: bool, texts: Tensor, at_a_time: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mirror.losses.infonce.ENTRIES", at_a_time)
    ours, theirs = vectors_of(7).requires_grad_(), vectors_of(7).requires_grad_()
    loss = info_nce(ours, texts, TEMPERATURE, form=form, mask_duplicates=mask_duplicates)
    expected = naive(theirs, texts, TEMPERATURE, form, mask_duplicates)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)


def test_masking_duplicates_matters_only_where_there_are_some() -> None:
    def loss(texts: Tensor, mask: bool) -> float:
        return float(info_nce(vectors_of(7), texts, TEMPERATURE, mask_duplicates=mask))

    assert loss(TEXTS["different"], True) == loss(TEXTS["different"], False)
    assert loss(TEXTS["duplicates"], True) < loss(TEXTS["duplicates"], False)


@pytest.mark.parametrize("temperature", [0.04, 0.2])
def test_nt_xent_is_pytorch_metric_learning_s(temperature: float) -> None:
    from pytorch_metric_learning.losses import NTXentLoss

    ours, theirs = vectors_of(20).float().requires_grad_(), vectors_of(20).float().requires_grad_()
    loss = info_nce(ours, different(20), temperature)
    expected = NTXentLoss(temperature)(theirs.flatten(0, 1), different(20).flatten())
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)


def test_length_of_the_vectors_makes_no_difference() -> None:
    a, texts = vectors_of(5), different(5)
    lengths = torch.linspace(0.1, 100, 10, dtype=torch.float64).view(2, 5, 1)
    torch.testing.assert_close(info_nce(a * lengths, texts, TEMPERATURE), info_nce(a, texts, TEMPERATURE))


def test_default_is_nt_xent_with_all_negatives() -> None:
    a, texts = vectors_of(7), TEXTS["duplicates"]
    expected = info_nce(a, texts, TEMPERATURE, form=LossForm.nt_xent, mask_duplicates=False)
    assert torch.equal(info_nce(a, texts, TEMPERATURE), expected)


@forms
def test_loss_is_float32_inside_autocast(form: LossForm) -> None:
    a, texts = vectors_of(50).float(), different(50)
    expected = info_nce(a, texts, 0.04, form=form)
    with torch.autocast("cpu", torch.bfloat16):
        inside = info_nce(a, texts, 0.04, form=form)
        half = info_nce(a.bfloat16(), texts, 0.04, form=form)
    assert inside.dtype == half.dtype == torch.float32
    assert torch.equal(inside, expected)
    assert torch.equal(half, info_nce(a.bfloat16().float(), texts, 0.04, form=form))


@forms
@pytest.mark.parametrize("temperature", [0.001, 0.04])
@pytest.mark.parametrize("texts", [torch.zeros(2, 6, dtype=torch.long), torch.tensor([[0, 0, 0, 0, 0, 1]] * 2)])
def test_batch_of_duplicates_is_finite(form: LossForm, temperature: float, texts: Tensor) -> None:
    a = vectors_of(6).requires_grad_()
    loss = info_nce(a, texts, temperature, form=form, mask_duplicates=True)
    loss.backward()
    assert math.isfinite(loss.item())
    assert a.grad is not None
    assert torch.isfinite(a.grad).all()
    if len(texts.unique()) == 1:  # no negatives at all: nothing to learn
        torch.testing.assert_close(a.grad, torch.zeros_like(a), rtol=0, atol=1e-6 / temperature)


@forms
def test_twins_that_are_equal_are_finite(form: LossForm) -> None:
    a = vectors_of(6)[:1].repeat(2, 1, 1).requires_grad_()
    info_nce(a, different(6), 0.01, form=form).backward()
    assert a.grad is not None
    assert torch.isfinite(a.grad).all()


class LargestTensor(TorchDispatchMode):
    """Entries in the largest tensor that any operation returns, backward included."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.entries = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        made = result if isinstance(result, tuple | list) else [result]
        self.entries = max([self.entries, *(item.numel() for item in made if isinstance(item, Tensor))])
        return result


@forms
@pytest.mark.parametrize("n", [20, 150])
def test_memory_is_quadratic_in_a_small_batch(form: LossForm, n: int) -> None:
    a = vectors_of(n).float().requires_grad_()
    with LargestTensor() as largest:
        info_nce(a, different(n), TEMPERATURE, form=form, mask_duplicates=True).backward()
    assert largest.entries == (2 * n) ** 2


@forms
@pytest.mark.parametrize("n", [20, 150])
def test_memory_is_linear_in_a_large_batch(form: LossForm, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mirror.losses.infonce.ENTRIES", 1000)
    a = vectors_of(n).float().requires_grad_()
    with LargestTensor() as largest:
        info_nce(a, different(n), TEMPERATURE, form=form, mask_duplicates=True).backward()
    assert largest.entries <= max(1000, 2 * n * 16)  # or the vectors themselves


# Across processes: each has its share of the texts and a copy of a small model.

INPUTS, OUTPUTS = 12, 8
SHARES = {"uneven": [5, 3], "even": [4, 4], "one text": [1, 7], "as in training": [100, 100]}
CASES = [(name, form, mask) for name in SHARES for form in LossForm for mask in (False, True)]


def small_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(INPUTS, 16), nn.Tanh(), nn.Linear(16, OUTPUTS))


def inputs_of(case: str) -> tuple[Tensor, Tensor]:
    """Both views of all texts, (2, M, INPUTS), and the texts' numbers with some duplicates, (2, M)."""
    total = sum(SHARES[case])
    views = torch.randn(2, total, INPUTS, generator=torch.Generator().manual_seed(total))
    return views, (torch.arange(total) % max(3, total - 2)).expand(2, -1)


def one_step(
    case: str, model: nn.Module, views: Tensor, texts: Tensor, form: LossForm, mask: bool
) -> tuple[float, list[Tensor]]:
    vectors = model(views)
    with FlopCounterMode(display=False) as counter:
        loss = info_nce(vectors, texts, TEMPERATURE, form=form, mask_duplicates=mask)
    assert counter.get_total_flops() == 2 * vectors.shape[1] * 2 * 2 * sum(SHARES[case]) * OUTPUTS  # own rows alone
    loss.backward()
    return loss.item(), [p.grad for p in model.parameters() if p.grad is not None]


def one_of_two(rank: int, folder: str) -> None:
    """The part of one process; its results go into a file."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    results = []
    for case, form, mask in CASES:
        views, texts = inputs_of(case)
        first = SHARES[case][0]
        share = slice(0, first) if rank == 0 else slice(first, None)
        # No name keeps the wrapper beyond the process group: freed after it, it can wait for its own thread for ever.
        shared = one_step(case, DistributedDataParallel(small_model()), views[:, share], texts[:, share], form, mask)
        results.append(shared)
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What each of two processes computed in each case."""
    folder: Path = tmp_path_factory.mktemp("gloo")
    mp.spawn(one_of_two, (str(folder),), nprocs=2)  # type: ignore[attr-defined, no-untyped-call]
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


@pytest.mark.parametrize("number", range(len(CASES)), ids=[f"{n}-{f.value}-{m}" for n, f, m in CASES])
def test_two_processes_give_the_loss_and_gradients_of_one(number: int, two_processes: list[Any]) -> None:
    case, form, mask = CASES[number]
    loss, gradients = one_step(case, small_model(), *inputs_of(case), form, mask)
    losses = [process[number][0] for process in two_processes]
    assert sum(losses) / 2 == pytest.approx(loss, rel=1e-5)
    for process in two_processes:
        for ours, expected in zip(process[number][1], gradients, strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
