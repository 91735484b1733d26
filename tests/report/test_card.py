"""The model card: front matter that the hub reads, and the figures of the run."""

from datetime import UTC, datetime
from typing import Any

import pytest
from omegaconf import OmegaConf

from mirror.config import TrainConfig
from mirror.config.compose import compose
from mirror.data.texts import TextTable
from mirror.evaluation.sets import Score
from mirror.report.card import model_card as make_card

TABLE = TextTable([("a", "a"), ("b", "b")], "texts.txt", available=12_345, read=6, empty=1, duplicate=3)


def model_card(config: TrainConfig, table: TextTable, before: Any, after: Any, steps: int) -> str:
    return make_card(config, table, before, after, steps, "what the views are", "what the loss is")


def settings(*overrides: str) -> TrainConfig:
    config: TrainConfig = compose("train", ["model.path=some/model", "eval=none", *overrides])
    return config


def score(name: str, value: float) -> Score:
    return Score(name, 10, {"all": value})


def front_matter(card: str) -> Any:
    opening, matter, rest = card.split("---\n", 2)
    assert opening == ""
    assert rest.lstrip().startswith("# ")
    return OmegaConf.to_container(OmegaConf.create(matter))


def rows(card: str) -> dict[str, list[str]]:
    """The cells of every table by their first one."""
    lines = [line.strip("|").split("|") for line in card.splitlines() if line.startswith("|")]
    return {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in lines}


def test_front_matter() -> None:
    matter = front_matter(model_card(settings(), TABLE, {}, {}, 3))
    assert matter["base_model"] == "some/model"
    assert matter["library_name"] == "sentence-transformers"
    assert matter["pipeline_tag"] == "sentence-similarity"
    assert "mirror-bert" in matter["tags"]


def test_front_matter_has_the_scores_and_the_data_set() -> None:
    after = {"stsb-test": score("stsb-test", 63.76), "pydocs": Score("pydocs", 10, {"mrr": 32.6}, "mrr")}
    (model,) = front_matter(model_card(settings(), TABLE, {}, after, 3))["model-index"]
    found = {
        result["dataset"]["name"]: (result["metrics"][0]["type"], result["metrics"][0]["value"])
        for result in model["results"]
    }
    assert found == {"stsb-test": ("spearman_cosine", 0.6376), "pydocs": ("mrr", 0.326)}
    on_hub = front_matter(model_card(settings("data=wikipedia"), TABLE, {}, {}, 3))
    assert on_hub["datasets"] == ["sentence-transformers/wikipedia-en-sentences"]
    assert "model-index" not in on_hub
    assert "datasets" not in front_matter(model_card(settings("data=pydocs"), TABLE, {}, {}, 3))


@pytest.mark.parametrize("path", ["/a folder: with a colon/# and a hash", "it's 'quoted'", "C:\\models\\[tiny]"])
def test_front_matter_holds_any_path(path: str) -> None:
    config = settings()
    config.model.path = path
    assert front_matter(model_card(config, TABLE, {}, {}, 3))["base_model"] == path


def test_recipe() -> None:
    config = settings("seed=7", "batch.size=64", "optim.lr=3e-4", "loss.temperature=0.07", "loss.form=decoupled")
    card = model_card(config, TABLE, {}, {}, 155)
    table = rows(card)
    assert table["base model"] == ["some/model"]
    assert table["pooling"][0].startswith("cls")
    assert table["texts"] == ["texts.txt: 12,345 available, 6 read, 1 empty, 3 duplicate, 2 kept"]
    assert table["steps"] == ["155 of 64 texts, 1 epoch(s)"]
    assert table["augmentation"] == ["what the views are, dropout 0.1"]
    assert table["loss"] == ["what the loss is"]
    usual = "betas [0.9, 0.999], layer_decay 1, scale_with_batch null"
    assert table["optimizer"] == [f"adamw (lr 0.0003, weight_decay 0.01, decay_all false, {usual})"]
    assert table["adaptation"] == ["Full"]
    assert table["schedule"] == ["constant (warmup_steps 0)"]
    assert table["projection head"] == ["none"]
    assert table["seed"] == ["7"]
    assert f"tuned on {datetime.now(UTC):%Y-%m}" in card
    assert "A sentence encoder" in card


def test_augmentation_names_what_is_on() -> None:
    card = model_card(settings("aug=none", "aug.dropout=0", "aug.drophead=0.2"), TABLE, {}, {}, 1)
    assert rows(card)["augmentation"] == ["what the views are, drophead 0.2"]


def test_scores_before_and_after() -> None:
    before = {
        "raw cls": {"sts12": score("sts12", 21.544), "stsb-dev": score("stsb-dev", 30.0)},
        "raw mean": {"sts12": score("sts12", 30.876), "stsb-dev": score("stsb-dev", 47.0)},
    }
    after = {"sts12": score("sts12", 69.118), "stsb-dev": score("stsb-dev", 78.0)}
    table = rows(model_card(settings(), TABLE, before, after, 3))
    assert table["set"] == ["raw cls", "raw mean", "tuned"]
    assert table["sts12"] == ["21.54", "30.88", "69.12"]
    assert table["stsb-dev"] == ["30.00", "47.00", "78.00"]


def test_no_scores_no_table() -> None:
    assert "## Scores" not in model_card(settings(), TABLE, {}, {}, 3)


def test_padded_mean_is_warned_of() -> None:
    warning = "load it with `mirror.MirrorEncoder.load`"
    padded = settings("model.pooling=mean_padded", "batch.pad_to_max=true")
    assert warning in model_card(padded, TABLE, {}, {}, 3)
    assert warning not in model_card(settings(), TABLE, {}, {}, 3)


@pytest.mark.parametrize(
    ("pooling", "first"),
    [
        (["model.pooling=mean_padded", "batch.pad_to_max=true"], "**Loads with mirror alone**"),
        (["model.pooling=first_last"], "**Pools several layers**"),
        (["model.pooling=mean"], "A sentence encoder"),
    ],
)
def test_first_line_of_a_pooling_that_others_do_otherwise(pooling: list[str], first: str) -> None:
    text = model_card(settings(*pooling), TABLE, {}, {}, 3).partition("# Mirror-tuned")[2].splitlines()
    assert text[2].startswith(first)


def test_a_distilled_student_names_its_teacher() -> None:
    card = model_card(settings("loss=distil", "teacher=[some/teacher,another]"), TABLE, {}, {}, 3)
    assert "# Distilled " in card
    assert "to follow\nsome/teacher and another" in card
    assert "from raw text alone" not in card


def test_retrieval_says_what_it_is_drawn_from() -> None:
    found = {"pydocs": Score("pydocs", 1000, {"mrr": 30.0}, "mrr")}
    card = model_card(settings(), TABLE, {"raw mean": found}, found, 3)
    assert rows(card)["pydocs (mrr)"] == ["30.00", "30.00"]
    assert "pydocs is the documentation of Python 3." in card
    assert "pydocs" not in model_card(settings(), TABLE, {}, {"stsb-test": score("stsb-test", 60.0)}, 3)


def test_says_that_no_head_guesses_masked_tokens() -> None:
    assert "`AutoModelForMaskedLM` begins with a random one" in model_card(settings(), TABLE, {}, {}, 1)
