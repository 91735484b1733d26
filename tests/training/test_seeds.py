"""Several seeds in one run, and tests excluded from training."""

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats

from mirror import MirrorEncoder, MirrorError
from mirror.apply import evaluate
from mirror.config.compose import compose
from mirror.evaluation.sets import load_sets
from tests.helpers import curve, equal, go, metrics, small, weights

STSB = "eval=stsb"


@pytest.fixture(scope="module")
def three(tiny_bert: Path, eval_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, MirrorEncoder]:
    """A run of seeds 1, 2 and 3."""
    folder = tmp_path_factory.mktemp("seeds") / "run"
    return folder, go(tiny_bert, folder, STSB, f"eval.data_dir='{eval_dir}'", "seed=1", "seeds=3", "aug=drophead")


def test_each_seed_is_kept_and_is_the_run_of_that_seed(
    three: tuple[Path, MirrorEncoder], tiny_bert: Path, eval_dir: Path, tmp_path: Path
) -> None:
    """Bit for bit, whatever was trained before it; on the texts that the first seed sampled."""
    folder, returned = three
    alone = go(tiny_bert, tmp_path / "alone", "seed=1", "aug=drophead")
    assert equal(weights(alone), weights(returned))
    assert equal(weights(alone), weights(MirrorEncoder.load(folder / "encoder")))
    assert curve(tmp_path / "alone") == curve(folder)
    second = MirrorEncoder.load(folder / "seed-2" / "encoder")
    assert not equal(weights(second), weights(returned))
    assert len(curve(folder / "seed-2")) == len(curve(folder / "seed-3")) == 3
    scores = metrics(folder)["seeds"]
    for seed, place in (("1", folder), ("2", folder / "seed-2"), ("3", folder / "seed-3")):
        encoder = MirrorEncoder.load(place / "encoder")
        for test in load_sets(["stsb-dev", "stsb-test"], str(eval_dir)):
            assert scores[seed]["scores"][test.name]["all"] == pytest.approx(test.score(encoder.encode).value, abs=1)


def test_record_has_mean_deviation_and_interval(three: tuple[Path, MirrorEncoder]) -> None:
    content = metrics(three[0])
    values = [content["seeds"][seed]["scores"]["stsb-dev"]["all"] for seed in ("1", "2", "3")]
    assert len({*values}) > 1
    assert content["scores"]["tuned"]["stsb-dev"]["all"] == pytest.approx(np.mean(values))
    certainty = content["certainty"]["tuned"]["stsb-dev"]
    assert sorted(certainty["seeds"]) == sorted(values)
    assert certainty["sd"] == pytest.approx(np.std(values, ddof=1))
    expected = scipy.stats.t.interval(0.95, 2, np.mean(values), scipy.stats.sem(values))
    assert certainty["seed_interval"] == pytest.approx(list(expected))
    low, high = certainty["interval"]
    assert low < high
    assert "seeds" not in content["certainty"]["raw cls"]["stsb-dev"]
    assert content["seed"] == 1
    assert {found["encoder"] for found in content["comparisons"]} == {"tuned"}


def test_backbone_is_loaded_and_the_raw_model_measured_once(
    tiny_bert: Path, eval_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[object] = []
    encoded: list[int] = []
    load, encode = MirrorEncoder.load, MirrorEncoder.encode_by

    def loading(*arguments: Any, **options: Any) -> MirrorEncoder:
        loads.append(arguments)
        return load(*arguments, **options)

    def encoding(self: MirrorEncoder, texts: Any, poolings: Any, **options: Any) -> Any:
        encoded.append(len(poolings))
        return encode(self, texts, poolings, **options)

    monkeypatch.setattr(MirrorEncoder, "load", loading)
    monkeypatch.setattr(MirrorEncoder, "encode_by", encoding)
    go(tiny_bert, tmp_path / "run", STSB, f"eval.data_dir='{eval_dir}'", "seeds=2", "eval.geometry_every=0")
    assert len(loads) == 1
    assert encoded == [2, 1, 1]  # raw by two poolings, then each seed once


def test_seeds_show_in_the_table(
    tiny_bert: Path, eval_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        go(tiny_bert, tmp_path / "run", STSB, f"eval.data_dir='{eval_dir}'", "seeds=2")
    assert "mean ± sd of 2 seeds" in caplog.text
    (line,) = [line for line in caplog.text.splitlines() if "stsb-dev" in line and "±" in line]
    assert "†" in line  # the test sentences are training sentences here


@pytest.mark.parametrize("override", ["seeds=0", "seeds=-1"])
def test_number_of_seeds(tiny_bert: Path, override: str) -> None:
    with pytest.raises(MirrorError, match="seeds"):
        small(tiny_bert, override)


def test_seeds_and_ddp(tiny_bert: Path) -> None:
    with pytest.raises(MirrorError, match="seeds=2 needs one process"):
        small(tiny_bert, "seeds=2", "trainer=ddp", "trainer.accelerator=cpu")


def test_transductive_run_is_marked_everywhere(
    three: tuple[Path, MirrorEncoder], tiny_bert: Path, eval_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In the record, on the card, and when the saved encoder is evaluated later, wherever it was taken."""
    folder = three[0]
    overlap = metrics(folder)["contamination"]["tuned"]["stsb-test"]
    assert overlap["exact"] > 0
    assert "| stsb-test † |" in (folder / "encoder" / "README.md").read_text(encoding="utf-8")
    shutil.copytree(folder / "seed-2" / "encoder", tmp_path / "taken away")
    with caplog.at_level(logging.INFO):
        overrides = [f"encoder='{tmp_path / 'taken away'}'", STSB, f"eval.data_dir='{eval_dir}'", "eval.resamples=0"]
        evaluate(compose("evaluate", overrides), tmp_path)
    assert "stsb-test †" in caplog.text
    assert "transductive" in caplog.text
    assert "not known" not in caplog.text


def test_excluded_tests_leave_nothing(
    tiny_bert: Path, eval_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        go(tiny_bert, tmp_path / "run", STSB, f"eval.data_dir='{eval_dir}'", "data.exclude_tests=true", "data.size=30")
    content = metrics(tmp_path / "run")
    assert content["data"]["kept"] == 30
    assert content["data"]["excluded"] > 0
    assert all(found["exact"] == found["near"] == 0 for found in content["contamination"]["tuned"].values())
    assert "†" not in caplog.text
    assert "of test sets, 30 kept" in caplog.text


def test_exclude_tests_needs_tests(tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MirrorError, match=r"data\.exclude_tests=true needs eval="):
        small(tiny_bert, "data.exclude_tests=true")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(MirrorError, match="cannot be reached"):
        go(tiny_bert, tmp_path / "run", STSB, "data.exclude_tests=true")
