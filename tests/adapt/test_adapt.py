"""Which weights learn, that the others stay, and that the encoder is saved and goes on as ever."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mirror import MirrorEncoder, MirrorError
from mirror.adapt import adapted
from mirror.adapt.frozen import BitFit, Gradual, Half
from mirror.adapt.layers import heights
from mirror.adapt.lora import Lora
from mirror.adapt.reinit import Reinit
from mirror.encoder.perturb import Dropout
from mirror.runs.record import by_step
from mirror.training.run import train
from tests.architectures import ARCHITECTURES, build
from tests.conftest import ROOT, SENTENCES
from tests.helpers import SMALL, curve, equal, go, metrics, small, stop_and_resume, weights

WAYS = {
    "lora": ["adapt=lora", "adapt.rank=2", "adapt.dropout=0.2"],
    "bitfit": ["adapt=bitfit"],
    "half": ["adapt=half"],
    "half each epoch": ["adapt=half", "adapt.each_epoch=true"],
    "freeze": ["adapt=freeze", "adapt.layers=1"],
    "reinit": ["adapt=reinit"],
    "gradual": ["adapt=gradual", "adapt.every=2"],
}


def needs_peft(way: str) -> None:
    if way == "lora":
        pytest.importorskip("peft", reason="no peft: pip install 'mirror-encoders[peft]'")


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    """All but the pooler's, which is no part of the encoder and not in the folder that it is loaded from."""
    moved = {name for name, weight in before.items() if not torch.equal(weight, after[name])}
    return {name for name in moved if not name.startswith("pooler")}


def tuned(tiny_bert: Path, folder: Path, *typed: str) -> set[str]:
    """Names of the weights that a run has changed."""
    before = weights(MirrorEncoder.load(tiny_bert))
    go(tiny_bert, folder, *typed)
    return changed(before, weights(MirrorEncoder.load(folder / "encoder")))


def test_full_is_the_default(tiny_bert: Path, tmp_path: Path) -> None:
    go(tiny_bert, tmp_path / "default")
    go(tiny_bert, tmp_path / "full", "adapt=full", "optim.layer_decay=1", "optim.scale_with_batch=null")
    assert curve(tmp_path / "default") == curve(tmp_path / "full")
    states = [weights(MirrorEncoder.load(tmp_path / name / "encoder")) for name in ("default", "full")]
    assert equal(*states)


def test_lora_learns_beside_its_targets_and_is_merged(tiny_bert: Path, tmp_path: Path) -> None:
    needs_peft("lora")
    moved = tuned(tiny_bert, tmp_path / "run", "adapt=lora", "adapt.rank=2")
    where = [f"encoder.layer.{layer}.attention.self.{name}.weight" for layer in (0, 1) for name in ("query", "value")]
    assert moved == set(where)
    learnt = metrics(tmp_path / "run")["trainable"]
    assert learnt["learn"] == 4 * 2 * (32 + 32)
    assert learnt["optimizer_bytes"] == 4 * (2 * learnt["learn"] + 8)  # two averages, and a number of steps a matrix
    assert not (tmp_path / "run" / "encoder" / "adapter_config.json").exists()


def test_lora_at_targets_of_ones_own(tiny_bert: Path, tmp_path: Path) -> None:
    needs_peft("lora")
    moved = tuned(tiny_bert, tmp_path / "run", "adapt=lora", "adapt.targets=[attention.output.dense,key]")
    assert {name.removeprefix("encoder.layer.")[2:] for name in moved} == {
        "attention.output.dense.weight",
        "attention.self.key.weight",
    }


def test_bitfit_moves_biases_alone(tiny_bert: Path, tmp_path: Path) -> None:
    moved = tuned(tiny_bert, tmp_path / "run", "adapt=bitfit")
    assert moved
    assert all(name.endswith("bias") for name in moved)


def test_half_of_each_layers_matrices_stay(tiny_bert: Path, tmp_path: Path) -> None:
    drawn = {}
    for seed in (1, 2):
        moved = tuned(tiny_bert, tmp_path / str(seed), "adapt=half", f"seed={seed}")
        state = weights(MirrorEncoder.load(tiny_bert))
        for layer in ("encoder.layer.0.", "encoder.layer.1."):
            matrices = {name for name, weight in state.items() if name.startswith(layer) and weight.ndim == 2}
            assert len(matrices) == 6
            assert len(matrices & moved) == 3
        assert "embeddings.word_embeddings.weight" in moved
        drawn[seed] = moved
    assert drawn[1] != drawn[2]


def test_half_drawn_anew_in_each_epoch(tiny_bert: Path, tmp_path: Path) -> None:
    encoder, way = MirrorEncoder.load(tiny_bert), Half(seed=0, epoch_steps=3, each_epoch=True)
    with adapted(encoder, way, seed=0):
        epochs = [set(way.resting(step)) for step in range(9)]  # type: ignore[call-overload]
    assert epochs[0] == epochs[2] != epochs[3] == epochs[5]
    assert all(len(names) == 6 for names in epochs)
    moved = tuned(tiny_bert, tmp_path / "run", "adapt=half", "adapt.each_epoch=true", "trainer.max_epochs=2")
    once = tuned(tiny_bert, tmp_path / "once", "adapt=half")
    assert len(moved) > len(once)


def test_lower_layers_stay(tiny_bert: Path, tmp_path: Path) -> None:
    moved = tuned(tiny_bert, tmp_path / "run", "adapt=freeze", "adapt.layers=1")
    assert {name.split(".layer.")[-1][0] for name in moved} == {"1"}
    moved = tuned(tiny_bert, tmp_path / "without", "adapt=freeze", "adapt.layers=2", "adapt.embeddings=false")
    assert {name.split(".")[0] for name in moved} == {"embeddings"}


def test_top_layers_begin_anew(tiny_bert: Path) -> None:
    encoder = MirrorEncoder.load(tiny_bert)
    before = weights(encoder)
    with adapted(encoder, Reinit(1), seed=3):
        drawn = weights(encoder)
    assert {name[: len("encoder.layer.1")] for name in changed(before, drawn)} == {"encoder.layer.1"}
    assert "encoder.layer.1.output.dense.weight" in changed(before, drawn)
    again = MirrorEncoder.load(tiny_bert)
    with adapted(again, Reinit(1), seed=3):
        assert not changed(drawn, weights(again))


def test_layers_thaw_from_the_top(tiny_bert: Path, tmp_path: Path) -> None:
    """Three steps: the top layer alone, then the one below it, then the embeddings."""
    encoder, way = MirrorEncoder.load(tiny_bert), Gradual(every=2)
    with adapted(encoder, way, seed=0):
        learn = [{height for name, height in heights(encoder.backbone).items() if name not in way.resting(step)}
                 for step in range(6)]  # fmt: skip
    assert learn == [{2}, {2}, {1, 2}, {1, 2}, {0, 1, 2}, {0, 1, 2}]
    kinds = []
    for steps in (1, 2, 3):
        moved = tuned(tiny_bert, tmp_path / str(steps), "adapt=gradual", "adapt.every=1", f"trainer.max_steps={steps}")
        kinds.append({name[: len("encoder.layer.0")] if "layer" in name else "embeddings" for name in moved})
    assert kinds == [
        {"encoder.layer.1"},
        {"encoder.layer.1", "encoder.layer.0"},
        {"encoder.layer.1", "encoder.layer.0", "embeddings"},
    ]


@pytest.mark.parametrize("way", WAYS)
def test_a_run_that_was_stopped_ends_with_the_same_weights(
    way: str, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_peft(way)
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(SENTENCES) + "\n")
    config = small(tiny_bert, *SMALL, f"data.path={texts}", *WAYS[way])
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    train(config, tmp_path / "whole")
    stop_and_resume(config, tmp_path / "stopped", monkeypatch)
    assert by_step(tmp_path / "stopped") == by_step(tmp_path / "whole")
    whole, stopped = (MirrorEncoder.load(tmp_path / name / "encoder") for name in ("whole", "stopped"))
    assert equal(weights(whole), weights(stopped))


@pytest.mark.parametrize("way", WAYS)
def test_the_folder_loads_in_sentence_transformers(way: str, tiny_bert: Path, tmp_path: Path) -> None:
    needs_peft(way)
    from sentence_transformers import SentenceTransformer

    encoder = go(tiny_bert, tmp_path / "run", *WAYS[way])
    theirs = SentenceTransformer(str(tmp_path / "run" / "encoder"), device="cpu").encode(SENTENCES[:20])
    np.testing.assert_allclose(encoder.encode(SENTENCES[:20]), theirs, atol=1e-5)
    flags = {name: weight.requires_grad for name, weight in encoder.backbone.named_parameters()}
    assert all(learns == (not name.startswith("pooler")) for name, learns in flags.items())


@pytest.mark.parametrize("architecture", [one for one in ARCHITECTURES if one != "xlnet"])
def test_lora_finds_its_targets_and_packs(architecture: str, tmp_path: Path) -> None:
    """Packed as padded, while the matrices are there and when they are merged; and packed wherever it was before."""
    needs_peft("lora")
    encoder, packs = MirrorEncoder.load(build(architecture, tmp_path)), ARCHITECTURES[architecture].packs
    tokens = encoder.layout.tokenize(SENTENCES[:12])
    plain = encoder.encode(SENTENCES[:12])

    def both() -> tuple[Tensor, Tensor]:
        blocks = encoder.layout.blocks(tokens)
        assert all(block.packed for block in blocks) == packs
        with torch.inference_mode():
            return encoder(blocks), encoder(encoder.layout.padded(tokens))

    with adapted(encoder, Lora(rank=2), seed=0):
        np.testing.assert_allclose(encoder.encode(SENTENCES[:12]), plain, atol=1e-6)  # B is 0
        with torch.no_grad():
            for name, weight in encoder.backbone.named_parameters():
                if "lora_B" in name:
                    weight.normal_(std=0.3)
        encoder.layout._first_positions.clear()  # asked anew of the backbone as it is
        during = both()
        torch.testing.assert_close(*during, atol=1e-4, rtol=1e-3)
    after = both()
    torch.testing.assert_close(*after, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(after[0], during[0], atol=1e-4, rtol=1e-3)
    assert np.abs(encoder.encode(SENTENCES[:12]) - plain).max() > 1e-3


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_dropout_of_lora_is_its_own(rate: float, tiny_bert: Path) -> None:
    """The rate of ``aug`` is set on every dropout of the backbone, and leaves this one alone."""
    needs_peft("lora")
    encoder = MirrorEncoder.load(tiny_bert)
    blocks = encoder.layout.blocks(encoder.layout.tokenize(SENTENCES[:4]))
    with adapted(encoder, Lora(dropout=rate), seed=0), torch.no_grad():
        for name, weight in encoder.backbone.named_parameters():
            if "lora_B" in name:
                weight.normal_()
        with encoder.perturbed([Dropout(0.0)]):
            assert torch.equal(encoder(blocks), encoder(blocks)) == (rate == 0)
        assert torch.equal(encoder(blocks), encoder(blocks))


def test_a_momentum_encoder_follows_an_adapted_one(tiny_bert: Path, tmp_path: Path) -> None:
    needs_peft("lora")
    for way in ("lora", "gradual"):
        go(tiny_bert, tmp_path / way, f"adapt={way}", "loss=queue", "loss.size=16")
        go(tiny_bert, tmp_path / f"{way} two", f"adapt={way}", "loss=tension")


def test_select_best_with_lora(tiny_bert: Path, eval_dir: Path, tmp_path: Path) -> None:
    needs_peft("lora")
    typed = ["adapt=lora", "select=best", "eval.every=1", f"eval.data_dir={eval_dir}", "eval=stsb", "seeds=2"]
    encoder = go(tiny_bert, tmp_path / "run", *typed)
    saved = MirrorEncoder.load(tmp_path / "run" / "encoder")
    np.testing.assert_allclose(saved.encode(SENTENCES[:4]), encoder.encode(SENTENCES[:4]), atol=1e-5)


@pytest.mark.parametrize(
    ("typed", "reason"),
    [
        (["adapt=lora", "adapt.targets=[qkv]"], r"adapt\.targets has qkv, .* choose among dense, key, query, value\."),
        (["adapt=freeze", "adapt.layers=3"], r"adapt\.layers=3 is more than the 2 layers of .*: lower it"),
        (["adapt=freeze", "adapt.layers=2"], r"adapt\.layers=2 leaves nothing of .* to learn: lower it"),
        (["adapt=reinit", "adapt.layers=3"], r"adapt\.layers=3 is more than the 2 layers"),
        (["adapt=reinit", "adapt.layers=0"], r"adapt\.layers=0 is out of range"),
        (["adapt=lora", "adapt.rank=0"], r"adapt\.rank=0 is out of range"),
        (["adapt=lora", "+adapt.ranks=4"], r"adapt\.ranks is no setting of .*; did you mean adapt\.rank\?"),
        (["optim.layer_decay=1.5"], r"optim\.layer_decay=1\.5 is out of range"),
        (["optim.scale_with_batch=0"], r"optim\.scale_with_batch=0 is out of range"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_measured(
    typed: list[str], reason: str, tiny_bert: Path, tmp_path: Path
) -> None:
    needs_peft(typed[0].partition("=")[2])
    with pytest.raises(MirrorError, match=reason):
        go(tiny_bert, tmp_path / "run", *typed)
    assert not (tmp_path / "run" / "encoder").exists()


def test_a_library_that_is_missing(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MirrorError, match=r"adapt=lora needs the package peft .*mirror-encoders\[peft\]"):
        go(tiny_bert, tmp_path / "run", "adapt=lora")


def test_a_model_without_biases(tiny_bert: Path) -> None:
    encoder = MirrorEncoder.load(tiny_bert)
    for name, weight in encoder.backbone.named_parameters():
        weight.requires_grad_(not name.endswith("bias"))
    with pytest.raises(MirrorError, match="adapt=bitfit trains biases"):
        BitFit().check(encoder)


def test_heights_of_every_architecture(tmp_path: Path) -> None:
    for architecture in ARCHITECTURES:
        backbone = MirrorEncoder.load(build(architecture, tmp_path / architecture)).backbone
        found, words = heights(backbone), backbone.get_input_embeddings().weight
        top = 1 if architecture == "albert" else backbone.config.num_hidden_layers
        assert set(found.values()) == set(range(top + 1)), architecture
        assert [found[name] for name, weight in backbone.named_parameters() if weight is words] == [0]


def test_lora_without_known_queries(tmp_path: Path) -> None:
    """XLNet's are no linear layers."""
    needs_peft("lora")
    encoder = MirrorEncoder.load(build("xlnet", tmp_path))
    with pytest.raises(MirrorError, match=r"adapt=lora does not know .* give adapt\.targets=\[…\], among layer_1"):
        Lora().check(encoder)


@pytest.mark.parametrize("way", ["lora", "half each epoch"])
def test_two_processes(way: str, tiny_bert: Path, tmp_path: Path) -> None:
    needs_peft(way)
    (tmp_path / "texts.txt").write_text("\n".join(SENTENCES[:48]) + "\n")
    typed: list[Any] = [
        *("model=bert", f"model.path={tiny_bert}", f"data.path={tmp_path}/texts.txt", "eval=none", "batch.size=16"),
        *("optim.lr=1e-3", "trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "trainer.progress=false"),
        *("trainer.max_epochs=2", f"hydra.run.dir={tmp_path}/run", *WAYS[way]),
    ]
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "train.py"), *typed],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    moved = changed(weights(MirrorEncoder.load(tiny_bert)), weights(MirrorEncoder.load(tmp_path / "run" / "encoder")))
    assert moved
    assert way != "lora" or all(".query." in name or ".value." in name for name in moved)
