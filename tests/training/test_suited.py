"""What a run says of the settings that follow its model, and what its encoder carries."""

import json
import logging
import shutil
from pathlib import Path

import pytest

from mirror import MirrorEncoder, mirror_tune
from mirror.config.compose import compose, resumed
from mirror.config.suited import TUNING
from mirror.runs.record import RunRecord
from mirror.training.run import train
from mirror.training.suited import note_suited
from tests.commands import Command
from tests.conftest import SENTENCES
from tests.helpers import THREE_STEPS, metrics

SMALL = [setting for setting in THREE_STEPS if setting not in ("model=bert", "optim.lr=1e-3")]


def test_a_run_says_whose_settings_it_takes(command: Command, tiny_bert: Path, tmp_path: Path) -> None:
    """And its encoder hands on what it was tuned with."""
    texts = "data.path=texts.txt"
    result = command("train", f"model.path={tiny_bert}", *SMALL, texts, "optim.lr=1e-3", "hydra.run.dir=run")
    assert result.code == 0, result.err
    said = "as for 2 layers of 32: model.pooling=first_last, loss.temperature=0.07; set them to choose otherwise"
    assert said in result.err.splitlines()
    taken = {"source": "2 layers of 32", "model.pooling": "first_last", "loss.temperature": 0.07}
    assert metrics(tmp_path / "run")["suited"] == taken
    carried = json.loads((tmp_path / "run" / "encoder" / TUNING).read_text())
    assert carried == {"learning_rate": 1e-3, "pooling": "first_last", "temperature": 0.07, "drophead": 0.2}
    result = command("train", "model.path=run/encoder", *SMALL, texts, "hydra.run.dir=again")
    assert f"as for its {TUNING}: optim.lr=0.001, model.pooling=first_last, loss.temperature=0.07;" in result.err
    (tmp_path / "run" / "encoder" / TUNING).write_text("{}")
    result = command("train", "model.path=run/encoder", *SMALL, texts, "hydra.run.dir=third")
    assert result.code == 1
    assert result.err.splitlines()[-1].startswith(f"error: run/encoder/{TUNING} is damaged (it holds none of")


def test_words_hand_on_no_temperature(tiny_bert: Path, tmp_path: Path) -> None:
    """0.2 suits words, not the sentences that the encoder may be tuned on next."""
    mirror_tune(tiny_bert, SENTENCES[:32], ["task=word", "trainer.max_steps=1"], output=tmp_path / "run")
    assert json.loads((tmp_path / "run" / "encoder" / TUNING).read_text()).keys() == {
        "learning_rate",
        "pooling",
        "drophead",
    }


def test_python_call_takes_the_same(tiny_bert: Path, tmp_path: Path) -> None:
    (own := tmp_path / "model").mkdir()
    shutil.copytree(tiny_bert, own, dirs_exist_ok=True)
    (own / TUNING).write_text('{"pooling": "last_two"}')
    encoder = mirror_tune(own, SENTENCES[:16], {"trainer.max_steps": 1})
    assert isinstance(encoder, MirrorEncoder)
    assert encoder.pooling.name == "last_two"


def test_sweep_over_models_and_a_resumed_run(command: Command, tiny_bert: Path, tmp_path: Path) -> None:
    """Each run takes what suits its own model, and goes on with what it began with."""
    shutil.copytree(tiny_bert, tmp_path / "own")
    (tmp_path / "own" / TUNING).write_text('{"pooling": "mean"}')
    both = f"model.path={tiny_bert},own"
    result = command("train", "-m", both, *SMALL, "data.path=texts.txt", "hydra.sweep.dir=sweep")
    assert result.code == 0, result.err
    runs = [path.parent for path in (tmp_path / "sweep").glob("*/metrics.json")]
    assert sorted(metrics(run)["config"]["model"]["pooling"] for run in runs) == ["first_last", "mean"]
    (run,) = (run for run in runs if metrics(run)["config"]["model"]["pooling"] == "mean")
    (tmp_path / "own" / TUNING).write_text('{"pooling": "cls"}')
    assert resumed("train", run, []).model.pooling == "mean"


def test_size_of_a_model_on_the_hub(caplog: pytest.LogCaptureFixture) -> None:
    """It is known only when the model is loaded; then a small one is told what would suit it."""
    caplog.set_level(logging.INFO, "mirror")
    config = compose("train", ["model.path=some/name", "loss.temperature=0.05"])
    with RunRecord(None, {}) as record:
        note_suited(config, {"num_hidden_layers": 2, "hidden_size": 128}, record)
        assert [entry.message for entry in caplog.records] == [
            "as for bert: optim.lr=2e-05, model.pooling=cls; set them to choose otherwise",
            "some/name has another size than BERT: add optim.lr=0.0005 model.pooling=first_last (as for bert_tiny).",
        ]
        caplog.clear()
        note_suited(config, {"model_type": "roberta", "num_hidden_layers": 12, "hidden_size": 768}, record)
        assert len(caplog.records) == 1
        caplog.clear()
        note_suited(compose("train", ["model=mini"]), {"num_hidden_layers": 2, "hidden_size": 256}, record)
        assert not caplog.records


@pytest.mark.parametrize(("pooling", "raw"), [("first_last", True), ("mean_padded", False)])
def test_untouched_model_is_measured_pooled_alike(
    pooling: str, raw: bool, tiny_bert: Path, eval_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder of the sets comes from the variable."""
    monkeypatch.setenv("MIRROR_DATA", str(eval_dir))
    settings = [setting for setting in SMALL if setting != "eval=none"]
    padded = ["batch.pad_to_max=true"] if pooling == "mean_padded" else []
    config = compose(
        "train", [f"model.path='{tiny_bert}'", *settings, *padded, f"model.pooling={pooling}", "eval=stsb"]
    )
    (tmp_path / "run").mkdir()
    train(config, tmp_path / "run", SENTENCES)
    columns = {"raw cls", "raw mean", "tuned"} | ({f"raw {pooling}"} if raw else set())
    assert metrics(tmp_path / "run")["scores"].keys() == columns


@pytest.mark.parametrize(
    ("typed", "warned"),
    [
        (["optim.lr=3e-5"], True),
        (["optim.lr=1e-4"], False),
        (["optim.lr=3e-5", "adapt=bitfit"], False),
        (["optim.lr=3e-5", "optim=adafactor"], False),
        (["experiment=simcse"], True),
    ],
)
def test_a_rate_of_a_larger_model_is_warned_of(
    typed: list[str], warned: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = compose("train", ["model=mini", "data.path=texts.txt", "eval=none", *typed])
    caplog.set_level(logging.WARNING)
    note_suited(config, {}, RunRecord(tmp_path, {}))
    assert ("times lower than suits this model" in caplog.text) == warned
    assert ("set optim.lr=0.0005 (as for mini)" in caplog.text) == warned
