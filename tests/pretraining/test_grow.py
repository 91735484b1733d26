import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from mirror import MirrorError
from mirror.config import ArchitectureConfig
from mirror.config.compose import compose
from mirror.pretraining.grow import grown
from mirror.pretraining.run import pretrain
from tests.architectures import build
from tests.conftest import SENTENCES


def masked_model(folder: Path) -> Any:
    return AutoModelForMaskedLM.from_pretrained(folder, dtype=torch.float32).eval()


def sizes(small: Any, *, width: int = 1, depth: int = 1, intermediate: int | None = None) -> ArchitectureConfig:
    config = small.config
    return ArchitectureConfig(
        grow_from="x",
        layers=config.num_hidden_layers * depth,
        hidden=config.hidden_size * width,
        heads=config.num_attention_heads * width,
        intermediate=intermediate or config.intermediate_size * width,
    )


def scores(model: Any, folder: Path) -> torch.Tensor:
    inputs = AutoTokenizer.from_pretrained(folder)(SENTENCES[:8], padding=True, return_tensors="pt")
    with torch.no_grad():
        found: torch.Tensor = model(**inputs).logits[inputs["attention_mask"].bool()]
    return found


@pytest.mark.parametrize("width", [1, 2, 3])
@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_a_wider_model_computes_what_the_narrower_one_did(name: str, width: int, tmp_path: Path) -> None:
    folder = build(name, tmp_path)
    small = masked_model(folder)
    with torch.no_grad():
        for weights in small.parameters():  # biases are 0 and norms 1 in a new model, which hides much
            weights.add_(0.1 * torch.randn_like(weights))
    wanted = sizes(small, width=width, intermediate=small.config.intermediate_size * width + 5)
    large = grown(small, wanted).eval()
    assert large.config.hidden_size == width * small.config.hidden_size
    torch.testing.assert_close(scores(large, folder), scores(small, folder), atol=2e-4, rtol=1e-4)


def test_copies_of_a_unit_learn_different_things(tmp_path: Path) -> None:
    folder = build("bert", tmp_path)
    small = masked_model(folder)
    large = grown(small, sizes(small, width=2)).eval()
    inputs = AutoTokenizer.from_pretrained(folder)(SENTENCES[:8], padding=True, return_tensors="pt")
    large(**inputs).logits.square().mean().backward()
    width = small.config.hidden_size
    for layer in large.bert.encoder.layer[:-1]:
        gradient = layer.attention.self.value.weight.grad
        assert float((gradient[:width] - gradient[width:]).abs().max()) > 1e-3 * float(gradient.abs().max())


def test_layers_are_stacked(tmp_path: Path) -> None:
    small = masked_model(build("bert", tmp_path))
    large = grown(small, sizes(small, depth=2))
    count = small.config.num_hidden_layers
    assert large.config.num_hidden_layers == len(large.bert.encoder.layer) == 2 * count
    for i, layer in enumerate(large.bert.encoder.layer):
        state = small.bert.encoder.layer[i % count].state_dict()
        assert all(torch.equal(weights, state[key]) for key, weights in layer.state_dict().items())
    assert torch.equal(large.cls.predictions.bias, small.cls.predictions.bias)


def test_a_run_grows_a_model(tiny_bert: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A step so small that it changes nothing leaves what the small model computes."""
    (tmp_path / "texts.txt").write_text("\n".join(SENTENCES), encoding="utf-8")
    (tmp_path / "run").mkdir()
    options = [
        f"data.path={tmp_path}/texts.txt", f"model.grow_from={tiny_bert}", "model.layers=2", "model.hidden=64",
        "model.heads=8", "model.intermediate=128", "batch.tokens=300", "batch.max_tokens=32", "held_out.texts=0",
        "trainer=cpu", "trainer.progress=false", "trainer.max_steps=1", "optim.lr=1e-12",
    ]  # fmt: skip
    with caplog.at_level(logging.INFO):
        pretrain(compose("pretrain", options), tmp_path / "run")
    assert f"that of model.grow_from={tiny_bert}" in caplog.text
    folder = tmp_path / "run" / "model"
    torch.testing.assert_close(
        scores(masked_model(folder), folder), scores(masked_model(tiny_bert), tiny_bert), atol=1e-4, rtol=1e-4
    )
    assert f"grown from {tiny_bert}" in (folder / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (
            {"hidden": 48, "heads": 4},
            r"model\.hidden=48 is no multiple of the 32 of model\.grow_from=x: choose 64, or 32",
        ),
        ({"layers": 3}, r"model\.layers=3 is no multiple of the 2 "),
        ({"hidden": 64, "heads": 4}, r"model\.heads=4 does not go with model\.hidden=64 .* set model\.heads=8"),
        ({"intermediate": 32}, r"model\.intermediate=32 is less than the 64 of"),
    ],
)
def test_sizes_that_it_does_not_grow_into(changed: dict[str, Any], reason: str, tiny_bert: Path) -> None:
    plain: dict[str, Any] = {"layers": 2, "hidden": 32, "heads": 4, "intermediate": 64}
    with pytest.raises(MirrorError, match=reason):
        grown(masked_model(tiny_bert), ArchitectureConfig(grow_from="x", **(plain | changed)))


def test_another_kind_of_model(tmp_path: Path) -> None:
    small = masked_model(build("distilbert", tmp_path))
    with pytest.raises(MirrorError, match=r"model\.grow_from=x is a distilbert: give a BERT or RoBERTa"):
        grown(small, ArchitectureConfig(grow_from="x"))


def test_continued_and_grown_exclude_each_other() -> None:
    with pytest.raises(MirrorError, match=r"model\.path=a is continued as it is, model\.grow_from=b begins a larger"):
        ArchitectureConfig(path="a", grow_from="b")
