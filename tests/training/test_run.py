"""Whole runs on a tiny model: what they leave, what makes them repeatable, how they fail."""

import errno
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from mirror import MirrorEncoder, MirrorError, mirror_tune
from mirror.evaluation.sets import load_sets
from mirror.losses.infonce import info_nce
from mirror.runs.atomic import SCRATCH
from mirror.runs.record import by_step
from mirror.training.module import MirrorModule
from mirror.training.run import train
from tests.conftest import ROOT, SENTENCES
from tests.helpers import THREE_STEPS, curve, equal, go, metrics, small, weights


@pytest.fixture(scope="module")
def measured(tiny_bert: Path, eval_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, MirrorEncoder]:
    """The folder and the encoder of one run, measured before and after; seed 1."""
    folder = tmp_path_factory.mktemp("runs") / "measured"
    return folder, go(tiny_bert, folder, "eval=stsb", f"eval.data_dir='{eval_dir}'", "seed=1")


def test_metrics_of_a_finished_run(measured: tuple[Path, MirrorEncoder]) -> None:
    content = metrics(measured[0])
    assert content["status"] == "finished"
    assert "error" not in content
    assert content["seed"] == content["config"]["seed"] == 1
    assert content["config"]["optim"]["lr"] == 1e-3
    assert content["config"]["model"]["pooling"] == "cls"
    assert {"mirror", "python", "torch", "transformers", "pytorch-lightning"} <= content["versions"].keys()
    assert content["data"] == {"available": 240, "read": 48, "empty": 0, "duplicate": 0, "kept": 48}
    assert content["steps"] == 3
    assert content["views"]["masked_share"] == 1.0
    assert content["hardware"]["precision"] == "fp32"
    phases = {"read", "audit", "load", "evaluate", "tokenise", "to first step", "train", "save", "total"}
    assert phases == content["seconds"].keys()
    losses = curve(measured[0])
    assert len(losses) == 3
    assert content["loss"] == pytest.approx({"first": losses[0], "last": losses[-1]}, rel=1e-5)


def test_scores_are_those_of_the_raw_model_and_of_the_saved_encoder(
    measured: tuple[Path, MirrorEncoder], tiny_bert: Path, eval_dir: Path
) -> None:
    sets = load_sets(["stsb-dev", "stsb-test"], str(eval_dir))
    encoders = {
        "raw cls": MirrorEncoder.load(tiny_bert, "cls"),
        "raw mean": MirrorEncoder.load(tiny_bert, "mean"),
        "tuned": MirrorEncoder.load(measured[0] / "encoder"),
    }
    scores = metrics(measured[0])["scores"]
    # To one point: the vectors of a random model are nearly parallel, so that rounding changes ranks.
    assert scores.keys() == encoders.keys()
    for name, encoder in encoders.items():
        expected = {pairs.name: {"all": pairs.score(encoder.encode).value, "pairs": 20} for pairs in sets}
        assert scores[name] == {key: pytest.approx(value, abs=1) for key, value in expected.items()}
    assert scores["tuned"] != scores["raw cls"]


def test_run_returns_what_it_saves(measured: tuple[Path, MirrorEncoder]) -> None:
    folder, encoder = measured
    assert not encoder.training
    np.testing.assert_allclose(
        MirrorEncoder.load(folder / "encoder").encode(SENTENCES[:9]), encoder.encode(SENTENCES[:9]), atol=1e-6
    )
    card = (folder / "encoder" / "README.md").read_text(encoding="utf-8")
    tuned = metrics(folder)["scores"]["tuned"]["stsb-test"]["all"]
    assert f"{tuned:.2f} |" in card
    assert not list(folder.rglob(f"{SCRATCH}*"))


def test_same_seed_same_weights(measured: tuple[Path, MirrorEncoder], tiny_bert: Path, tmp_path: Path) -> None:
    """Bit for bit; measuring before the training makes no difference."""
    same = go(tiny_bert, tmp_path / "same", "seed=1")
    assert equal(weights(same), weights(measured[1]))
    other = go(tiny_bert, tmp_path / "other", "seed=2")
    assert not equal(weights(other), weights(measured[1]))


def test_workers_make_the_same_batches(measured: tuple[Path, MirrorEncoder], tiny_bert: Path, tmp_path: Path) -> None:
    encoder = go(tiny_bert, tmp_path / "run", "seed=1", "batch.workers=2")
    assert equal(weights(encoder), weights(measured[1]))


def test_same_seed_same_scores(
    measured: tuple[Path, MirrorEncoder], tiny_bert: Path, eval_dir: Path, tmp_path: Path
) -> None:
    go(tiny_bert, tmp_path / "again", "eval=stsb", f"eval.data_dir='{eval_dir}'", "seed=1")
    assert metrics(tmp_path / "again")["scores"] == metrics(measured[0])["scores"]
    assert curve(tmp_path / "again") == curve(measured[0])


def test_dropout_is_on_in_training_and_off_after(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen at the modules themselves while the run trains, and in the vectors afterwards."""
    seen: list[tuple[bool, float]] = []
    forward = nn.Dropout.forward

    def spy(module: nn.Dropout, hidden: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            seen.append((module.training, module.p))
        return forward(module, hidden)

    monkeypatch.setattr(nn.Dropout, "forward", spy)
    encoder = go(tiny_bert, tmp_path / "run", "aug.dropout=0.3", "aug.span_k=0")
    assert seen
    assert set(seen) == {(True, 0.3)}
    assert metrics(tmp_path / "run")["views"]["view_cosine"] < 0.999
    np.testing.assert_array_equal(encoder.encode(SENTENCES[:5]), encoder.encode(SENTENCES[:5]))


def test_drophead_is_gone_after_training(tiny_bert: Path, tmp_path: Path) -> None:
    encoder = go(tiny_bert, tmp_path / "run", "aug=drophead", "aug.span_k=0")
    assert metrics(tmp_path / "run")["views"]["view_cosine"] < 1
    assert not any(module._forward_pre_hooks for module in encoder.backbone.modules())


def test_official_recipe(tiny_bert: Path, tmp_path: Path) -> None:
    encoder = go(tiny_bert, tmp_path / "run", "experiment=official", "eval=none", "batch.size=20")
    content = metrics(tmp_path / "run")
    assert content["config"]["model"]["pooling"] == "mean_padded"
    assert content["steps"] == 2  # the last 8 texts are dropped
    assert encoder.layout.pad_to == 50
    loaded = MirrorEncoder.load(tmp_path / "run" / "encoder")
    np.testing.assert_allclose(loaded.encode(SENTENCES[:5]), encoder.encode(SENTENCES[:5]), atol=1e-6)


def test_given_pairs(tiny_bert: Path, tmp_path: Path) -> None:
    """They differ by themselves, so neither dropout nor masks are needed."""
    pairs = list(zip(SENTENCES[:24], SENTENCES[24:48], strict=True))
    go(tiny_bert, tmp_path / "run", "aug=none", "aug.dropout=0", texts=pairs)
    content = metrics(tmp_path / "run")
    assert content["data"]["kept"] == 24
    assert {tuple(example) for example in content["views"]["examples"]} <= set(pairs)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_select_best_keeps_the_best(precision: str, tiny_bert: Path, tmp_path: Path) -> None:
    """The validation set asks for the similarities of the raw model: every step away from it makes the score worse.
    However a run computes, the score that was best is the score of what is kept."""
    raw = MirrorEncoder.load(tiny_bert)
    (tmp_path / "sts").mkdir()
    lines = ["score\tsentence1\tsentence2"]
    for a, b in zip(SENTENCES[:60], SENTENCES[100:160], strict=True):
        lines.append(f"{raw.similarity(a, b).item():.6f}\t{a}\t{b}")
    (tmp_path / "sts" / "stsb-dev.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")

    overrides = ["select=best", f"eval.data_dir='{tmp_path}'", "eval.every=1", f"trainer.precision={precision}"]
    best = go(tiny_bert, tmp_path / "run", *overrides)
    watched = curve(tmp_path / "run", "val/stsb-dev")
    assert len(watched) == 3
    assert max(watched) - watched[-1] > 1
    (validation,) = load_sets(["stsb-dev"], str(tmp_path))
    assert validation.score(best.encode).value == pytest.approx(max(watched), abs=0.01)
    saved = MirrorEncoder.load(tmp_path / "run" / "encoder")
    assert validation.score(saved.encode).value == pytest.approx(max(watched), abs=0.01)
    assert not (tmp_path / "run" / "best").exists()


@pytest.mark.parametrize(("every", "expected"), [(1, [1, 2, 3]), (2, [2, 3]), (3, [3]), (10, [3])])
def test_the_last_weights_are_validated_too(
    every: int, expected: list[int], tiny_bert: Path, eval_dir: Path, tmp_path: Path
) -> None:
    """Three steps."""
    go(tiny_bert, tmp_path / "run", "select=best", f"eval.data_dir='{eval_dir}'", f"eval.every={every}")
    assert [step for step, _ in by_step(tmp_path / "run", "val/stsb-dev")] == expected


def test_a_curve_of_scores(tiny_bert: Path, eval_dir: Path, tmp_path: Path) -> None:
    """Changes nothing of what is learnt, and ends with the score of the encoder."""
    data = f"eval.data_dir='{eval_dir}'"
    plain = go(tiny_bert, tmp_path / "plain", data)
    watched = go(tiny_bert, tmp_path / "run", data, "eval=stsb", "eval.curve=stsb-test", "eval.every=2")
    assert not any((a != b).any() for a, b in zip(plain.parameters(), watched.parameters(), strict=True))
    scores = by_step(tmp_path / "run", "val/stsb-test")
    assert [step for step, _ in scores] == [2, 3]
    tuned = metrics(tmp_path / "run")["scores"]["tuned"]["stsb-test"]["all"]
    assert scores[-1][1] == pytest.approx(tuned, abs=0.01)


def test_warnings_about_the_texts(tiny_bert: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Fewer than asked for, and fewer than a batch."""
    texts = [*SENTENCES[:10], *SENTENCES[:3], "", "  "]
    with caplog.at_level(logging.WARNING):
        go(tiny_bert, tmp_path / "run", texts=texts)
    assert "Fewer texts than data.size=48, all are used" in caplog.text
    assert "15 read, 2 empty, 3 duplicate, 10 kept" in caplog.text
    assert "Fewer texts (10) than batch.size=16" in caplog.text
    assert metrics(tmp_path / "run")["steps"] == 1


def test_no_warning_without_a_reason(tiny_bert: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        go(tiny_bert, tmp_path / "run")
    assert caplog.text == ""


@pytest.mark.parametrize(("rate", "flat"), [("1e-8", True), ("1e-3", False)])
def test_flat_loss(rate: str, flat: bool, tiny_bert: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    # All texts in each batch, no dropout and no masks: nothing but the weights can change the loss.
    overrides = ("aug=none", "aug.dropout=0", "batch.size=48", "trainer.max_epochs=10", f"optim.lr={rate}")
    go(tiny_bert, tmp_path / "run", *overrides, texts=list(pairwise(SENTENCES)))
    assert ("The loss hardly moved" in caplog.text) is flat
    assert (f"optim.lr={float(rate):g}" in caplog.text) is flat


def test_flat_loss_is_told_halfway(
    tiny_bert: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, while there is still something to save."""
    told: list[int] = []

    def step(self: MirrorModule, *arguments: Any) -> None:
        told.append(caplog.text.count("The loss hardly moved"))

    monkeypatch.setattr(MirrorModule, "on_train_batch_start", step)
    overrides = ("aug=none", "aug.dropout=0", "batch.size=48", "trainer.max_epochs=24", "optim.lr=1e-8")
    go(tiny_bert, tmp_path / "run", *overrides, texts=list(pairwise(SENTENCES)))
    assert told == [0] * 12 + [1] * 12
    assert caplog.text.count("The loss hardly moved in half of the 24 steps") == caplog.text.count("hardly moved") == 1


@pytest.mark.parametrize("pooling", ["first_last", "layers"])
def test_fsdp_refuses_poolings_of_layers_before_anything_is_measured(
    pooling: str, tiny_bert: Path, eval_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    overrides = ["trainer=fsdp", "trainer.accelerator=cpu", f"model.pooling={pooling}", "eval=stsb"]
    with (
        caplog.at_level(logging.INFO),
        pytest.raises(MirrorError, match=f"trainer=fsdp hides the layers that model.pooling={pooling} reads"),
    ):
        go(tiny_bert, tmp_path / "run", *overrides, f"eval.data_dir='{eval_dir}'")
    assert "measuring" not in caplog.text


def test_fsdp_refuses_added_weights_before_anything_is_measured(
    tiny_bert: Path, eval_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    overrides = ["trainer=fsdp", "trainer.accelerator=cpu", "adapt=lora", "model.pooling=mean", "eval=stsb"]
    with caplog.at_level(logging.INFO), pytest.raises(MirrorError, match="trainer=fsdp shares no added weights out"):
        go(tiny_bert, tmp_path / "run", *overrides, f"eval.data_dir='{eval_dir}'")
    assert "measuring" not in caplog.text


def test_a_folder_with_an_encoder_is_refused_before_anything_is_read(tiny_bert: Path, tmp_path: Path) -> None:
    (tmp_path / "encoder").mkdir()
    with pytest.raises(MirrorError, match="encoder exists already: nothing is overwritten"):
        train(small(tiny_bert, "data.path=nothing.txt"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["encoder"]


@pytest.mark.parametrize("followed", [["eval.curve=nosuch"], ["select=best", "eval.validation=nosuch"]])
def test_no_such_set_to_follow(followed: list[str], tiny_bert: Path, eval_dir: Path, tmp_path: Path) -> None:
    setting = followed[-1].partition("=")[0]
    with pytest.raises(MirrorError, match=f"^{setting} has 'nosuch', which is no set; choose among sts12"):
        go(tiny_bert, tmp_path / "run", "eval=stsb", f"eval.data_dir='{eval_dir}'", *followed)


def test_the_set_to_follow_is_not_the_one_of_the_best(tiny_bert: Path, eval_dir: Path, tmp_path: Path) -> None:
    """``eval.validation`` is read by ``select=best`` alone."""
    followed = ["eval.curve=stsb-test", "eval.validation=nosuch", "eval.every=1"]
    go(tiny_bert, tmp_path / "run", f"eval.data_dir='{eval_dir}'", *followed)
    assert len(curve(tmp_path / "run", "val/stsb-test")) == 3


def test_tuning_that_harms_is_told(
    tiny_bert: Path, eval_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    go(tiny_bert, tmp_path / "run", "eval=stsb", f"eval.data_dir='{eval_dir}'", "optim.lr=0.03")
    scores = metrics(tmp_path / "run")["scores"]
    raw = {name: max(scores[row][name]["all"] for row in ("raw cls", "raw mean")) for name in scores["tuned"]}
    worse = [name for name, score in scores["tuned"].items() if score["all"] < raw[name]]
    assert worse
    assert f"Lower than the untouched model on {', '.join(worse)}:" in caplog.text


def test_without_test_sets_the_run_goes_on(
    tiny_bert: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    go(tiny_bert, tmp_path / "run", "eval=stsb")
    assert "NOT MEASURED" in caplog.text
    assert "eval.data_dir" in caplog.text
    assert metrics(tmp_path / "run")["status"] == "finished"
    assert metrics(tmp_path / "run")["scores"] == {}


def test_missing_file_in_a_given_eval_folder_stops_the_run(tiny_bert: Path, eval_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(MirrorError, match=r"lacks sts/sickr-test.tsv"):
        go(tiny_bert, tmp_path / "run", "eval.sets=[stsb-dev,sickr-test]", f"eval.data_dir='{eval_dir}'")
    assert_failed(tmp_path / "run", "lacks sts/sickr-test.tsv")


def assert_failed(folder: Path, reason: str, status: str = "failed") -> None:
    content = metrics(folder)
    assert content["status"] == status
    assert reason in content["error"]
    assert not (folder / "encoder").exists()
    assert not list(folder.rglob(f"{SCRATCH}*"))


def test_loss_not_finite(tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step that is named is the step that went wrong, counted from 1."""
    calls = 0

    def second_is_nan(*args: Any, **kwargs: Any) -> Tensor:
        nonlocal calls
        calls += 1
        loss: Tensor = info_nce(*args, **kwargs)
        return loss * float("nan") if calls == 2 else loss

    monkeypatch.setattr("mirror.losses.infonce.info_nce", second_is_nan)
    with pytest.raises(MirrorError, match=r"loss is nan at step 2: lower optim\.lr"):
        go(tiny_bert, tmp_path / "run")
    assert_failed(tmp_path / "run", "nan at step 2")
    assert calls == 2


def test_weights_that_are_not_finite_are_never_saved(tiny_bert: Path, tmp_path: Path) -> None:
    """The loss of the last step is finite, what that step makes of the weights is not, and nothing is measured."""
    steps = 0

    def poison(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        nonlocal steps
        steps += 1
        if steps == 3:
            optimizer.param_groups[0]["params"][0].data.fill_(float("nan"))

    hook = register_optimizer_step_post_hook(poison)
    try:
        with pytest.raises(MirrorError, match="not finite"):
            go(tiny_bert, tmp_path / "run")
    finally:
        hook.remove()
    assert_failed(tmp_path / "run", "not finite")


def test_disk_full_while_saving(tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import PreTrainedTokenizerFast

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(PreTrainedTokenizerFast, "save_pretrained", full)  # after the weights are written
    with pytest.raises(MirrorError, match="No space left on device"):
        go(tiny_bert, tmp_path / "run")
    assert_failed(tmp_path / "run", "No space left on device")
    assert len(curve(tmp_path / "run")) == 3


def test_interrupted_while_saving(tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import PreTrainedTokenizerFast

    def stop(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(PreTrainedTokenizerFast, "save_pretrained", stop)
    with pytest.raises(KeyboardInterrupt):
        go(tiny_bert, tmp_path / "run")
    assert_failed(tmp_path / "run", "stopped by the user", status="interrupted")


def test_ctrl_c_in_the_middle(tiny_bert: Path, tmp_path: Path) -> None:
    """What was finished stays readable, and nobody sees a traceback."""
    (tmp_path / "texts.txt").write_text("\n".join(SENTENCES), encoding="utf-8")
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), f"model.path={tiny_bert}", *THREE_STEPS]
    run = subprocess.Popen(
        [*command, "data.path=texts.txt", "trainer.max_epochs=100000", "hydra.run.dir=run"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        # Tests that run in a shell's background inherit an ignored interrupt.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        losses = tmp_path / "run" / "curve" / "metrics.csv"
        while run.poll() is None and not (losses.exists() and losses.read_text(encoding="utf-8").count("\n") > 10):
            time.sleep(0.05)
        run.send_signal(signal.SIGINT)
        _, printed = run.communicate(timeout=120)
    finally:
        run.kill()
    assert run.returncode != 0
    assert "Traceback" not in printed
    assert_failed(tmp_path / "run", "stopped by the user", status="interrupted")
    assert len(curve(tmp_path / "run")) >= 10


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory and the place of temporary files, which must both be empty in the end."""
    for name in ("cwd", "tmp"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    yield tmp_path
    assert list((tmp_path / "cwd").iterdir()) == []
    assert list((tmp_path / "tmp").iterdir()) == []


def test_mirror_tune_in_one_call(tiny_bert: Path, scratch: Path) -> None:
    overrides = ["task=word", "trainer.progress=false", "trainer.max_steps=2", "batch.size=16"]
    encoder = mirror_tune(str(tiny_bert), SENTENCES, overrides)
    assert encoder.encode(["guitar", "oranges"]).shape == (2, 32)
    assert not equal(weights(encoder), weights(MirrorEncoder.load(tiny_bert)))


def test_mirror_tune_leaves_the_run_where_asked(tiny_bert: Path, tmp_path: Path) -> None:
    texts = SENTENCES[:20]
    encoder = mirror_tune(str(tiny_bert), texts, ["task=word", "trainer.progress=false"], output=tmp_path / "run")
    content = metrics(tmp_path / "run")
    assert content["config"]["loss"]["temperature"] == 0.2
    assert content["config"]["aug"]["span_k"] == 0
    assert content["data"]["kept"] == 20
    loaded = MirrorEncoder.load(tmp_path / "run" / "encoder")
    np.testing.assert_allclose(loaded.encode(texts), encoder.encode(texts), atol=1e-6)
    with pytest.raises(MirrorError, match="exists already"):
        mirror_tune(str(tiny_bert), texts, output=tmp_path / "run")


@pytest.mark.parametrize(
    ("model", "texts", "overrides", "reason"),
    [
        ("/no/such/model", SENTENCES, [], "does not exist"),
        ("it's/no/model", SENTENCES, [], "does not exist"),
        (None, [], [], "too few texts"),
        (None, ["the same", "the same"], [], "too few texts"),
        (None, ["a text", 3], [], r"texts\[1\]"),
        (None, SENTENCES, ["aug.span_kk=3"], "span_kk"),
        (None, SENTENCES, ["task=poem"], "poem"),
        (None, SENTENCES, ["aug.span_k=0", "aug.dropout=0"], "views of a text are the same"),
        (None, SENTENCES, ["batch.max_tokens=200"], "more than the 128"),
        (None, SENTENCES, ["trainer.precision=fp16", "trainer=cpu"], "needs a GPU"),
    ],
)
def test_mirror_tune_refuses(
    tiny_bert: Path, scratch: Path, model: str | None, texts: list[Any], overrides: list[str], reason: str
) -> None:
    with pytest.raises(MirrorError, match=reason):
        mirror_tune(model or str(tiny_bert), texts, ["trainer.progress=false", *overrides])


def test_mirror_tune_inside_a_hydra_application(tiny_bert: Path, tmp_path: Path) -> None:
    """The caller's own configuration search is the same afterwards, also after a mistake."""
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    (tmp_path / "theirs.yaml").write_text("answer: 42\n", encoding="utf-8")
    with hydra.initialize_config_dir(str(tmp_path), version_base="1.3"):
        running = GlobalHydra.instance().hydra
        mirror_tune(str(tiny_bert), SENTENCES[:16], ["trainer.progress=false"])
        with pytest.raises(MirrorError):
            mirror_tune(str(tiny_bert), SENTENCES[:16], ["task=poem"])
        assert GlobalHydra.instance().hydra is running
        assert hydra.compose("theirs").answer == 42


def test_max_steps_and_epochs(tiny_bert: Path, tmp_path: Path) -> None:
    go(tiny_bert, tmp_path / "two", "trainer.max_steps=2")
    assert metrics(tmp_path / "two")["steps"] == 2
    go(tiny_bert, tmp_path / "epochs", "trainer.max_epochs=2", "batch.drop_last=true", "data.size=40")
    assert metrics(tmp_path / "epochs")["steps"] == 4
