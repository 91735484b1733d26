"""Means of weights, the greedy soup, mixtures with the untouched model, and what does not mix."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mirror import MirrorEncoder, MirrorError
from mirror.cli.arguments import with_parts
from mirror.config import SoupConfig
from mirror.config.compose import compose
from mirror.soup import greedy, mean, soup
from tests.architectures import build
from tests.conftest import SENTENCES
from tests.helpers import go, metrics


@pytest.fixture(scope="module")
def runs(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three runs of other seeds."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in (1, 2, 3):
        go(tiny_bert, folder / str(seed), f"seed={seed}", "optim.lr=3e-3", "model.pooling=mean")
    return [folder / str(seed) for seed in (1, 2, 3)]


def mixed(folder: Path, eval_dir: Path, *typed: object) -> SoupConfig:
    folder.mkdir()
    config = compose("soup", [*map(str, typed), f"eval.data_dir={eval_dir}"])
    assert isinstance(config, SoupConfig)
    soup(config, folder)
    return config


def test_mean_of_seeds(runs: list[Path], eval_dir: Path, tmp_path: Path) -> None:
    mixed(tmp_path / "soup", eval_dir, f"parts=[{runs[0]},{runs[1]}/encoder]")
    first, second, both = (
        MirrorEncoder.load(folder / "encoder").backbone.state_dict() for folder in (*runs[:2], tmp_path / "soup")
    )
    for name, weights in both.items():
        torch.testing.assert_close(weights, (first[name] + second[name]) / 2, atol=1e-7, rtol=1e-6)
    scores = metrics(tmp_path / "soup")["scores"]
    assert scores.keys() == {str(runs[0]), f"{runs[1]}/encoder", "mean of 2"}
    card = (tmp_path / "soup" / "encoder" / "README.md").read_text()
    assert str(runs[0]) in card
    from sentence_transformers import SentenceTransformer

    theirs = SentenceTransformer(str(tmp_path / "soup" / "encoder"), device="cpu").encode(SENTENCES[:5])
    ours = MirrorEncoder.load(tmp_path / "soup" / "encoder")
    np.testing.assert_allclose(ours.encode(SENTENCES[:5]), theirs, atol=1e-5)
    assert ours.pooling.name == "mean"


def test_mean_of_equals_is_each(runs: list[Path]) -> None:
    state = MirrorEncoder.load(runs[0] / "encoder").state_dict()
    assert all(torch.equal(weights, state[name]) for name, weights in mean([state, state, state]).items())


def test_greedy_soup() -> None:
    """Parts 1 and 3 go together, 0 makes their mean worse; 2, the worst, is tried too and leaves it as it is."""
    tried = []

    def score(few: list[int]) -> float:
        tried.append(few)
        return {(1, 3): 8.0, (1, 3, 0): 7.9, (1, 3, 2): 8.0}[tuple(few)]

    assert greedy([5.0, 7.0, 1.0, 6.0], score) == [1, 3, 2]  # type: ignore[arg-type]
    assert tried == [[1, 3], [1, 3, 0], [1, 3, 2]]


def test_greedy_is_no_worse_than_the_best_part(runs: list[Path], eval_dir: Path, tmp_path: Path) -> None:
    mixed(tmp_path / "soup", eval_dir, f"parts=[{','.join(map(str, runs))}]", "greedy=true")
    content = metrics(tmp_path / "soup")
    scores = {name: found["stsb-dev"]["all"] for name, found in content["scores"].items()}
    assert scores[content["soup"]["saved"]] >= max(scores[str(run)] for run in runs)
    assert set(content["soup"]["parts"]) <= set(map(str, runs))


def test_between_the_soup_and_the_untouched_model(
    runs: list[Path], tiny_bert: Path, eval_dir: Path, tmp_path: Path
) -> None:
    mixed(tmp_path / "soup", eval_dir, f"parts=[{runs[0]}]", f"untouched={tiny_bert}", "weights=[0,0.5]")
    content = metrics(tmp_path / "soup")
    scores = {name: found["stsb-dev"]["all"] for name, found in content["scores"].items()}
    assert len(scores) == 4
    assert content["soup"]["saved"] in scores
    best = max(list(scores)[1:], key=lambda name: scores[name])
    assert scores[content["soup"]["saved"]] == scores[best]


def test_what_does_not_mix(runs: list[Path], tiny_bert: Path, eval_dir: Path, tmp_path: Path) -> None:
    other = build("distilbert", tmp_path / "distilbert")
    with pytest.raises(MirrorError, match="has another architecture or vocabulary than"):
        mixed(tmp_path / "a", eval_dir, f"parts=[{runs[0]},{other}]")
    go(tiny_bert, tmp_path / "cls", "model.pooling=cls")
    with pytest.raises(MirrorError, match=r"is pooled by cls, .* by mean: a soup has one pooling"):
        mixed(tmp_path / "b", eval_dir, f"parts=[{runs[0]},{tmp_path}/cls]")
    go(tiny_bert, tmp_path / "post", "model.pooling=mean", "post=pca", "post.dimensions=8")
    with pytest.raises(MirrorError, match="has a linear layer behind its pooling"):
        mixed(tmp_path / "c", eval_dir, f"parts=[{runs[0]},{tmp_path}/post]")
    assert not any((tmp_path / name / "encoder").exists() for name in "abc")


@pytest.mark.parametrize(
    ("typed", "reason"),
    [
        (["parts=[]"], "parts is empty"),
        (["parts=[a]"], "parts has one encoder"),
        (["parts=[a,a]"], "names one twice"),
        (["parts=[a,b]", "weights=[1.5]"], r"weights=1\.5 is out of range"),
    ],
)
def test_refusals(typed: list[str], reason: str) -> None:
    with pytest.raises(MirrorError, match=reason):
        compose("soup", typed)


def test_parts_are_typed_without_a_name() -> None:
    assert with_parts(["a/b", "greedy=true", "c"]) == ["greedy=true", "parts=['a/b','c']"]
    assert with_parts(["--help"]) == ["--help"]
