"""Every choice under conf/ composes into checked settings, and nothing else does."""

import json
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from mirror.config import (
    BatchConfig,
    DataConfig,
    EvalConfig,
    ModelConfig,
    Pooling,
    PretrainConfig,
    Select,
    TrainConfig,
    TrainerConfig,
    plain,
)
from mirror.config import compose as composing
from mirror.config.compose import CONF, compose
from mirror.errors import MirrorError
from mirror.evaluation.sets import SETS
from mirror.evaluation.sets.sts import AVERAGED
from mirror.evaluation.sets.words import LANGUAGES, NAMES
from mirror.training.parts import check_parts

CHOICES = sorted((str(file.parent.relative_to(CONF)), file.stem) for file in CONF.glob("*/**/*.yaml"))
FROM_FILES = [
    ("data", "file"), ("data", "pairs"), ("data", "documents"), ("data", "python"), ("experiment", "contracode"),
    ("experiment", "declutr"),
]  # fmt: skip
MUST_BE_GIVEN = {choice: ["data.path=texts.txt"] for choice in FROM_FILES}


PRETRAINING = ("objective", "size", "tokenizer", "masking")
"""The groups that only ``scripts/pretrain.py`` has."""


@cache
def pretrain_config(*overrides: str) -> PretrainConfig:
    config = compose("pretrain", ["data.path=texts.txt", *overrides])
    assert isinstance(config, PretrainConfig)
    return config


@cache
def train_config(*overrides: str) -> TrainConfig:
    config = compose("train", overrides)
    assert isinstance(config, TrainConfig)
    return config


def written_in(group: str, option: str) -> Iterator[tuple[str, Any]]:
    """The values that a file sets, each with its place in the whole configuration."""
    file = CONF / group / f"{option}.yaml"
    package = group.replace("/", ".")
    for line in file.read_text().splitlines():
        if line.startswith("# @package "):
            package = line.removeprefix("# @package ")

    def leaves(node: Any, place: str) -> Iterator[tuple[str, Any]]:
        for key, value in node.items():
            here = f"{place}.{key}" if place else key
            if isinstance(value, dict):
                yield from leaves(value, here)
            elif key not in ("defaults", "hydra") and not any(sign in str(value) for sign in ("${", "???")):
                yield here, value

    content = OmegaConf.to_container(OmegaConf.load(file))
    assert isinstance(content, dict)
    content.pop("hydra", None)
    return leaves(content, "" if package == "_global_" else package)


@pytest.mark.parametrize(("group", "option"), CHOICES)
def test_every_option_composes_and_takes_effect(group: str, option: str) -> None:
    given = MUST_BE_GIVEN.get((group, option), [])
    composed = pretrain_config if group in PRETRAINING else train_config
    config = plain(composed(f"{group}={option}", *given))
    for place, value in written_in(group, option):
        found: Any = config
        for key in place.split("."):
            found = found[key]
        if f"{place}={found}" not in given:
            assert found == value, place


@pytest.mark.parametrize(
    ("name", "overrides"), [("evaluate", ["encoder=e"]), ("encode", ["encoder=e", "input=i", "output=o"])]
)
def test_other_commands_compose(name: str, overrides: list[str]) -> None:
    config = compose(name, overrides)
    assert config.encoder == "e"
    json.dumps(plain(config))


@pytest.mark.parametrize(
    ("task", "temperature", "epochs", "max_tokens", "span_k"),
    [("sentence", 0.04, 1, 50, 5), ("phrase", 0.04, 2, 25, 0), ("word", 0.2, 2, 25, 0)],
)
def test_task_presets_are_the_papers(task: str, temperature: float, epochs: int, max_tokens: int, span_k: int) -> None:
    config = train_config(f"task={task}")
    assert config.task.value == task
    assert config.loss["temperature"] == temperature
    assert config.trainer.max_epochs == epochs
    assert config.batch.max_tokens == max_tokens
    assert config.aug["span_k"] == span_k
    assert config.model.pooling == "cls"
    assert (config.batch.size, config.aug["dropout"], config.aug["drophead"]) == (200, 0.1, 0.0)
    assert (config.optim["lr"], config.optim["weight_decay"], config.data.size) == (2e-5, 0.01, 10_000)


@pytest.mark.parametrize("order", [1, -1])
def test_user_choice_beats_task_preset(order: int) -> None:
    config = train_config(*["task=word", "temperature=sentence", "aug=mirror", "trainer.max_epochs=7"][::order])
    assert config.task.value == "word"
    assert config.loss["temperature"] == 0.04
    assert config.aug["span_k"] == 5
    assert config.trainer.max_epochs == 7
    assert config.batch.max_tokens == 25  # the rest of the preset stays


def test_demo_takes_sts_where_a_folder_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MIRROR_DATA", raising=False)
    assert compose("train", ["experiment=demo"]).eval.measured == ["pydocs"]
    both = ["pydocs", "stsb-dev", "stsb-test"]
    assert compose("train", ["experiment=demo", "eval.data_dir=x"]).eval.measured == both
    monkeypatch.setenv("MIRROR_DATA", "x")
    assert compose("evaluate", ["encoder=x", "eval=demo"]).eval.measured == both


def test_sets_of_the_files_are_those_of_the_code() -> None:
    """A file of ``conf/eval`` and the constants name the same seven sets, twelve languages, and sets of SemEval."""
    sets = {name: train_config(f"eval={name}").eval.sets for name in ("sts", "multisimlex", "sts17", "all", "words")}
    languages = [f"multisimlex-{language}" for language in LANGUAGES]
    assert sets["sts"] == [*AVERAGED]
    assert sets["multisimlex"] == languages
    assert sets["sts17"] == [name for name in SETS if name.startswith("sts17-")]
    assert {*AVERAGED, *languages} <= {*sets["all"]}
    assert [name for name in sets["all"] if "/" not in name] == [name for name in SETS if name in sets["all"]]
    assert {*sets["words"]} <= {*NAMES}


def test_user_choice_beats_experiment() -> None:
    config = train_config("experiment=sentence_bert", "model=roberta", "aug.span_k=3", "eval=none")
    assert config.model.path == "FacebookAI/roberta-base"
    assert config.aug["span_k"] == 3
    assert config.eval.sets == []


def test_experiments_select_whole_presets() -> None:
    """An experiment chooses a task, and the task's own choices follow."""
    word = train_config("experiment=word_bert")
    assert (word.task.value, word.loss["temperature"], word.trainer.max_epochs) == ("word", 0.2, 2)
    assert (word.aug["span_k"], word.data.path, word.batch.max_tokens) == (0, None, 25)
    drophead = train_config("experiment=sentence_roberta_drophead")
    assert drophead.model.path == "FacebookAI/roberta-base"
    assert (drophead.aug["drophead"], drophead.aug["dropout"], drophead.aug["span_k"]) == (0.05, 0.0, 5)
    assert (drophead.loss["temperature"], drophead.batch.max_tokens) == (0.04, 50)
    assert len(drophead.eval.sets) == 7


def test_loss_temperature_beats_its_group() -> None:
    assert train_config("temperature=word", "loss.temperature=0.07").loss["temperature"] == 0.07


QUIRKS = ("literal_mask", "spaced_mask", "first_match", "spare_last")


def test_official_switches_every_quirk_on() -> None:
    config = train_config("experiment=official")
    assert all(config.aug[quirk] is True for quirk in QUIRKS)
    assert config.aug["min_chars"] == 30
    assert config.model.pooling == "mean_padded"
    assert config.batch.pad_to_max
    assert config.batch.drop_last
    assert config.optim["decay_all"]
    assert not config.data.deduplicate
    assert not config.loss["mask_duplicates"]


def test_default_has_no_quirk() -> None:
    config = train_config()
    assert all(config.aug[quirk] is False for quirk in QUIRKS)
    assert not any((config.batch.pad_to_max, config.batch.drop_last, config.optim["decay_all"]))
    assert config.data.deduplicate
    assert config.loss["mask_duplicates"]


@pytest.mark.parametrize(("model", "rate"), [("bert", 0.2), ("roberta", 0.05)])
def test_drophead_rate_belongs_to_the_model(model: str, rate: float) -> None:
    config = train_config("aug=drophead", f"model={model}")
    assert (config.aug["drophead"], config.aug["dropout"]) == (rate, 0.0)
    assert train_config("aug=drophead", f"model={model}", "aug.drophead=0.3").aug["drophead"] == 0.3


@pytest.mark.parametrize(
    ("size", "parameters"), [("tiny", 4.4), ("mini", 11.2), ("small", 28.8), ("medium", 41.4), ("base", 109.5)]
)
def test_sizes_are_googles(size: str, parameters: float) -> None:
    """Turc et al. 2019, table 1 (without the head, with their vocabulary), and BERT base, in millions."""
    model = pretrain_config(f"size={size}").model
    d, inner = model.hidden, model.intermediate
    layer = 4 * (d * d + d) + 2 * d * inner + inner + d + 4 * d
    embeddings = (30522 + model.positions + 2) * d + 2 * d
    assert (embeddings + model.layers * layer + d * d + d) / 1e6 == pytest.approx(parameters, abs=0.1)


def test_pretraining_rate_follows_the_size() -> None:
    assert pretrain_config("size=base").optim["lr"] == pretrain_config("size=base").model.learning_rate
    assert pretrain_config("size=base", "optim.lr=0.01").optim["lr"] == 0.01


def test_pretraining_takes_all_texts() -> None:
    assert pretrain_config().data.size is None


def test_learning_rate_follows_the_model() -> None:
    assert train_config("model=bert_mini").optim["lr"] == 5e-4
    assert train_config("model.learning_rate=3e-4").optim["lr"] == 3e-4
    assert train_config("model=bert_mini", "optim.lr=1e-4").optim["lr"] == 1e-4


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("aug.span_kk=3", "span_kk"),
        ("nonsense=1", "nonsense"),
        ("aug.span_k=five", "span_k"),
        ("batch.size=1.5", "batch.size"),
        ("optim.lr=fast", "optim.lr"),
        ("batch.pack=perhaps", "batch.pack"),
        ("loss.form=simclr", "loss.form"),
        ("trainer.accelerator=tpu", "trainer.accelerator"),
        ("eval.raw=[middle]", "eval.raw"),
        ("task=words", "task"),
        ("model=gpt9", "model"),
        ("temperature=0.1", r"loss\.temperature"),  # a number in place of a group's option
        ("data_size=3000", r"data\.size"),
        ("aug.span_k=[1", "1"),  # not even Hydra's grammar
        ("aug.span_k=-1", "aug.span_k"),
        ("loss.temperature=nan", "loss.temperature"),
    ],
)
def test_unfit_override_is_refused_by_name(override: str, named: str) -> None:
    with pytest.raises(MirrorError, match=named):
        check_parts(train_config(override))


def test_ill_typed_value_is_shown() -> None:
    with pytest.raises(MirrorError, match=r"aug\.span_k=five does not fit: it must be a whole number"):
        check_parts(train_config("aug.span_k=five"))


def test_data_file_without_a_path_is_refused() -> None:
    with pytest.raises(MirrorError, match=r"data\.path"):
        train_config("data=file")


@pytest.mark.parametrize(
    ("line", "named"), [("span_kk: 3", "span_kk"), ("span_k: five", "span_k"), ("span_k: -1", r"aug\.span_k")]
)
def test_unfit_line_in_a_yaml_file_is_refused(
    line: str, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(CONF, tmp_path / "conf")
    monkeypatch.setattr(composing, "CONF", tmp_path / "conf")
    train_config.cache_clear()
    mine = tmp_path / "conf/aug/mine.yaml"
    mine.write_text("defaults: [mirror, _self_]\nspan_k: 4\n")
    config = train_config("aug=mine")
    assert config.aug["span_k"] == 4
    check_parts(config)
    mine.write_text(f"defaults: [mirror, _self_]\n{line}\n")
    train_config.cache_clear()
    with pytest.raises(MirrorError, match=named):
        check_parts(train_config("aug=mine"))


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("siz: 3", "batch.siz is no setting; did you mean batch.size?"),
        (
            "size: five",
            "batch.size in batch/mine.yaml does not fit: it must be a whole number.",
        ),
    ],
)
def test_sentence_for_a_yaml_file(line: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(CONF, tmp_path / "conf")
    monkeypatch.setattr(composing, "CONF", tmp_path / "conf")
    (tmp_path / "conf/batch").mkdir()
    (tmp_path / "conf/batch/mine.yaml").write_text(f"{line}\n")
    with pytest.raises(MirrorError) as refused:
        compose("train", ["+batch=mine"])
    assert str(refused.value) == sentence


def test_missing_value_is_named() -> None:
    with pytest.raises(MirrorError, match="encoder is not set"):
        compose("evaluate", [])


@pytest.mark.parametrize(
    ("kind", "setting", "value"),
    [
        (ModelConfig, "model.path", " "),
        (ModelConfig, "model.max_tokens", 2),
        (ModelConfig, "model.learning_rate", 0.0),
        (ModelConfig, "model.drophead", 1.0),
        (DataConfig, "data.size", 1),
        (DataConfig, "data.size", 0),
        (DataConfig, "data.pair_separator", ""),
        (BatchConfig, "batch.size", 1),
        (BatchConfig, "batch.max_tokens", 2),
        (BatchConfig, "batch.max_tokens", 8193),
        (BatchConfig, "batch.workers", -1),
        (BatchConfig, "batch.micro", 0),
        (TrainerConfig, "trainer.devices", 0),
        (TrainerConfig, "trainer.nodes", 0),
        (TrainerConfig, "trainer.max_epochs", -1),
        (TrainerConfig, "trainer.max_steps", 0),
        (TrainerConfig, "trainer.gradient_clip", 0.0),
        (TrainerConfig, "trainer.devices", 2),  # without a process for each
        (EvalConfig, "eval.every", 0),
        (EvalConfig, "eval.raw", [Pooling.mean_padded]),
    ],
)
def test_value_out_of_range_is_refused_by_name(kind: type[Any], setting: str, value: object) -> None:
    kind()  # the defaults are in range
    with pytest.raises(MirrorError, match=setting.replace(".", r"\.")):
        kind(**{setting.split(".")[1]: value})


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("aug.span_k", -1),
        ("aug.span_k", 1001),
        ("aug.min_chars", -1),
        ("aug.dropout", 1.0),
        ("aug.dropout", -0.1),
        ("aug.dropout", ".nan"),
        ("aug.drophead", 1.0),
        ("loss.temperature", 0.0),
        ("loss.temperature", -0.04),
        ("loss.temperature", 101.0),
        ("loss.temperature", ".inf"),
        ("optim.lr", 0.0),
        ("optim.lr", -1e-5),
        ("optim.lr", 1.0),
        ("optim.lr", ".nan"),
        ("optim.weight_decay", -0.1),
        ("optim.weight_decay", 1.0),
        ("optim.betas", "[0.9]"),
        ("schedule.warmup_steps", -1),
        ("aug.span_k", "five"),
        ("aug.unit", "letter"),
        ("loss.form", "other"),
        ("loss.mask_duplicates", "perhaps"),
    ],
)
def test_value_of_a_part_is_refused_by_name(setting: str, value: object) -> None:
    with pytest.raises(MirrorError, match=setting.replace(".", r"\.")):
        check_parts(train_config(f"{setting}={value}"))


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(MirrorError, match=r"batch\.pad_to_max"):
        TrainConfig(model=ModelConfig(pooling=Pooling.mean_padded))
    with pytest.raises(MirrorError, match=r"eval\.validation"):
        TrainConfig(select=Select.best, eval=EvalConfig(validation=""))
    with pytest.raises(MirrorError, match=r"data\.pair_column"):
        DataConfig(pair_column="b", pair_separator="||")
    with pytest.raises(MirrorError, match=r"data\.language=de .*data=words"):
        DataConfig(path="texts.txt", language="de")
    with pytest.raises(MirrorError, match="seed"):
        TrainConfig(seed=-1)


def test_batch_smaller_than_the_devices_is_refused() -> None:
    """A device without a text could not take part in the gathering."""
    with pytest.raises(MirrorError, match=r"batch\.size"):
        train_config("trainer=ddp", "trainer.devices=4", "batch.size=3")


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_several_devices(strategy: str) -> None:
    assert train_config(f"trainer={strategy}", "trainer.devices=4").trainer.devices == 4


def test_best_weights_need_whole_weights() -> None:
    with pytest.raises(MirrorError, match=r"select=best .* trainer=fsdp"):
        train_config("trainer=fsdp", "select=best")


def test_pretraining_does_not_share_weights_out() -> None:
    with pytest.raises(MirrorError, match="trainer=fsdp is for mirror tuning"):
        compose("pretrain", ["data.path=texts.txt", "trainer=fsdp"])


def test_plain_settings_survive_json() -> None:
    settings = plain(train_config("logger=wandb"))
    assert json.loads(json.dumps(settings)) == settings
    assert settings["task"] == "sentence"
    assert settings["logger"]["trackers"] == ["csv", "wandb"]
    assert settings["eval"]["raw"] == ["cls", "mean"]


@pytest.mark.parametrize(
    ("name", "overrides", "reason"),
    [
        ("train", ["+nosuch.key=1"], "nosuch is no setting"),
        ("train", ["++nosuch=1"], "nosuch is no setting"),
        ("train", ["+data.pth=x"], r"data\.pth is no setting; did you mean data\.path\?"),
        ("train", ["++eval.set=[stsb]"], r"eval\.set is no setting; did you mean eval\.sets\?"),
        ("train", ["+loss._target_=x.y"], r"\+loss\._target_=x\.y is set already: write it without the \+"),
        ("pretrain", ["data.path=x", "+masking.part=0.2"], r"masking\.part is no setting"),
        ("search", ["query=q", "+to=3"], r"to is no setting; did you mean top\?"),
        ("search", ["xyz=b c"], r"xyz is no setting; a question with = in it is given as \"query='…'\"\."),
        ("pretrain", ["data.path=x", "tokenizer=bpe", "model.path=y"], r"tokenizer\.kind=bpe is for a new model"),
        ("train", ["seed=4294967295", "seeds=2"], "goes beyond 4294967295"),
    ],
)
def test_what_would_be_ignored_is_refused(name: str, overrides: list[str], reason: str) -> None:
    with pytest.raises(MirrorError, match=reason):
        compose(name, overrides)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("batch.siz=3", "batch.siz is no setting; did you mean batch.size?"),
        ("aug.span_kk=3", "aug.span_kk is no setting; did you mean aug.span_k?"),
        ("nonsense=bert", "nonsense is no setting; --cfg job prints them all."),
        ("+data.path=x", "+data.path=x is set already: write it without the +."),
        ("tokenizer=bpe", "tokenizer is a group of another command than scripts/train.py: leave it out."),
        ("schedule=3", "schedule=3 is no option: choose schedule=constant, cosine, linear, slanted, stepped, wsd."),
        ("task=words", "task=words is no option; did you mean task=word? Else choose task=phrase, sentence, word."),
        ("task=image", "task=image is no option: choose task=phrase, sentence, word."),
        (
            "batch.pack=perhaps",
            "batch.pack=perhaps does not fit: it must be true or false.",
        ),
        ("batch.size=1.5", "batch.size=1.5 does not fit: it must be a whole number."),
        ("seed=null", "seed=null does not fit: it must be set, not null."),
        ("data.path=[a]", "data.path=[a] does not fit: it must be one text."),
        ("eval.sets=x", "eval.sets=x does not fit: it must be a list, as in [one,two]."),
        (
            "data.path='a",
            "data.path='a cannot be read: write NAME=VALUE, and put a value that holds other signs than letters, "
            "digits and those of paths in quotes within quotes, as in \"data.path='my texts.txt'\".",
        ),
        (
            "schedule=null",
            "schedule=null is no option: choose schedule=constant, cosine, linear, slanted, stepped, wsd.",
        ),
        ("=3", "=3 is no option: choose GROUP=NAME."),
        (
            "model={pth:x}",
            "model={pth:x} does not fit: choose a file, model=NAME, or set one value, as in model.NAME=VALUE.",
        ),
        ("~model.path", "~model.path takes away what every run has: give it another value instead."),
        (
            "seed=range(1,3)",
            "seed=range(1,3) has several values: add -m to run with each of them, or write the value in brackets for a "
            "list, or in quotes within quotes for a text.",
        ),
        ("data.size=${nosuch}", "data.size: ${nosuch} names no setting: give a value, or a setting's name."),
        (
            "logger.trackers=[x]",
            "logger.trackers=[x] does not fit: it must be one of csv, wandb, tensorboard, mlflow.",
        ),
    ],
)
def test_sentence_for_each_message_of_the_installed_hydra(override: str, sentence: str) -> None:
    """``one_sentence`` looks into Hydra's and OmegaConf's messages: another release may word them otherwise."""
    with pytest.raises(MirrorError) as refused:
        compose("train", [override])
    assert str(refused.value) == sentence


def test_plus_may_stay_where_it_does_no_harm() -> None:
    assert compose("train", ["++data.size=50", "+optim.betas=[0.9,0.98]"]).data.size == 50


def test_models_by_the_names_of_their_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert composing.named_model("mini") == "bundled:mini"
    assert composing.named_model("bert") == "google-bert/bert-base-uncased"
    assert composing.named_model("../data/file") is composing.named_model("nosuch") is None
    monkeypatch.chdir(tmp_path)
    Path("mini").mkdir()
    assert composing.named_model("mini") is None
