"""Every objective on real text: its losses fall, a stopped run goes on exactly, what it saves loads."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel

from mirror import MirrorEncoder
from mirror.config import PretrainConfig
from mirror.config.compose import compose, resumed
from mirror.pretraining import run as pretraining_run
from mirror.pretraining.module import PretrainModule
from mirror.pretraining.run import pretrain
from mirror.runs.record import by_step

SMALL = [
    "size=tiny", "model.hidden=32", "model.intermediate=64", "tokenizer.vocab_size=600", "batch.tokens=600",
    "batch.max_tokens=32", "held_out.texts=20", "held_out.every=5", "trainer=cpu", "trainer.progress=false",
    "checkpoint_every=5", "schedule.warmup_steps=2", "trainer.precision=fp32", "optim.lr=5e-3",
]  # fmt: skip
OBJECTIVES: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "mlm": ([], ("loss",)),
    "retromae": ([], ("loss", "decoder")),
    "enhanced": (["objective=retromae", "objective.enhanced=true", "objective.pooling=cls"], ("loss", "decoder")),
    "electra": ([], ("loss", "replaced")),
    "tlm": (["objective=tlm"], ("loss",)),
}
"""The settings, and the losses that are added up."""


def settings(name: str, data_dir: Path, *more: str) -> PretrainConfig:
    texts = data_dir / "corpora" / "stsbenchmark_train_10k_sents_random_sampled.txt"
    options = OBJECTIVES[name][0] or [f"objective={name}"]
    given = [f"data.path={texts}", "data.size=600"]
    if name == "tlm":
        given = [f"data.path={data_dir / 'bli' / 'en-de.tsv'}", "data.column=source", "data.pair_column=target"]
    config = compose("pretrain", [*SMALL, *given, *options, *more])
    assert isinstance(config, PretrainConfig)
    return config


@pytest.mark.parametrize("name", OBJECTIVES)
def test_losses_fall_and_the_model_loads(
    name: str, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretraining_run, "LOG_EVERY", 2)
    more = ("trainer.max_steps=100", "bag_of_words=0.5", "model.start=random")
    pretrain(settings(name, data_dir, *more), tmp_path)
    for loss in (*OBJECTIVES[name][1], "bag_of_words"):
        values = [value for _, value in by_step(tmp_path, loss)]
        assert len(values) == 50
        assert sum(values[-5:]) < 0.95 * sum(values[:5]), loss
    loaded, report = AutoModel.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert [key for key in report["missing_keys"] if "pooler" not in key] == []
    assert loaded.config.num_hidden_layers == 2
    assert not any("decoder.up" in key or "generator" in key for key in load_file(tmp_path / "model/model.safetensors"))
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert ("## What the generator fills in" in card) == (name == "electra")
    assert ("pipeline_tag: fill-mask" in card) == (name != "electra")
    assert MirrorEncoder.load(tmp_path / "model", "mean").encode(["A man plays a guitar."]).shape == (1, 32)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_resumed_is_uninterrupted(name: str, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = settings(name, data_dir, "trainer.max_steps=8", "model.dropout=0.1", "bag_of_words=0.5")
    folders = [tmp_path / "whole", tmp_path / "stopped"]
    for folder in folders:
        folder.mkdir()
    pretrain(config, folders[0])

    def stop(self: PretrainModule, *arguments: Any) -> None:
        if self.global_step == 6:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(PretrainModule, "on_train_batch_end", stop)
        with pytest.raises(KeyboardInterrupt):
            pretrain(config, folders[1])
    pretrain(resumed("pretrain", folders[1], [f"resume={folders[1]}"]), folders[1])
    whole, after = (load_file(folder / "model" / "model.safetensors") for folder in folders)
    assert whole.keys() == after.keys()
    assert all(torch.equal(whole[key], after[key]) for key in whole)
    assert by_step(folders[0], "val/perplexity") == by_step(folders[1], "val/perplexity")
