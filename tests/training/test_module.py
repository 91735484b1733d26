"""The optimizer, its schedule and the training step."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

from mirror import MirrorEncoder, MirrorError
from mirror.config import BatchConfig
from mirror.config.compose import compose
from mirror.data.batches import BatchKey, MirroredBatch
from mirror.encoder.perturb import DropHead, set_dropout
from mirror.losses.infonce import InfoNCE, info_nce
from mirror.training.optimizer import rmsprop
from mirror.training.parts import check_parts
from mirror.training.schedule import stepped
from tests.conftest import SENTENCES
from tests.helpers import loss_of, module_of, pairs_of


class FakeTrainer:
    """``configure_optimizers`` asks the trainer for nothing else."""

    estimated_stepping_batches = 20


def built(
    model: Path, schedule: str = "constant", warmup_steps: int = 0, **optim: Any
) -> tuple[torch.optim.Optimizer, list[float]]:
    """The optimizer and the learning rate of each of 20 steps."""
    part = {"_target_": f"mirror.training.schedule.{schedule}", "warmup_steps": warmup_steps}
    module = module_of(MirrorEncoder.load(model), optim=optim, schedule=part)
    module._trainer = FakeTrainer()  # type: ignore[assignment]
    made = module.configure_optimizers()
    optimizer, scheduler = made["optimizer"], made["lr_scheduler"]["scheduler"]
    assert made["lr_scheduler"]["interval"] == "step"
    rates = []
    for _ in range(20):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return optimizer, rates


def test_norms_and_biases_do_not_decay(tiny_bert: Path) -> None:
    optimizer, _ = built(tiny_bert, lr=1e-3, weight_decay=0.3)
    decay = {id(weight): group["weight_decay"] for group in optimizer.param_groups for weight in group["params"]}
    assert set(decay.values()) == {0.3, 0.0}
    for group in optimizer.param_groups:
        assert {weight.ndim > 1 for weight in group["params"]} == {group["weight_decay"] > 0}


def test_decay_all(tiny_bert: Path) -> None:
    optimizer, _ = built(tiny_bert, lr=1e-3, weight_decay=0.3, decay_all=True)
    (group,) = optimizer.param_groups
    assert group["weight_decay"] == 0.3
    assert {weight.ndim for weight in group["params"]} == {1, 2}


def test_every_trained_weight_is_in_one_group(tiny_bert: Path) -> None:
    """All but the pooler's, which is no part of the encoder."""
    optimizer, _ = built(tiny_bert, lr=1e-3)
    shapes = sorted(tuple(weight.shape) for group in optimizer.param_groups for weight in group["params"])
    named = MirrorEncoder.load(tiny_bert).backbone.named_parameters()
    assert shapes == sorted(tuple(weight.shape) for name, weight in named if not name.startswith("pooler"))


@pytest.mark.parametrize(
    ("schedule", "warmup", "step", "share"),
    [
        ("constant", 0, 0, 1.0),
        ("constant", 0, 19, 1.0),
        ("constant", 4, 0, 0.0),
        ("constant", 4, 2, 0.5),
        ("constant", 4, 4, 1.0),
        ("linear", 4, 1, 0.25),
        ("linear", 4, 12, 0.5),
        ("linear", 0, 19, 0.05),
        ("cosine", 0, 10, 0.5),
        ("cosine", 0, 5, 0.8536),
    ],
)
def test_learning_rate(tiny_bert: Path, schedule: str, warmup: int, step: int, share: float) -> None:
    _, rates = built(tiny_bert, schedule, warmup, lr=2e-3)
    assert rates[step] == pytest.approx(share * 2e-3, rel=1e-3)


def test_rate_in_steps() -> None:
    """That of Keras: a boundary's own step still has the rate before it."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-5)
    scheduler, rates = stepped(optimizer, every=3, factors=(0.8, 0.6)), []
    for _ in range(12):
        rates.append(optimizer.param_groups[0]["lr"] / 1e-5)
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([1.0] * 4 + [0.8] * 3 + [0.6] * 5)


def test_rmsprop_is_its_formula() -> None:
    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer, expected, mean = rmsprop([weight], lr=0.1), weight.detach().clone(), torch.zeros(2)
    for step in range(3):
        gradient = torch.tensor([0.5, -1.0]) * (step + 1)
        weight.grad = gradient.clone()
        optimizer.step()
        mean = 0.9 * mean + 0.1 * gradient**2
        expected = expected - 0.1 * gradient / (mean.sqrt() + 1e-7)
        torch.testing.assert_close(weight.detach(), expected)


@pytest.mark.parametrize(
    "typed", ["optim=rmsprop optim.lr=2", "schedule=stepped schedule.every=0", "schedule=stepped schedule.factors=[-1]"]
)
def test_settings_that_are_none(typed: str) -> None:
    with pytest.raises(MirrorError, match="out of range"):
        check_parts(compose("train", typed.split()))


def first_batch(model: Path) -> tuple[MirrorEncoder, MirroredBatch]:
    encoder = MirrorEncoder.load(model)
    set_dropout(encoder.backbone, 0.0)
    encoder.train()
    pairs = [(text, text) for text in [*SENTENCES[:7], SENTENCES[0]]]
    return encoder, pairs_of(pairs, encoder, BatchConfig(size=8))[BatchKey(0, 0)]


@pytest.mark.parametrize("mask_duplicates", [False, True])
def test_training_step_is_info_nce_of_the_vectors(tiny_bert: Path, mask_duplicates: bool) -> None:
    encoder, batch = first_batch(tiny_bert)
    module = module_of(encoder, InfoNCE(temperature=0.3, mask_duplicates=mask_duplicates))
    vectors = encoder(batch.sides[0][0]).unflatten(0, (2, -1))
    expected = info_nce(vectors, batch.text_ids, 0.3, mask_duplicates=mask_duplicates)
    torch.testing.assert_close(loss_of(module, batch), expected)


def test_gradients_reach_every_weight_but_the_pooler(tiny_bert: Path) -> None:
    encoder, batch = first_batch(tiny_bert)
    loss_of(module_of(encoder), batch).backward()
    silent = {name for name, weight in encoder.backbone.named_parameters() if weight.grad is None}
    assert silent == {"pooler.dense.weight", "pooler.dense.bias"}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("clip", [None, 0.001])
def test_gradient_clipping(tiny_bert: Path, clip: float | None, precision: str, tmp_path: Path) -> None:
    """``trainer.gradient_clip`` bounds the norm of the gradients that the optimizer sees."""
    from mirror.config.compose import compose
    from mirror.training.run import train

    norms: list[float] = []

    def look(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        norms.append(float(torch.stack([weight.grad.norm() for weight in weights]).norm()))

    overrides = ["eval=none", "batch.size=16", "trainer=cpu", "trainer.progress=false", "optim.lr=1e-3"]
    overrides += [f"trainer.gradient_clip={'null' if clip is None else clip}", f"trainer.precision={precision}"]
    hook = register_optimizer_step_post_hook(look)
    try:
        train(compose("train", [f"model.path='{tiny_bert}'", *overrides]), tmp_path, SENTENCES[:48])
    finally:
        hook.remove()
    assert len(norms) == 3
    assert (max(norms) <= 0.001 * 1.01) is (clip is not None)


DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


def learnt(
    encoder: MirrorEncoder, batch: MirroredBatch, *, cached: bool, bf16: bool = False
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and gradients of a step: as the module takes it, or as one graph over the same parts."""
    encoder.zero_grad()
    batch = batch.to(encoder.device)
    torch.manual_seed(3)
    with torch.autocast(encoder.device.type, torch.bfloat16, enabled=bf16, cache_enabled=False):  # as Lightning's
        if cached:
            loss = loss_of(module_of(encoder, InfoNCE(temperature=0.1)), batch)
        else:
            vectors = torch.cat([encoder(part) for part in batch.sides[0]]).unflatten(0, (2, -1))
            loss = info_nce(vectors, batch.text_ids, 0.1, mask_duplicates=True)
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in encoder.named_parameters() if p.grad is not None}


def batch_of(encoder: MirrorEncoder, micro: int | None) -> MirroredBatch:
    pairs = [(text, text) for text in [*SENTENCES[:29], SENTENCES[0]]]
    return pairs_of(pairs, encoder, BatchConfig(size=30, micro=micro))[BatchKey(0, 0)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("dropping", ["dropout", "drophead"])
@pytest.mark.parametrize("packing", [True, False])
def test_gradient_caching_is_the_plain_step(
    packing: bool, dropping: str, bf16: bool, device: str, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second pass drops what the first dropped: loss and gradients are those of one graph over all parts."""
    encoder = MirrorEncoder.load(tiny_bert).to(device)
    set_dropout(encoder.backbone, 0.3 if dropping == "dropout" else 0.0)
    if dropping == "drophead":
        DropHead(0.3).attach(encoder)
    encoder.layout.packing = packing
    encoder.train()
    batch = batch_of(encoder, micro=8)
    assert [sum(len(block.texts) for block in part) for part in batch.sides[0]] == [15, 15, 15, 15]
    loss, gradients = learnt(encoder, batch, cached=False, bf16=bf16)
    drawn, _ = learnt(encoder, batch_of(encoder, micro=7), cached=False)
    assert abs(drawn - loss) > 1e-3  # other draws make another loss, so equal losses mean equal draws
    monkeypatch.setattr("mirror.losses.infonce.ENTRIES", 13 * 60)
    cached_loss, cached = learnt(encoder, batch, cached=True, bf16=bf16)
    torch.testing.assert_close(cached_loss, loss, atol=1e-5, rtol=1e-5)
    assert cached.keys() == gradients.keys()
    if bf16:  # it rounds to 0.4 %; with the same draws, the gradients in float32 are 0.9 to 1.7 % away on a CPU
        one, other = (torch.cat([grads[name].flatten() for name in gradients]) for grads in (cached, gradients))
        assert float((one - other).norm()) <= 0.01 * float(other.norm())
        return
    for name in gradients:
        torch.testing.assert_close(cached[name], gradients[name], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("packing", [True, False])
def test_parts_make_no_difference_without_dropout(packing: bool, tiny_bert: Path) -> None:
    encoder = MirrorEncoder.load(tiny_bert)
    set_dropout(encoder.backbone, 0.0)
    encoder.layout.packing = packing
    encoder.train()
    loss, gradients = learnt(encoder, batch_of(encoder, None), cached=True)
    for micro in (1, 4, 29, 30, 100):
        cached_loss, cached = learnt(encoder, batch_of(encoder, micro), cached=True)
        torch.testing.assert_close(cached_loss, loss, atol=1e-5, rtol=1e-5)
        for name in gradients:
            torch.testing.assert_close(cached[name], gradients[name], atol=1e-5, rtol=1e-4)


def test_gradient_caching_holds_one_part_at_a_time(tiny_bert: Path) -> None:
    """What autograd saves while the forward pass runs is the parts' vectors, not their activations."""
    encoder = MirrorEncoder.load(tiny_bert)
    encoder.train()

    def saved(micro: int | None) -> int:
        kept: dict[int, int] = {}  # by storage, as many tensors are views of one

        def keep(tensor: Tensor) -> Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        batch = batch_of(encoder, micro)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = loss_of(module_of(encoder), batch)
        del loss
        weights = {weight.untyped_storage().data_ptr() for weight in encoder.parameters()}
        return sum(size for place, size in kept.items() if place not in weights)

    assert saved(4) < saved(None) / 10
