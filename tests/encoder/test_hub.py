import json
import os
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from transformers import AutoModelForMaskedLM, AutoTokenizer

from mirror import MirrorEncoder, MirrorError, mirror_tune
from mirror.config.compose import compose
from mirror.encoder.hub import MODELS, source_of
from tests.conftest import ROOT, SENTENCES

MINI = MODELS / "mini"
LIMIT = 16_000_000
"""Bytes: what a clone and a wheel should bear."""


def test_a_bundled_name_is_a_folder_of_the_package() -> None:
    assert source_of("bundled:mini", "model.path") == str(MINI)
    assert source_of("roberta-base", "model.path") == "roberta-base"
    assert source_of("some/folder", "model.path") == "some/folder"


@pytest.mark.parametrize("name", ["bundled:maxi", "bundled:", "bundled:../models"])
def test_an_unknown_bundled_name(name: str) -> None:
    with pytest.raises(MirrorError, match=r"model\.path=bundled:.* not in this package, which holds bundled:mini"):
        MirrorEncoder.load(name, setting="model.path")


def test_mini_is_small_and_has_its_card() -> None:
    assert sum(file.stat().st_size for file in MINI.iterdir()) <= LIMIT
    card = (MINI / "README.md").read_text(encoding="utf-8")
    commands = [shlex.split(line)[2:] for line in card.splitlines() if line.startswith("python scripts/pretrain.py ")]
    (seeds,) = (line.strip("| ").split(" | ")[1:] for line in card.splitlines() if line.startswith("| seed |"))
    assert [str(compose("pretrain", overrides).seed) for overrides in commands] == seeds
    assert "## Limits" in card


def test_mini_loads_as_it_is_in_transformers() -> None:
    tokenizer, model = AutoTokenizer.from_pretrained(MINI), AutoModelForMaskedLM.from_pretrained(MINI).float().eval()
    text = f"she was born in london, the capital of {tokenizer.mask_token}."
    inputs = tokenizer(text, return_tensors="pt")
    place = inputs["input_ids"][0].tolist().index(tokenizer.mask_token_id)
    best = tokenizer.convert_ids_to_tokens(model(**inputs).logits[0, place].topk(10).indices.tolist())
    assert "england" in best


def test_model_mini_is_the_bundled_one() -> None:
    assert compose("train", ["model=mini"]).model.path == "bundled:mini"
    assert compose("train", ["experiment=demo"]).model.path == "bundled:mini"


def test_mirror_tune_takes_a_file_of_the_group() -> None:
    encoder = mirror_tune("mini", SENTENCES[:32], ["trainer.max_steps=1", "batch.size=16", "trainer.progress=false"])
    assert encoder.pooling.name == "first_last"
    assert encoder.encode(["a sentence"]).shape == (1, encoder.dimension)


@pytest.mark.slow
def test_the_wheel_carries_configuration_and_model(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run([*build, f"--wheel-dir={tmp_path}", str(ROOT)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"mirror/conf/train.yaml", "mirror/models/mini/model.safetensors", "mirror/models/mini/README.md"} <= names


@pytest.mark.slow
def test_the_demo(tmp_path: Path) -> None:
    """Offline, from another folder, with nothing but the package: tuning helps to find a function's description."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    for script, *words in (
        ["train", "experiment=demo", "trainer.progress=false"],
        ["search", "how do I sort a dictionary by value"],
    ):
        line = [sys.executable, str(ROOT / "scripts" / f"{script}.py"), *words]
        done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "outputs" / "train").iterdir()
    content = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    assert content["data"]["kept"] == 10_000
    found = {column: sets["pydocs"] for column, sets in content["scores"].items()}
    for figure in ("mrr", "recall@1", "recall@10"):
        assert found["tuned"][figure] > max(found[column][figure] for column in found if column != "tuned")
    assert (run / "cosines.png").exists()
