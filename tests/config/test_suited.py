"""Without ``model=``, rate, pooling and temperature are those that suit the model at ``model.path``."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from mirror.config import TrainConfig
from mirror.config.compose import compose, run_id
from mirror.config.suited import KIN, SHAPES, TUNING, by_config, known, suited
from mirror.errors import MirrorError


def folder(place: Path, layers: Any, width: Any, model_type: str = "bert", **tuning: Any) -> Path:
    """A model that has nothing but what is asked here."""
    place.mkdir()
    config = {"model_type": model_type, "num_hidden_layers": layers, "hidden_size": width}
    (place / "config.json").write_text(json.dumps(config))
    if tuning:
        (place / TUNING).write_text(json.dumps(tuning))
    return place


def chosen(*overrides: str) -> tuple[float, str, float]:
    """Rate, pooling and temperature of a command line."""
    config = compose("train", overrides)
    assert isinstance(config, TrainConfig)
    return config.optim["lr"], config.model.pooling, config.loss["temperature"]


def test_known_shapes_are_those_of_the_names() -> None:
    named = {name: re.search(r"L-?(\d+)[-_]H-?(\d+)", path) for name, (path, _) in known().items()}
    said = {name: (int(found[1]), int(found[2])) for name, found in named.items() if found}
    assert len(said) == 5
    assert {name: SHAPES[name] for name in said} == said
    mini = json.loads((Path(suited.__code__.co_filename).parents[1] / "models" / "mini" / "config.json").read_text())
    assert SHAPES["mini"] == (mini["num_hidden_layers"], mini["hidden_size"])
    assert {*SHAPES, *KIN.values()} <= known().keys()


@pytest.mark.parametrize(
    ("layers", "width", "source", "rate", "pooling"),
    [
        (4, 256, "bert_mini", 5e-4, "first_last"),
        (1, 256, "mini", 5e-4, "first_last"),
        (4, 320, "bert_mini", 5e-4, "first_last"),
        (12, 256, "minilm", 1e-4, "cls"),
        (6, 768, "distilbert", 2e-5, "cls"),
        (24, 1280, "bert_large", 2e-5, "cls"),
        (1, 64, "1 layers of 64", 5e-4, "first_last"),
        (2, 1024, "2 layers of 1024", 9e-5, "cls"),
        (48, 2048, "48 layers of 2048", 2e-5, "cls"),
    ],
)
def test_nearest_known_model_or_a_rule(
    layers: int, width: int, source: str, rate: float, pooling: str, tmp_path: Path
) -> None:
    found = suited(str(folder(tmp_path / "model", layers, width)))
    assert (found.source, found.learning_rate, found.pooling) == (source, rate, pooling)


def test_drophead_is_the_architectures() -> None:
    shape = {"n_layers": 4, "dim": 256}
    assert [by_config({"model_type": kind, **shape}).drophead for kind in ("bert", "roberta")] == [0.2, 0.05]


@pytest.mark.parametrize(("layers", "width"), [("4", 256), (None, 256), (0, 256), (True, 256), (4, [256])])
def test_shape_that_is_none(layers: Any, width: Any, tmp_path: Path) -> None:
    assert suited(str(folder(tmp_path / "model", layers, width))) == known()["bert"][1]


def test_every_known_model_has_its_own() -> None:
    for name, (path, found) in known().items():
        assert suited(path) is found
        assert compose("train", [f"model.path={path}"]).model == compose("train", [f"model={name}"]).model
    assert suited("some/name").source == "bert"


def test_what_is_typed_wins_then_the_task_and_the_experiment(tmp_path: Path) -> None:
    path = f"model.path='{folder(tmp_path / 'model', 4, 256)}'"
    assert chosen(path) == (5e-4, "first_last", 0.07)
    assert chosen(path, "optim.lr=1e-3") == (1e-3, "first_last", 0.07)
    assert chosen(path, "model.pooling=cls", "loss.temperature=0.04") == (5e-4, "cls", 0.04)
    assert chosen(path, "model=bert") == chosen("model=bert", path) == (2e-5, "cls", 0.04)
    assert chosen(path, "task=word") == (5e-4, "first_last", 0.2)
    assert chosen(path, "experiment=crops") == (5e-4, "mean", 0.07)
    assert chosen(path, "experiment=simcse") == (3e-5, *chosen("experiment=simcse")[1:])
    assert chosen(path, "experiment=official") == (5e-4, *chosen("experiment=official")[1:])
    assert chosen(path, "model/pooling=attention")[0] == 5e-4
    assert chosen() == chosen("model=bert") == (2e-5, "cls", 0.04)


def test_models_own_file_speaks_first(tmp_path: Path) -> None:
    own = folder(tmp_path / "a b,c", 4, 256, learning_rate=3e-4, pooling="mean", note="of a later version")
    assert suited(str(own)).source == f"its {TUNING}"
    assert chosen(f"model.path='{own}'") == (3e-4, "mean", 0.07)  # what it leaves out is the nearest model's


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "it holds none of learning_rate"),
        ("[1]", "it holds none of"),
        ('{"learning_rate": "fast"}', "learning_rate is no number"),
        ('{"learning_rate": -1}', "learning_rate=-1"),
        ('{"pooling": "best"}', "model.pooling=best is no pooling"),
        ('{"pooling": {"_target_": "os.system"}}', "pooling is no name"),
        ('{"temperature": null}', "temperature is no number"),
    ],
)
def test_damaged_file_is_named(text: str, reason: str, tmp_path: Path) -> None:
    own = folder(tmp_path / "model", 4, 256)
    (own / TUNING).write_text(text)
    with pytest.raises(MirrorError) as refused:
        compose("train", [f"model.path='{own}'"])
    assert str(refused.value).startswith(f"{own / TUNING} is damaged (")
    assert reason in str(refused.value)
    assert str(refused.value).endswith("mend it, or delete it.")
    assert chosen(f"model.path='{own}'", "model=bert_mini") == (5e-4, "first_last", 0.07)  # it is not even read


def test_each_run_of_a_sweep_has_its_own(tmp_path: Path) -> None:
    """A run is named after the settings that it gets."""
    import hydra

    from mirror.config.compose import CONF, register_schemas

    register_schemas()
    small, base = folder(tmp_path / "small", 4, 256), folder(tmp_path / "base", 12, 768)
    names = {}
    for path in (small, base):
        for typed in ([], ["optim.lr=5e-4", "model.pooling=first_last", "loss.temperature=0.07"]):
            with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
                config = hydra.compose("train", overrides=[f"model.path='{path}'", *typed])
            names[path.name, bool(typed)] = run_id(config)
    assert names["small", False] == names["small", True]
    assert len({*names.values()}) == 3


@pytest.mark.parametrize("name", ["stsb", "sts", "words", "demo"])
def test_mirror_data_is_the_folder_of_every_eval(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIRROR_DATA", "x")
    assert compose("train", [f"eval={name}"]).eval.data_dir == "x"
    assert compose("evaluate", ["encoder=x", f"eval={name}"]).eval.data_dir == "x"
    assert compose("train", [f"eval={name}", "eval.data_dir=y"]).eval.data_dir == "y"
    monkeypatch.setenv("MIRROR_DATA", "")
    assert compose("train", [f"eval={name}"]).eval.data_dir is None
