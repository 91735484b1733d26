"""One Python file and one YAML file outside the package, for each seam: a run to its end, and resumed."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mirror import MirrorEncoder, MirrorError
from mirror.config.compose import settings
from mirror.runs.record import by_step
from mirror.training.parts import check_parts
from mirror.training.run import train
from tests.conftest import SENTENCES
from tests.helpers import SMALL, stop_and_resume

YAMLS = {
    "loss": ("loss/mine.yaml", "_target_: own_package.Margin\nmargin: 0.2\n"),
    "second encoder": ("loss/mine.yaml", "_target_: own_package.Teacher\nmomentum: 0.5\n"),
    "head": ("head/mine.yaml", "_target_: torch.nn.Linear\nin_features: 32\nout_features: 7\n"),
    "pooling": ("model/pooling/mine.yaml", "_target_: own_package.Attention\nheat: 0.5\n"),
    "perturbation": ("perturb/mine.yaml", "_target_: own_package.Noise\nsize: 0.3\n"),
    "views": ("aug/mine.yaml", "_target_: own_package.Shuffle\nshare: 0.9\ndropout: 0.1\ndrophead: 0.0\n"),
    "adaptation": ("adapt/mine.yaml", "_target_: own_package.Alternating\nfirst: false\n"),
    "optimizer": ("optim/mine.yaml", "_target_: torch.optim.SGD\nlr: 0.1\nmomentum: 0.9\n"),
    "schedule": ("schedule/mine.yaml", "_target_: torch.optim.lr_scheduler.StepLR\nstep_size: 2\ngamma: 0.5\n"),
    "post-processing": ("post/mine.yaml", "_target_: own_package.centred\nscale: 2.0\n"),
    "source": ("data/mine.yaml", "source:\n  _target_: own_package.numbers\n  folder: texts\n"),
    "kind of test set": ("eval/mine.yaml", "kinds: [own_package]\nsets: [odd.tsv]\n"),
}
"""A file of the user's own ``--config-dir`` for each seam."""
UNTRAINED = ("post-processing", "source", "kind of test set")
"""Seams whose part here leaves the training as it is: the source gives the file's texts."""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of a user's own, with a package, texts and a test set in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    shutil.copy(Path(__file__).parent / "own" / "parts.py", tmp_path / "own_package.py")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("\n".join(SENTENCES[:100]) + "\n")
    rows = [f"{SENTENCES[i + 100]}\t{SENTENCES[i]}\t{SENTENCES[i + 1]}" for i in range(12)]
    (tmp_path / "odd.tsv").write_text("\n".join(["odd\tone\tother", *rows]) + "\n")
    return tmp_path


def composed(own: Path, model: Path, *typed: str) -> Any:
    """The settings, with the user's folder on Hydra's search path, as ``--config-dir`` puts it there."""
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    from mirror.config.compose import CONF, register_schemas

    register_schemas()
    GlobalHydra.instance().clear()
    path = f"hydra.searchpath=[file://{own / 'conf'}]"
    given = [] if any(word.startswith("data=") for word in typed) else [f"data.path='{own}/texts/a.txt'"]
    evaluation = [] if any(word.startswith("eval=") for word in typed) else ["eval=none"]
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        words = [path, *evaluation, *given, f"model.path='{model}'", *SMALL, *typed]
        return settings(hydra.compose("train", overrides=words))


def write(own: Path, seam: str) -> list[str]:
    """The user's file; what is typed to choose it."""
    file, content = YAMLS[seam]
    (own / "conf" / file).parent.mkdir(parents=True)
    (own / "conf" / file).write_text(content)
    return [f"{file.removesuffix('/mine.yaml')}=mine"]


@pytest.mark.parametrize("seam", YAMLS)
def test_a_part_from_outside_runs_to_the_end_and_resumes(
    seam: str, own: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = write(own, seam)
    config = composed(own, tiny_bert, *typed)
    (own / "whole").mkdir()
    encoder = train(config, own / "whole")
    losses = by_step(own / "whole")
    assert len(losses) == 6
    (own / "plain").mkdir()
    train(composed(own, tiny_bert), own / "plain")
    assert (losses == by_step(own / "plain")) == (seam in UNTRAINED), "the part has no effect"
    saved = MirrorEncoder.load(own / "whole" / "encoder")
    np.testing.assert_allclose(saved.encode(SENTENCES[:5]), encoder.encode(SENTENCES[:5]), atol=1e-5)

    (own / "stopped").mkdir()
    stop_and_resume(config, own / "stopped", monkeypatch)
    assert by_step(own / "stopped") == losses
    again = MirrorEncoder.load(own / "stopped" / "encoder").state_dict()
    assert all(torch.equal(weights, again[name]) for name, weights in saved.state_dict().items())


PRETRAIN = [
    "size=tiny", "model.hidden=32", "model.intermediate=64", "tokenizer.vocab_size=150", "batch.tokens=300",
    "batch.max_tokens=32", "held_out.texts=10", "trainer=cpu", "trainer.progress=false", "trainer.max_steps=6",
    "trainer.precision=fp32", "model.dropout=0.1", "model.start=random", "schedule.warmup_steps=0",
]  # fmt: skip


def test_an_objective_from_outside_runs_to_the_end_and_resumes(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    from mirror.config.compose import CONF, register_schemas, resumed
    from mirror.pretraining.module import PretrainModule
    from mirror.pretraining.run import pretrain

    (own / "conf" / "objective").mkdir(parents=True)
    (own / "conf" / "objective" / "mine.yaml").write_text("_target_: own_package.Length\nweight: 0.5\n")
    register_schemas()
    GlobalHydra.instance().clear()
    path = f"hydra.searchpath=[file://{own / 'conf'}]"
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        words = [path, f"data.path='{own}/texts/a.txt'", *PRETRAIN, "objective=mine"]
        config = settings(hydra.compose("pretrain", overrides=words))

    def stop(self: PretrainModule, *arguments: Any) -> None:
        if self.global_step == 4:
            raise KeyboardInterrupt

    for name in ("whole", "stopped"):
        (own / name).mkdir()
    pretrain(config, own / "whole")
    assert by_step(own / "whole", "length")
    with monkeypatch.context() as patched:
        patched.setattr(PretrainModule, "on_train_batch_end", stop)
        with pytest.raises(KeyboardInterrupt):
            pretrain(config, own / "stopped")
    pretrain(resumed("pretrain", own / "stopped", [f"resume={own / 'stopped'}"]), own / "stopped")
    whole, after = (load_file(own / name / "model" / "model.safetensors") for name in ("whole", "stopped"))
    assert all(torch.equal(whole[name], after[name]) for name in whole)
    assert "| objective | Length (weight 0.5) |" in (own / "whole" / "model" / "README.md").read_text()


def test_what_the_parts_leave(own: Path, tiny_bert: Path) -> None:
    """Components have curves of their own, the card says what the loss is, a set of an own protocol has a score."""
    typed = [*write(own, "loss"), *write(own, "kind of test set"), *write(own, "pooling")]
    (own / "run").mkdir()
    train(composed(own, tiny_bert, *typed), own / "run")
    for name in ("gap", "pull"):
        assert len(by_step(own / "run", name)) == 6
    content = json.loads((own / "run" / "metrics.json").read_text())
    assert content["components"].keys() == {"gap", "pull"}
    assert content["scores"]["tuned"]["odd.tsv"].keys() == {"found", "pairs"}
    card = (own / "run" / "encoder" / "README.md").read_text()
    assert "| loss | margin 0.2 |" in card
    assert "| pooling | Attention (heat 0.5)" in card
    modules = json.loads((own / "run" / "encoder" / "modules.json").read_text())
    assert modules[1]["type"] == "own_package.Attention"


def test_seeds_of_a_pooling_with_weights(own: Path, tiny_bert: Path) -> None:
    """New weights follow the seed: each of several seeds is the run of that seed alone."""
    typed = [*write(own, "pooling"), "data.sample=first"]  # a sample that does not follow the seed
    (own / "both").mkdir()
    train(composed(own, tiny_bert, *typed, "seed=1", "seeds=2"), own / "both")
    for seed, place in ((1, own / "both"), (2, own / "both" / "seed-2")):
        (own / f"alone-{seed}").mkdir()
        train(composed(own, tiny_bert, *typed, f"seed={seed}"), own / f"alone-{seed}")
        alone = MirrorEncoder.load(own / f"alone-{seed}" / "encoder").state_dict()
        state = MirrorEncoder.load(place / "encoder").state_dict()
        # The pooler, which no vector depends on, is as it was drawn with the first seed.
        assert all(torch.equal(weights, state[name]) for name, weights in alone.items() if "pooler" not in name)
        assert by_step(place) == by_step(own / f"alone-{seed}")


@pytest.mark.parametrize(
    ("typed", "reason"),
    [
        (
            ["loss=mine", "+loss.marginn=0.3"],
            r"marginn is no setting of own_package\.Margin; .* loss\.margin\?",
        ),
        (["loss=mine", "loss.margin=wide"], r"loss\.margin=wide does not fit"),
        (
            ["loss=mine", "loss._target_=own_package.Nothing"],
            r"own_package\.Nothing cannot be imported .*spelt",
        ),
        (["loss=mine", "loss._target_=nowhere.Loss"], r"nowhere\.Loss cannot be imported .*install its package"),
        (["loss=mine", "loss._target_=7"], "loss names no part"),
        (["loss=yours"], "loss/yours"),
    ],
)
def test_what_does_not_fit_is_told_before_anything_is_read(
    typed: list[str], reason: str, own: Path, tiny_bert: Path
) -> None:
    write(own, "loss")
    with pytest.raises(Exception, match=reason) as told:
        check_parts(composed(own, tiny_bert, *typed))
    assert "yours" in reason or isinstance(told.value, MirrorError)


def test_a_part_of_another_kind_is_refused(own: Path, tiny_bert: Path) -> None:
    write(own, "loss")
    (own / "run").mkdir()
    config = composed(own, tiny_bert, "loss=mine", "~loss.margin", "loss._target_=torch.nn.Identity")
    with pytest.raises(MirrorError, match=r"makes a Identity, not a mirror\.losses\.base\.Loss"):
        train(config, own / "run")


def test_an_own_loss_in_parts_of_a_batch(own: Path, tiny_bert: Path) -> None:
    """Gradient caching serves a loss that knows nothing of it."""
    typed = [*write(own, "loss"), "aug.dropout=0"]
    for name, micro in (("whole", "null"), ("parts", "5")):
        (own / name).mkdir()
        train(composed(own, tiny_bert, *typed, f"batch.micro={micro}"), own / name)
    whole, parts = by_step(own / "whole"), by_step(own / "parts")
    np.testing.assert_allclose(parts, whole, rtol=1e-4)


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (("loss/mine.yaml", "_target_: own_package.Bare\n"), "loss: Bare returned tensor.* where a dict of scalars"),
        (("aug/mine.yaml", "_target_: own_package.Three\ndropout: 0.1\ndrophead: 0.0\n"), "aug: Three made 3 views"),
    ],
)
def test_a_part_that_breaks_its_contract(
    part: tuple[str, str], reason: str, own: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(YAMLS, "broken", part)
    with (own / "own_package.py").open("a") as file:
        file.write(BROKEN)
    monkeypatch.delitem(sys.modules, "own_package", raising=False)
    (own / "run").mkdir()
    with pytest.raises(MirrorError, match=reason):
        train(composed(own, tiny_bert, *write(own, "broken")), own / "run")


BROKEN = """

class Bare(Loss):
    def forward(self, embed, batch):
        return embed(batch).mean()


class Three(Views):
    def __call__(self, pair, rng):
        return pair[0], pair[1], pair[0]
"""
