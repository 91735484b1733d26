"""Whole pre-training runs on a tiny model: what they leave, how they go on after a stop, how they fail."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from mirror import MirrorEncoder, MirrorError
from mirror.config import PretrainConfig
from mirror.config.compose import compose, resumed
from mirror.pretraining import run as pretraining_run
from mirror.pretraining.module import PretrainModule
from mirror.pretraining.run import pretrain
from mirror.runs.record import by_step
from tests.architectures import build
from tests.conftest import SENTENCES, files_no_larger_than

SMALL = [
    "size=tiny", "model.hidden=32", "model.intermediate=64", "tokenizer.vocab_size=150", "batch.tokens=300",
    "batch.max_tokens=32", "held_out.texts=20", "held_out.every=5", "trainer=cpu", "trainer.progress=false",
    "trainer.max_steps=12", "checkpoint_every=5", "schedule.warmup_steps=2", "trainer.precision=fp32",
]  # fmt: skip


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_text("\n".join([*SENTENCES, " ".join(SENTENCES[:20])]), encoding="utf-8")
    return path


def small(texts: Path, *overrides: str) -> PretrainConfig:
    config = compose("pretrain", [*SMALL, f"data.path={texts}", *overrides])
    assert isinstance(config, PretrainConfig)
    return config


def go(texts: Path, folder: Path, *overrides: str) -> dict[str, torch.Tensor]:
    """The weights that a run ends with."""
    folder.mkdir(parents=True, exist_ok=True)
    pretrain(small(texts, *overrides), folder)
    return weights(folder)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = AutoModelForMaskedLM.from_pretrained(folder / "model").state_dict()
    return state


def metrics(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return content


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_what_a_run_leaves(kind: str, texts: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    go(texts, folder, f"tokenizer={kind}", f"tokenizer.vocab_size={150 if kind == 'wordpiece' else 300}")
    assert {path.name for path in folder.iterdir()} == {"metrics.json", "curve", "model"}
    left = metrics(folder)
    assert (left["status"], left["steps"], left["data"]["held out"]) == ("finished", 12, 20)
    assert list(left["perplexity"]) == ["5", "10"]
    card = (folder / "model" / "README.md").read_text(encoding="utf-8")
    for said in ("corpus.txt", "12 steps of 300", "80% masked, 10% random, 10% as they are", "| 12 |", "seed | 42"):
        assert said in card
    model = AutoModelForMaskedLM.from_pretrained(folder / "model")
    assert model.config.model_type == {"wordpiece": "bert", "bpe": "roberta"}[kind]
    assert AutoTokenizer.from_pretrained(folder / "model").mask_token_id is not None
    encoder = MirrorEncoder.load(folder / "model", "mean")
    assert encoder.encode(SENTENCES[:3]).shape == (3, 32)
    assert encoder.layout.first_position(64) is not None


def test_the_loss_falls(texts: Path, tmp_path: Path) -> None:
    go(texts, tmp_path / "run", "trainer.max_steps=150", "held_out.every=15", "optim.lr=5e-3")
    first, *_, last = metrics(tmp_path / "run")["perplexity"].values()
    assert last < 0.7 * first
    assert last < 30  # of a vocabulary of 150


@pytest.mark.parametrize("last", ["average_last=4", "average_last=0.35", "average_last=100"])
def test_averaged_weights(last: str, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is saved is the mean, added up here, of a run that goes on from its own weights."""
    seen: list[dict[str, torch.Tensor]] = []
    end = PretrainModule.on_train_batch_end

    def note(self: PretrainModule, *arguments: Any) -> None:
        seen.append({name: weights.detach().clone() for name, weights in self.model.named_parameters()})
        end(self, *arguments)

    monkeypatch.setattr(PretrainModule, "on_train_batch_end", note)
    go(texts, tmp_path / "plain", "schedule=constant")
    plain, seen = seen, []
    saved = go(texts, tmp_path / "run", "schedule=constant", last)
    assert all(torch.equal(one[name], other[name]) for one, other in zip(plain, seen, strict=True) for name in one)
    count = {"average_last=4": 4, "average_last=0.35": 4, "average_last=100": 12}[last]
    for name in seen[0]:
        torch.testing.assert_close(saved[name], torch.stack([step[name] for step in seen[-count:]]).mean(0))
    assert not torch.equal(saved[name], seen[-1][name])
    assert list(metrics(tmp_path / "run")["perplexity"]) == ["5", "10"]
    assert metrics(tmp_path / "run")["perplexity"]["10"] != metrics(tmp_path / "plain")["perplexity"]["10"]
    card = (tmp_path / "run" / "model" / "README.md").read_text(encoding="utf-8")
    assert "mean over the last" in card


def test_stopped_while_the_mean_is_measured(texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoint has the weights that the run goes on from, not the mean."""
    options = ["schedule=constant", "average_last=10"]
    whole = go(texts, tmp_path / "whole", *options)
    folder = tmp_path / "stopped"
    folder.mkdir()

    def stop(self: PretrainModule, *arguments: Any) -> None:
        if self.global_step == 10:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(PretrainModule, "validation_step", stop)
        with pytest.raises(KeyboardInterrupt):
            pretrain(small(texts, *options), folder)
    assert (folder / "checkpoints" / "step=10.ckpt").exists()
    pretrain(resumed("pretrain", folder, [f"resume={folder}"]), folder)
    after = weights(folder)
    assert all(torch.equal(whole[name], after[name]) for name in whole)


def test_loss_not_finite(texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the bags alone: the loss of the masked tokens is finite still, for the weights are sound."""
    bags = PretrainModule._bags
    steps = iter(range(1, 13))

    def last_is_nan(self: PretrainModule, *arguments: Any) -> torch.Tensor:
        return bags(self, *arguments) * (float("nan") if next(steps) == 12 else 1)

    monkeypatch.setattr(PretrainModule, "_bags", last_is_nan)
    with pytest.raises(MirrorError, match=r"loss is nan at step 12: lower optim\.lr"):
        go(texts, tmp_path / "run", "bag_of_words=1")
    assert not (tmp_path / "run" / "model").exists()


def test_the_loss_of_the_bags_of_words_falls(texts: Path, tmp_path: Path) -> None:
    """Beside a run that looks at it and hardly learns from it."""
    for name, weight in (("run", 1.0), ("looking", 1e-6)):
        go(texts, tmp_path / name, "trainer.max_steps=100", "optim.lr=5e-3", f"bag_of_words={weight}")
    (*_, learnt), (*_, seen) = by_step(tmp_path / "run", "bag_of_words"), by_step(tmp_path / "looking", "bag_of_words")
    assert learnt[1] < seen[1] - 0.2
    *_, (step, masked) = by_step(tmp_path / "run", "loss")
    assert step == 99  # counted from 0
    assert metrics(tmp_path / "run")["loss"]["last"] == pytest.approx(masked)  # without the bags
    card = (tmp_path / "run" / "model" / "README.md").read_text(encoding="utf-8")
    assert "weight 1.0" in card


@pytest.mark.parametrize(
    "options",
    [
        ["model.dropout=0"],
        ["model.dropout=0.1", "bag_of_words=1"],
        ["bag_of_words=1", "trainer.precision=bf16"],
        ["masking.share=0.3", "masking.final_share=0.15", "average_last=6"],
    ],
    ids=str,
)
@pytest.mark.parametrize("kept", ["at the stop", "by the clock"])
def test_resumed_is_uninterrupted(
    kept: str, options: list[str], texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = go(texts, tmp_path / "whole", *options)

    def stop(self: PretrainModule, *arguments: Any) -> None:
        if self.global_step == 8:
            raise KeyboardInterrupt

    folder = tmp_path / "stopped"
    folder.mkdir()
    with monkeypatch.context() as patched:
        patched.setattr(PretrainModule, "on_train_batch_end", stop)
        with pytest.raises(KeyboardInterrupt):
            pretrain(small(texts, *options), folder)
    assert metrics(folder)["status"] == "interrupted"
    saved = {path.name for path in (folder / "checkpoints").iterdir()}
    assert saved == {"step=5.ckpt", "step=8.ckpt"}
    if kept == "by the clock":  # as after a kill
        (folder / "checkpoints" / "step=8.ckpt").unlink()
    pretrain(resumed("pretrain", folder, [f"resume={folder}"]), folder)
    after = weights(folder)
    assert all(torch.equal(whole[name], after[name]) for name in whole)
    assert metrics(folder)["status"] == "finished"
    assert metrics(folder)["perplexity"] == metrics(tmp_path / "whole")["perplexity"]
    assert [*metrics(folder)["perplexity"]] == ["5", "10"]
    assert not (folder / "checkpoints").exists()


def stopped(texts: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> Path:
    """A run that was stopped at step 8."""

    def stop(self: PretrainModule, *arguments: Any) -> None:
        if self.global_step == 8:
            raise KeyboardInterrupt

    folder.mkdir()
    with monkeypatch.context() as patched:
        patched.setattr(PretrainModule, "on_train_batch_end", stop)
        with pytest.raises(KeyboardInterrupt):
            pretrain(small(texts, *overrides), folder)
    return folder


def test_damaged_checkpoint(texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = stopped(texts, tmp_path / "run", monkeypatch)
    newest = folder / "checkpoints" / "step=8.ckpt"
    newest.write_bytes(newest.read_bytes()[:1000])
    config = resumed("pretrain", folder, [f"resume={folder}"])
    with pytest.raises(MirrorError, match=r"step=8\.ckpt is damaged: delete it to go on from the one before"):
        pretrain(config, folder)
    newest.unlink()
    pretrain(config, folder)
    assert metrics(folder)["status"] == "finished"


def test_checkpoint_with_a_few_wrong_bytes(texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch would load them as weights."""
    folder = stopped(texts, tmp_path / "run", monkeypatch)
    newest = folder / "checkpoints" / "step=8.ckpt"
    content = bytearray(newest.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 400] = bytes(byte ^ 255 for byte in content[middle : middle + 400])
    newest.write_bytes(content)
    with pytest.raises(MirrorError, match=r"step=8\.ckpt is damaged"):
        pretrain(resumed("pretrain", folder, [f"resume={folder}"]), folder)


def test_other_text_at_the_same_path(texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = stopped(texts, tmp_path / "run", monkeypatch)
    original = texts.read_text(encoding="utf-8")
    texts.write_text("\n".join(SENTENCES[:200]), encoding="utf-8")
    for _ in range(2):
        with pytest.raises(MirrorError, match="is not the one that the run began with"):
            pretrain(resumed("pretrain", folder, [f"resume={folder}"]), folder)
    texts.write_text(original, encoding="utf-8")
    pretrain(resumed("pretrain", folder, [f"resume={folder}"]), folder)
    assert metrics(folder)["status"] == "finished"


def test_settings_that_a_run_cannot_change(texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = stopped(texts, tmp_path / "run", monkeypatch)
    with pytest.raises(MirrorError, match=r"model\.layers=3 cannot be changed by resume="):
        resumed("pretrain", folder, [f"resume={folder}", "model.layers=3"])
    assert resumed("pretrain", folder, [f"resume={folder}", "trainer.max_steps=14"]).trainer.max_steps == 14


def test_a_stable_rate_may_fall_whenever_one_likes(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run planned longer and cut short is the run that was planned short, and its card says how to repeat it."""
    typed = ["schedule=wsd", "trainer.max_steps=12"]
    whole = go(texts, tmp_path / "whole", *typed)
    monkeypatch.setattr("sys.argv", ["pretrain.py", "schedule=wsd", "trainer.max_steps=90"])
    folder = stopped(texts, tmp_path / "run", monkeypatch, "schedule=wsd", "trainer.max_steps=90")
    monkeypatch.setattr("sys.argv", ["pretrain.py", f"resume={folder}", "trainer.max_steps=12"])
    pretrain(resumed("pretrain", folder, [f"resume={folder}", "trainer.max_steps=12"]), folder)
    after = weights(folder)
    assert all(torch.equal(whole[name], after[name]) for name in whole)
    card = (folder / "model" / "README.md").read_text(encoding="utf-8")
    assert f"\npython scripts/pretrain.py {' '.join(typed)}\n" in card


def test_folder_without_a_checkpoint(texts: Path, tmp_path: Path) -> None:
    go(texts, tmp_path / "run")
    with pytest.raises(MirrorError, match="has no checkpoint"):
        pretrain(resumed("pretrain", tmp_path / "run", [f"resume={tmp_path / 'run'}"]), tmp_path / "run")


def test_continues_from_a_model(texts: Path, tiny_bert: Path, tmp_path: Path) -> None:
    """Domain adaptation: the model's sizes and its tokenizer stand."""
    before = AutoModelForMaskedLM.from_pretrained(tiny_bert).state_dict()
    after = go(texts, tmp_path / "run", f"model.path={tiny_bert}", "optim.lr=1e-5", "trainer.max_steps=3")
    assert all(before[name].shape == after[name].shape for name in before)
    moved = max(float((after[name] - before[name]).abs().max()) for name in before)
    assert 0 < moved < 1e-4
    vocabulary = AutoTokenizer.from_pretrained(tmp_path / "run" / "model").get_vocab()
    assert vocabulary == AutoTokenizer.from_pretrained(tiny_bert).get_vocab()


def test_workers_make_no_difference(texts: Path, tmp_path: Path) -> None:
    one, two = (go(texts, tmp_path / f"{workers}", f"batch.workers={workers}") for workers in (0, 2))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_half_precision(texts: Path, tmp_path: Path) -> None:
    go(texts, tmp_path / "run", "half=true")
    assert AutoModelForMaskedLM.from_pretrained(tmp_path / "run" / "model").dtype is torch.float16
    assert MirrorEncoder.load(tmp_path / "run" / "model").backbone.dtype is torch.float32


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["tokenizer.vocab_size=5000"], r"tokenizer\.vocab_size=5000 is more than the text supports"),
        (["batch.tokens=100000"], r"less than one batch of batch\.tokens=100,000"),
        (["tokenizer.path=nowhere"], r"tokenizer\.path=nowhere is no local folder, and the hub cannot be reached"),
        (["tokenizer.path=bundled:nothing"], r"tokenizer\.path=bundled:nothing is not in this package"),
        (["model.hidden=150"], r"model\.start=ppmi cannot make vectors of model\.hidden=150 .* 150 entries"),
        (
            ["model.path=bundled:mini", "batch.max_tokens=513", "batch.tokens=600", "model.positions=1024"],
            r"batch\.max_tokens=513 is more than the 512 tokens that model\.path=bundled:mini takes",
        ),
        (["model.path=./nowhere"], r"model\.path=\./nowhere"),
    ],
)
def test_refuses(overrides: list[str], reason: str, texts: Path, tmp_path: Path) -> None:
    with pytest.raises(MirrorError, match=reason):
        go(texts, tmp_path / "run", *overrides)
    assert metrics(tmp_path / "run")["status"] == "failed"
    assert not (tmp_path / "run" / "model").exists()


def test_tokenizer_that_does_not_fit_the_model(texts: Path, tiny_bert: Path, tmp_path: Path) -> None:
    go(texts, tmp_path / "run", "tokenizer.vocab_size=100")
    small_model, large = tmp_path / "run" / "model", tiny_bert
    with pytest.raises(MirrorError, match="they do not belong together"):
        go(texts, tmp_path / "second", f"model.path={small_model}", f"tokenizer.path={large}")


def test_a_type_of_model_that_fills_no_masks(texts: Path, tmp_path: Path) -> None:
    with pytest.raises(MirrorError, match="cannot be trained to fill in masks"):
        go(texts, tmp_path / "run", f"model.path={build('xlnet', tmp_path / 'xlnet')}")


def test_a_model_without_its_head(
    texts: Path, tiny_bert: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An encoder was saved without it: what begins at random is told."""
    MirrorEncoder.load(tiny_bert).save(tmp_path / "encoder")
    with caplog.at_level("WARNING"):
        go(texts, tmp_path / "run", f"model.path={tmp_path / 'encoder'}", "trainer.max_steps=1")
    assert "comes without cls.predictions" in caplog.text


def test_a_model_without_a_layer(texts: Path, tiny_bert: Path, tmp_path: Path) -> None:
    """Only the head may begin at random."""
    model = shutil.copytree(tiny_bert, tmp_path / "model")
    settings = json.loads((model / "config.json").read_text(encoding="utf-8"))
    (model / "config.json").write_text(json.dumps(settings | {"num_hidden_layers": 3}), encoding="utf-8")
    with pytest.raises(MirrorError, match=r"model\.path=.* lacks weights .*\(encoder\.layer\.2\.attention"):
        go(texts, tmp_path / "run", f"model.path={model}")


@pytest.mark.parametrize("sizes", [["model.hidden=33", "model.heads=3"], ["model.positions=40", "batch.max_tokens=40"]])
def test_odd_sizes(sizes: list[str], texts: Path, tmp_path: Path) -> None:
    """A width that sinusoids do not come in; fewer positions than a row is wide."""
    go(texts, tmp_path / "run", *sizes, "trainer.max_steps=1")
    assert metrics(tmp_path / "run")["status"] == "finished"


def test_disk_full_at_a_checkpoint(texts: Path, tmp_path: Path) -> None:
    """The run ends in one sentence, which sends nobody back to a checkpoint that is not there."""
    folder = tmp_path / "run"
    folder.mkdir()
    with pytest.raises(MirrorError, match="free some space, then start again"), files_no_larger_than(100_000):
        pretrain(small(texts, "checkpoint_every=5"), folder)
    assert metrics(folder)["status"] == "failed"
    assert list((folder / "checkpoints").glob("*")) == []


def test_disk_full_at_a_later_checkpoint(texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the run had is whole, and it goes on where there is room again."""
    folder = stopped(texts, tmp_path / "run", monkeypatch)
    config = resumed("pretrain", folder, [f"resume={folder}"])
    with pytest.raises(MirrorError, match="free some space, then go on with resume="), files_no_larger_than(100_000):
        pretrain(config, folder)
    pretrain(config, folder)
    assert metrics(folder)["status"] == "finished"


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("phase", ["fill", "_save"])
def test_stopped_in_a_phase_after_the_training(
    phase: str, when: str, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on from the end of the training, with the result of a run that never stopped."""
    whole = go(texts, tmp_path / "whole", "held_out.texts=0")
    owner: Any = PretrainModule if phase == "fill" else pretraining_run
    real = getattr(owner, phase)

    def stop(*arguments: Any, **settings: Any) -> None:
        if when == "after":
            real(*arguments, **settings)
        raise KeyboardInterrupt

    folder = tmp_path / "stopped"
    with monkeypatch.context() as patched:
        patched.setattr(owner, phase, stop)
        with pytest.raises(KeyboardInterrupt):
            go(texts, folder, "held_out.texts=0")
    assert metrics(folder)["status"] == "interrupted"
    trained: list[Any] = []
    with monkeypatch.context() as patched:
        patched.setattr(PretrainModule, "training_step", lambda self, *batch: trained.append(batch))
        pretrain(resumed("pretrain", folder, [f"resume={folder}"]), folder)
    assert not trained
    after = weights(folder)
    assert all(torch.equal(whole[name], after[name]) for name in whole)
    for key in ("status", "steps", "loss", "tokens", "fill", "perplexity"):
        assert metrics(folder)[key] == metrics(tmp_path / "whole")[key], key
    assert by_step(folder) == by_step(tmp_path / "whole")
    cards = [(place / "model" / "README.md").read_text(encoding="utf-8") for place in (folder, tmp_path / "whole")]
    assert cards[0] == cards[1]
    assert {path.name for path in folder.iterdir()} == {"metrics.json", "curve", "model"}


def test_a_full_disk_at_the_model_s_save_loses_nothing(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = pretraining_run._save

    def save(*arguments: Any, **settings: Any) -> None:
        with files_no_larger_than(20_000):
            real(*arguments, **settings)

    folder = tmp_path / "full"
    with monkeypatch.context() as patched:
        patched.setattr(pretraining_run, "_save", save)
        with pytest.raises(MirrorError, match="free some space, then go on with resume="):
            go(texts, folder)
    pretrain(resumed("pretrain", folder, [f"resume={folder}"]), folder)
    assert metrics(folder)["status"] == "finished"
