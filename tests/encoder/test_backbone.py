"""Model folders that must not load: code that would run, weights that would be made up, pickles that hold more."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from mirror.encoder.backbone import load_backbone
from mirror.errors import MirrorError
from tests.architectures import build

ODD_CODE = """
from pathlib import Path
from transformers import BertConfig, BertModel
Path({marker!r}).touch()
class OddConfig(BertConfig):
    model_type = "odd"
class OddModel(BertModel):
    config_class = OddConfig
"""
ODD_MAP = {"AutoConfig": "odd.OddConfig", "AutoModel": "odd.OddModel"}
WEIGHTS = "model.safetensors"
PICKLED = "pytorch_model.bin"


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("bert", tmp_path_factory.mktemp("bert") / "bert")


@pytest.fixture
def folder(bert: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(bert, tmp_path / "model"))


def edit(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS, metadata={"format": "pt"})


def refusal(folder: Path) -> str:
    """The one sentence, which names the setting and gives none of the libraries' advice."""
    with pytest.raises(MirrorError) as caught:
        load_backbone(str(folder), "model.path")
    text = str(caught.value)
    assert text.startswith(f"model.path={folder} ")
    assert "\n" not in text
    for advice in ("weights_only", "trust_remote_code", "ignore_mismatched_sizes"):
        assert advice not in text
    return text


# --- code in the folder


@pytest.fixture
def odd(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the folder's code leaves where it runs; whoever is asked says yes."""
    marker = tmp_path / "it ran"
    (folder / "odd.py").write_text(ODD_CODE.format(marker=str(marker)), encoding="utf-8")
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    return marker


def test_code_of_a_model_is_not_run(folder: Path, odd: Path) -> None:
    edit(folder / "config.json", model_type="odd", auto_map=ODD_MAP)
    assert "can only be read by code of its own, which is never run: give one that" in refusal(folder)
    assert not odd.exists()


def test_code_beside_a_model_that_transformers_knows(
    folder: Path, odd: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is read without the code, which is told; a copy does not ask for code that it does not have."""
    edit(folder / "config.json", auto_map=ODD_MAP)
    _, backbone, _ = load_backbone(str(folder), "model.path")
    assert f"model.path={folder} brings code of its own, which is not run: it is a plain BertModel here" in caplog.text
    assert not odd.exists()
    backbone.save_pretrained(tmp_path / "copy")
    assert "auto_map" not in json.loads((tmp_path / "copy" / "config.json").read_text(encoding="utf-8"))


# --- weights that are not there


def test_fewer_layers_than_the_configuration_says(folder: Path) -> None:
    edit(folder / "config.json", num_hidden_layers=4)
    text = refusal(folder)
    assert "lacks weights that its config.json asks for (encoder.layer.3.attention.output.LayerNorm.bias, " in text
    assert "and 13 more): give the whole model" in text


@pytest.mark.parametrize("layers", [0, -1, 10_000_000])
def test_layers_that_no_model_has(folder: Path, layers: int) -> None:
    edit(folder / "config.json", num_hidden_layers=layers)
    assert f"num_hidden_layers {layers}, and it should be a number from 1 to 1000" in refusal(folder)


def test_quantised_weights(folder: Path) -> None:
    edit(folder / "config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True})
    assert "is quantised (quantization_config in its config.json)" in refusal(folder)


def test_weights_of_other_names(folder: Path) -> None:
    rewrite(folder, lambda weights: {f"net.{name}": tensor for name, tensor in weights.items()})
    assert "lacks weights that its config.json asks for (embeddings.LayerNorm.bias, " in refusal(folder)


def test_one_weight_is_missing(folder: Path) -> None:
    gone = "encoder.layer.1.output.dense.weight"
    rewrite(folder, lambda weights: {name: tensor for name, tensor in weights.items() if not name.endswith(gone)})
    assert f"asks for ({gone}): give" in refusal(folder)


def test_the_pooler_may_be_missing(folder: Path) -> None:
    """The checkpoints of masked language models have none, and nothing reads it."""
    assert not any("pooler" in name for name in load_file(folder / WEIGHTS))
    load_backbone(str(folder), "model.path")


def test_weights_of_another_shape(folder: Path) -> None:
    words = load_file(folder / WEIGHTS)["bert.embeddings.word_embeddings.weight"].shape[0]
    edit(folder / "config.json", vocab_size=words + 5)
    assert f"(embeddings.word_embeddings.weight is {words} x 32 and not {words + 5} x 32): give" in refusal(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(folder: Path, value: float) -> None:
    spoilt = "encoder.layer.1.output.dense.weight"

    def spoil(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        weights[f"bert.{spoilt}"][3, 4] = value
        return weights

    rewrite(folder, spoil)
    assert f"has weights that are infinite or not a number ({spoilt}): give" in refusal(folder)


@pytest.mark.parametrize("alone", [True, False])
def test_an_adapter(folder: Path, alone: bool) -> None:
    (folder / "adapter_config.json").write_text("{}", encoding="utf-8")
    if alone:
        (folder / "config.json").unlink()
        (folder / WEIGHTS).unlink()
    assert "(adapter_config.json), which would be ignored: merge it into the model first" in refusal(folder)


# --- pickled weights


class Command:
    """Runs where it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (self.command,)


def pickled(folder: Path, content: Any) -> None:
    (folder / WEIGHTS).unlink()
    torch.save(content, folder / PICKLED)


def test_pickled_weights_load(folder: Path) -> None:
    pickled(folder, load_file(folder / WEIGHTS))
    load_backbone(str(folder), "model.path")


def test_a_pickle_with_a_command(folder: Path, tmp_path: Path) -> None:
    pickled(folder, {"weights": Command(f"touch '{tmp_path / 'it ran'}'")})
    assert "that are damaged or hold more than weights, and are not loaded: give" in refusal(folder)
    assert not (tmp_path / "it ran").exists()


@pytest.mark.parametrize("kind", ["a whole model", "a list", "a cut file", "no torch file", "a plain pickle", "empty"])
def test_pickles_that_are_no_weights(folder: Path, kind: str) -> None:
    pickled(folder, AutoModel.from_pretrained(folder) if kind == "a whole model" else [1, 2])
    file = folder / PICKLED
    if kind == "a cut file":
        file.write_bytes(file.read_bytes()[:300])
    elif kind == "no torch file":
        file.write_bytes(b"hello world")
    elif kind == "a plain pickle":
        file.write_bytes(pickle.dumps({"weights": Command("false")}, protocol=2))
    elif kind == "empty":
        file.write_bytes(b"")
    assert "has pickled weights (pytorch_model.bin) that are damaged" in refusal(folder)


def test_fewer_layers_than_weights(folder: Path) -> None:
    """Cut without a word, the model would be another one; heads that nothing reads are no layers."""
    rewrite(folder, lambda weights: {**weights, "cls.extra.1.weight": torch.zeros(2)})
    load_backbone(str(folder), "model.path")
    edit(folder / "config.json", num_hidden_layers=1)
    text = refusal(folder)
    assert "more layers than its config.json says" in text
    assert "encoder.layer.1.attention" in text


# --- files that are damaged


@pytest.mark.parametrize(
    ("file", "change", "reason"),
    [
        ("config.json", {"hidden_size": "big"}, "its config.json is damaged (hidden_size 'big'): give the one that"),
        ("config.json", {"hidden_act": "nope"}, "its config.json is damaged (hidden_act 'nope'): give the one that"),
        ("config.json", {"num_attention_heads": 0}, "num_attention_heads 0, and it should be a number from 1 to"),
        ("config.json", {"vocab_size": -4}, "vocab_size -4, and it should be a number from 1 to"),
        ("config.json", {"model_type": "nope"}, "model_type 'nope', which this version of transformers does not know"),
        ("config.json", b"[]", "its config.json is damaged (no JSON object): save or download it again"),
        ("tokenizer.json", b"{", "its tokenizer.json is damaged (no JSON object): save or download it again"),
        ("tokenizer.json", None, "comes without a tokenizer: add its tokenizer.json"),
        (
            "tokenizer_config.json",
            {"cls_token": None},
            "a tokenizer without a cls_token: name it in its",
        ),
        ("tokenizer.json", {"normalizer": {"type": "nope"}}, "or its tokenizer's files are damaged, or for another"),
        (
            "tokenizer_config.json",
            {"cls_token": 77},
            "its tokenizer_config.json is damaged (cls_token 77): give the one",
        ),
        (WEIGHTS, b"short", "its model.safetensors is damaged or cut off: save or download it again"),
        (WEIGHTS, None, "it has no weights: add its model.safetensors"),
    ],
)
def test_a_damaged_file_is_named(folder: Path, file: str, change: Any, reason: str) -> None:
    """In mirror's words, not in those of the libraries."""
    if change is None:
        (folder / file).unlink()
    elif isinstance(change, bytes):
        (folder / file).write_bytes(change)
    else:
        edit(folder / file, **change)
    assert reason in refusal(folder)
