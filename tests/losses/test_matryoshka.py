"""Matryoshka against naive loops and across processes; a run, and what it does not take."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from mirror import MirrorError
from mirror.config.compose import compose
from mirror.losses.matryoshka import Matryoshka
from mirror.runs.record import by_step
from mirror.training.parts import check_parts
from mirror.training.run import train
from tests.conftest import SENTENCES
from tests.losses.processes import assert_two_are_one

SIZES = (8, 3)


def value(vectors: Tensor, texts: Tensor) -> dict[str, Tensor]:
    embedder: Any = SimpleNamespace(dimension=8)
    batch: Any = SimpleNamespace(text_ids=texts)
    embed: Any = lambda _: vectors  # noqa: E731
    return Matryoshka(embedder, SIZES, temperature=0.3)(embed, batch)  # type: ignore[no-any-return]


def total(vectors: Tensor, texts: Tensor) -> Tensor:
    return value(vectors, texts)["loss"]


def test_values_and_gradients_are_the_definition_s() -> None:
    generator = torch.Generator().manual_seed(0)
    ours = torch.randn(2, 6, 8, generator=generator).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    found = value(ours, torch.arange(6).expand(2, -1))
    parts = {}
    for size in SIZES:
        cut = [v[:size] / v[:size].norm() for v in theirs.flatten(0, 1)]
        rows = []
        for i in range(12):
            exps = [(cut[i] @ cut[j] / 0.3).exp() for j in range(12) if j != i]
            rows.append(-((cut[i] @ cut[(i + 6) % 12] / 0.3).exp() / torch.stack(exps).sum()).log())
        parts[f"size_{size}"] = torch.stack(rows).mean()
    expected = torch.stack([*parts.values()]).sum()
    for name, part in parts.items():
        torch.testing.assert_close(found[name], part)
    torch.testing.assert_close(found["loss"], expected)
    found["loss"].backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)


def test_two_processes_give_the_loss_and_gradients_of_one(tmp_path: Path) -> None:
    assert_two_are_one(total, tmp_path)


def test_run_to_the_end(tiny_bert: Path, tmp_path: Path) -> None:
    typed = [
        "loss=matryoshka", "loss.sizes=[32,8]", "eval=none", "model=bert", f"model.path='{tiny_bert}'", "data.size=32",
        "batch.size=16", "trainer=cpu", "trainer.progress=false",
    ]  # fmt: skip
    train(compose("train", typed), tmp_path, SENTENCES[:32])
    for name in ("loss", "size_32", "size_8"):
        assert len(by_step(tmp_path, name)) == 2
    card = (tmp_path / "encoder" / "README.md").read_text()
    assert "| loss | InfoNCE (nt_xent) at 32, 8 dimensions, temperature 0.04 |" in card


@pytest.mark.parametrize("sizes", ["[]", "[0]", "[8,8]", "[many]", "7.5"])
def test_sizes_that_are_none(sizes: str) -> None:
    with pytest.raises(MirrorError, match=r"loss\.sizes"):
        check_parts(compose("train", ["loss=matryoshka", f"loss.sizes={sizes}"]))


def test_sizes_beyond_the_vectors(tiny_bert: Path, tmp_path: Path) -> None:
    typed = ["loss=matryoshka", "eval=none", f"model.path='{tiny_bert}'", "data.size=32", "trainer=cpu"]
    with pytest.raises(MirrorError, match="the vectors have 32 dimensions, so leave 256 out"):
        train(compose("train", typed), tmp_path, SENTENCES[:32])
