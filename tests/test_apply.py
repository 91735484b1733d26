"""Encoders that are measured side by side."""

import json
import logging
from pathlib import Path

import pytest
import torch

from mirror import MirrorEncoder, MirrorError
from mirror.apply import encode, evaluate
from mirror.config import EvaluateConfig
from mirror.config.compose import compose
from mirror.evaluation.sets import load_sets
from mirror.evaluation.sets.sts import AVERAGE, AVERAGED
from tests.helpers import metrics

STSB = "eval=stsb"


@pytest.fixture(scope="module")
def encoders(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Two saved encoders and a plain model."""
    folder = tmp_path_factory.mktemp("encoders")
    MirrorEncoder.load(tiny_bert, "mean").save(folder / "first" / "encoder")
    other = MirrorEncoder.load(tiny_bert, "max")
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)), alpha=0.05)
    other.save(folder / "second" / "encoder")
    return folder / "first" / "encoder", folder / "second" / "encoder", tiny_bert


def side_by_side(encoders: tuple[Path, ...], eval_dir: Path, folder: Path, *overrides: str) -> dict[str, object]:
    folder.mkdir()
    names = ",".join(f"'{path}'" for path in encoders)
    config = compose("evaluate", [f"encoder=[{names}]", STSB, f"eval.data_dir='{eval_dir}'", *overrides])
    assert isinstance(config, EvaluateConfig)
    evaluate(config, folder)
    content = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def test_side_by_side(
    encoders: tuple[Path, Path, Path], eval_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        content = side_by_side(encoders, eval_dir, tmp_path / "run")
    scores = content["scores"]
    assert isinstance(scores, dict)
    assert [*scores] == ["first mean", "second max", "bert cls", "bert mean"]
    for column, path, pooling in (("first mean", encoders[0], None), ("bert cls", encoders[2], "cls")):
        encoder = MirrorEncoder.load(path, pooling)
        for test in load_sets(["stsb-dev", "stsb-test"], str(eval_dir)):
            assert scores[column][test.name]["all"] == pytest.approx(test.score(encoder.encode).value, abs=1)
    assert "does not say how it is pooled" in caplog.text
    comparisons = content["comparisons"]
    assert isinstance(comparisons, list)
    assert {found["against"] for found in comparisons} == {"first mean"}
    assert len(comparisons) == 3 * 2
    same = [found for found in comparisons if found["encoder"] == "bert mean"]
    assert all(abs(found["difference"]) < 1 for found in same)  # the very same model
    assert "Side by side" in caplog.text
    assert "first mean: not known whether it was trained on texts of stsb-dev, stsb-test" in caplog.text
    assert "Differences from first mean" in caplog.text
    assert content["columns"]["second max"] == str(encoders[1])  # type: ignore[index]


def test_saved_encoder_cannot_be_pooled_wrongly(
    encoders: tuple[Path, Path, Path], eval_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = side_by_side(encoders, eval_dir, tmp_path / "run", "pooling=cls", "eval.resamples=0")
    scores = content["scores"]
    assert isinstance(scores, dict)
    assert [*scores] == ["first mean", "second max", "bert cls"]
    assert "was saved with mean pooling and keeps it" in caplog.text
    assert content["comparisons"] == []


def test_one_encoder_twice(encoders: tuple[Path, Path, Path]) -> None:
    with pytest.raises(MirrorError, match="names one twice"):
        compose("evaluate", [f"encoder=['{encoders[0]}','{encoders[0]}']"])


def test_a_model_by_both_poolings_and_the_average(tiny_bert: Path, eval_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "sts").mkdir()
    for name in AVERAGED:
        (tmp_path / "sts" / f"{name}.tsv").write_bytes((eval_dir / "sts" / "stsb-dev.tsv").read_bytes())
    (tmp_path / "run").mkdir()
    overrides = [f"encoder='{tiny_bert}'", "eval=sts", f"eval.data_dir='{tmp_path}'", "eval.resamples=100"]
    results = evaluate(compose("evaluate", overrides), tmp_path / "run")
    content = metrics(tmp_path / "run")
    assert [*content["scores"]] == ["cls", "mean"]
    assert content["headlines"] == dict.fromkeys(AVERAGED, "all")
    assert content["certainty"]["cls"][AVERAGE]["interval"] == list(results.intervals("cls")[AVERAGE] or ())
    assert {found["set"] for found in content["comparisons"]} == {*AVERAGED, AVERAGE}


def test_vectors_of_a_model_without_a_pooling_come_with_a_warning(
    encoders: tuple[Path, Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "lines.txt").write_text("A man looks at a guitar.\n", encoding="utf-8")
    plain, saved = encoders[2], encoders[1]
    cases = [(plain, "pooling=null", True), (plain, "pooling=mean", False), (saved, "pooling=null", False)]
    for number, (path, override, warned) in enumerate(cases):
        caplog.clear()
        files = [f"input='{tmp_path / 'lines.txt'}'", f"output='{tmp_path / str(number)}.npy'"]
        encode(compose("encode", [f"encoder='{path}'", *files, override]))
        assert ("does not say how it is pooled" in caplog.text) == warned
