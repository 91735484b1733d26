"""``mirror_tune`` says what is wrong in the names of its own arguments, and what it returns knows its run."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mirror import MirrorEncoder, MirrorError, mirror_tune
from tests.conftest import SENTENCES

SHORT = {"trainer.progress": False, "trainer.max_steps": 2, "batch.size": 8}


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        ("path/to/texts.txt", r"texts='path/to/texts.txt' is no list of texts: give the texts themselves"),
        (Path("texts.txt"), "is no list of texts"),
        (None, "texts=None is no list of texts"),
        (3, "texts=3 is no list of texts"),
        (["a text", None], r"texts\[1\] is neither"),
        (["a text", "half \ud83d"], r"texts\[1\] holds half a character"),
        (["one"], "^texts given to mirror_tune leaves too few"),
    ],
)
def test_texts_that_are_none(tiny_bert: Path, tmp_path: Path, texts: Any, reason: str) -> None:
    with pytest.raises(MirrorError, match=reason):
        mirror_tune(tiny_bert, texts, SHORT)


@pytest.mark.parametrize("overrides", [["data.path=x.txt"], {"model.path": "x"}, ["model=mini"], ["data=words"]])
def test_arguments_are_not_overrides(tiny_bert: Path, overrides: Any) -> None:
    with pytest.raises(MirrorError, match=r"among the overrides: give it as (texts|model) of mirror_tune"):
        mirror_tune(str(tiny_bert), SENTENCES[:8], overrides)


@pytest.mark.parametrize("model", ["no/such", None, 5])
def test_models_that_are_none(model: Any) -> None:
    with pytest.raises(
        MirrorError, match=f"^model={model} is no (model: give a hub name|local folder, .*as in model=)"
    ):
        mirror_tune(model, SENTENCES[:8], SHORT)


def test_output_that_cannot_be_made(tiny_bert: Path) -> None:
    with pytest.raises(MirrorError, match="output=/proc/x cannot be made"):
        mirror_tune(str(tiny_bert), SENTENCES[:8], SHORT, output="/proc/x")


def test_overrides_as_a_dictionary_and_texts_of_any_kind(tiny_bert: Path, tmp_path: Path) -> None:
    settings = {**SHORT, "task": "word", "loss.temperature": 0.1, "data.size": None, "logger.tags": ["a b", "c"]}
    typed = ["trainer.progress=false", "trainer.max_steps=2", "batch.size=8", "task=word", "loss.temperature=0.1"]
    one = mirror_tune(tiny_bert, iter(SENTENCES[:16]), settings)
    other = mirror_tune(str(tiny_bert), np.array(SENTENCES[:16]), typed)
    np.testing.assert_array_equal(one.encode(SENTENCES), other.encode(SENTENCES))


def test_nothing_is_left_behind_without_output(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    learnt = {**SHORT, "loss": "distil", "teacher": str(tiny_bert)}
    mirror_tune(tiny_bert, SENTENCES[:16], learnt)
    assert not [*tmp_path.iterdir()]
    mirror_tune(tiny_bert, SENTENCES[:16], {**learnt, "loss.keep": "kept"})
    assert [*tmp_path.iterdir()] == [tmp_path / "kept"]


def test_the_encoder_knows_its_run(tiny_bert: Path, eval_dir: Path) -> None:
    measured = {"eval": "stsb", "eval.data_dir": str(eval_dir)}
    encoder = mirror_tune(tiny_bert, SENTENCES, {**SHORT, **measured})
    assert [step for step, _ in encoder.loss_curve] == [0, 1]
    assert {"tuned", "raw mean"} <= encoder.scores.keys()
    assert "stsb-dev" in encoder.scores["tuned"]
    assert len(repr(encoder)) < 300
    assert "\n" not in repr(encoder)


def test_a_folder_with_nothing_but_a_failure_is_used_again(tiny_bert: Path, eval_dir: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    with pytest.raises(MirrorError, match=r"lacks sts/stsb-dev\.tsv"):
        mirror_tune(tiny_bert, SENTENCES[:16], {**SHORT, "eval": "stsb", "eval.data_dir": str(tmp_path)}, output)
    assert [path.name for path in output.iterdir()] == ["metrics.json"]
    mirror_tune(tiny_bert, SENTENCES[:16], {**SHORT, "eval": "stsb", "eval.data_dir": str(eval_dir)}, output)
    assert (output / "encoder").is_dir()
    with pytest.raises(MirrorError, match="exists already"):
        mirror_tune(tiny_bert, SENTENCES[:16], SHORT, output)


def test_a_table_is_no_list_of_texts(tiny_bert: Path) -> None:
    table = pd.DataFrame(dict.fromkeys(("left", "right", "score"), SENTENCES[:16]))
    with pytest.raises(MirrorError, match=r"texts is a table, .* give one column, as in table\['sentence'\]"):
        mirror_tune(tiny_bert, table, SHORT)
    encoder = MirrorEncoder.load(tiny_bert)
    with pytest.raises(MirrorError, match="texts is a table"):
        encoder.encode(table)
    assert encoder.encode(table["left"]).shape == (16, encoder.dimension)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"overrides": "batch.size=4"}, "^overrides='batch.size=4' is no list"),
        ({"overrides": 5}, "^overrides=5 is no list"),
        ({"overrides": [5]}, "^overrides holds 5, which is no setting"),
        ({"overrides": {"batch": {"size": 4}}}, r"^overrides\['batch'\] is a dictionary: write each setting"),
        ({"output": 3}, "^output=3 is no folder"),
    ],
)
def test_arguments_of_another_kind(tiny_bert: Path, arguments: dict[str, Any], reason: str) -> None:
    with pytest.raises(MirrorError, match=reason):
        mirror_tune(tiny_bert, SENTENCES[:16], **arguments)
