"""Every recipe gives the figures that were recorded before the package was reorganised.

``golden.json`` holds for each case the loss of every step, the scores, the first augmented pairs, and the saved weights
as a hash and as projections that bear rounding. The hash counts only where the same processor and torch are at hand as
when it was recorded: others sum in another order. Nor do the biases of keys elsewhere: softmax takes them out, so that
their gradients are rounding alone, which Adam scales to whole steps.

    RECORD_GOLDEN=1 pytest tests/test_golden.py

records anew: say in the CHANGELOG which figure was wrong, and why.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mirror.config.compose import compose, resumed
from mirror.pretraining.run import pretrain
from mirror.runs.record import by_step
from mirror.training.module import MirrorModule
from mirror.training.run import train
from tests.architectures import build
from tests.conftest import ROOT, SENTENCES

GOLDEN = Path(__file__).with_name("golden.json")
COMMON = [
    "model=bert", "data.size=44", "batch.size=16", "optim.lr=1e-3", "eval=stsb", "eval.resamples=0",
    "trainer.max_epochs=2",
    "trainer.precision=fp32", "trainer.accelerator=cpu", "trainer.progress=false",
]  # fmt: skip
"""Six steps, the third of a smaller batch."""
PRETRAIN = [
    "size=tiny", "model.hidden=32", "model.intermediate=64", "tokenizer.vocab_size=150", "batch.tokens=300",
    "batch.max_tokens=32", "held_out.texts=20", "held_out.every=5", "trainer=cpu", "trainer.precision=fp32",
    "trainer.progress=false", "trainer.max_steps=10", "schedule.warmup_steps=2", "bag_of_words=1", "model.start=random",
]  # fmt: skip
"""Not from counted words: their vectors are a matter of rounding where, as here, many words stand in like places."""
CASES = {
    "sentence": [],
    "word": ["task=word", "eval=stsb"],
    "pairs": ["data=pairs"],
    "drophead": ["aug=drophead"],
    "official": ["experiment=official", "eval=stsb"],
    "decoupled": ["loss.form=decoupled"],
    "duplicates": ["data.deduplicate=false", "loss.mask_duplicates=false"],
    "micro": ["batch.micro=3"],
    "tokens": ["aug=mirror_token"],
    "layers": ["model.pooling=first_last", "schedule=linear", "schedule.warmup_steps=2"],
    "best": ["select=best", "eval.every=2"],
    "seeds": ["seeds=2"],
}
"""Runs of one process on a tiny BERT, by the settings that make them."""
FIGURES = ("views", "loss", "scores", "steps", "seeds", "effective_batch")
"""Of metrics.json."""


def machine() -> str:
    """What decides in which order sums are made."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    processor = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), sys.platform)
    return f"{processor}, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}"


def weights(folder: Path) -> dict[str, Any]:
    """A hash of the saved weights, and their projection on waves, which moves little where rounding differs."""
    state = dict(sorted(load_file(folder / "model.safetensors").items()))
    digest = hashlib.sha256()
    projections = {}
    for name, tensor in state.items():
        digest.update(name.encode() + tensor.numpy().tobytes())
        flat = tensor.double().flatten()
        projections[name] = float(flat @ torch.cos(torch.arange(len(flat), dtype=torch.float64)))
    return {"sha256": digest.hexdigest(), "projections": projections}


def figures(folder: Path, model: str = "encoder") -> dict[str, Any]:
    """Everything that is compared of a run."""
    content = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return {
        "losses": [loss for _, loss in by_step(folder)],
        "weights": weights(folder / model),
        **{name: content[name] for name in FIGURES if name in content},
    }


def settings(name: str, tmp: Path, model: Path, eval_dir: Path) -> list[str]:
    texts = tmp / "texts.txt"
    # Some stand twice, so that duplicates are met.
    texts.write_text("\n".join([*SENTENCES[:40], *SENTENCES[:10], *SENTENCES[60:80]]) + "\n", encoding="utf-8")
    pairs = tmp / "pairs.txt"
    pairs.write_text("".join(f"{a}||{b}\n" for a, b in pairwise(SENTENCES)), encoding="utf-8")
    path = [] if name == "word" else [f"data.path='{pairs if name == 'pairs' else texts}'"]
    return [*COMMON, f"model.path='{model}'", f"eval.data_dir='{eval_dir}'", *CASES.get(name, []), *path]


def single(name: str, tmp: Path, model: Path, eval_dir: Path) -> dict[str, Any]:
    train(compose("train", settings(name, tmp, model, eval_dir)), tmp)
    return figures(tmp)


def padded(name: str, tmp: Path, model: Path, eval_dir: Path) -> dict[str, Any]:
    """A backbone that cannot pack."""
    return single(name, tmp, build("xlnet", tmp / "xlnet"), eval_dir)


def stopped(name: str, tmp: Path, model: Path, eval_dir: Path) -> dict[str, Any]:
    """Stopped in the middle and resumed."""

    def stop(self: MirrorModule, *arguments: Any) -> None:
        if self.global_step == 4:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(MirrorModule, "on_train_batch_end", stop)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            train(compose("train", settings(name, tmp, model, eval_dir)), tmp)
    train(resumed("train", tmp, [f"resume={tmp}"]), tmp)
    return figures(tmp)


def two_processes(name: str, tmp: Path, model: Path, eval_dir: Path) -> dict[str, Any]:
    """Two gloo processes; without dropout, whose draws differ by device."""
    options = [*settings(name, tmp, model, eval_dir), "aug.dropout=0", "trainer=ddp", "trainer.devices=2"]
    result = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "train.py"), *options, f"hydra.run.dir='{tmp / 'run'}'"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stderr
    return figures(tmp / "run")


def pretrained(name: str, tmp: Path, model: Path, eval_dir: Path) -> dict[str, Any]:
    """Masked language modelling with bags of words."""
    texts = tmp / "corpus.txt"
    texts.write_text("\n".join([*SENTENCES, " ".join(SENTENCES[:20])]), encoding="utf-8")
    pretrain(compose("pretrain", [*PRETRAIN, f"data.path='{texts}'"]), tmp)
    content = json.loads((tmp / "metrics.json").read_text(encoding="utf-8"))
    return {**figures(tmp, "model"), "perplexity": content["perplexity"], "fill": content["fill"]}


RUNS: dict[str, Callable[[str, Path, Path, Path], dict[str, Any]]] = {
    **dict.fromkeys(CASES, single),
    "padded": padded,
    "resumed": stopped,
    "two processes": two_processes,
    "pretraining": pretrained,
}


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(GOLDEN.read_text(encoding="utf-8"))
    return content


def assert_like(found: Any, expected: Any, tolerance: float, where: str) -> None:
    """Equal, numbers within ``tolerance`` of the larger of 1 and the number."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key in expected:
            assert_like(found[key], expected[key], tolerance, f"{where}/{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for index, pair in enumerate(zip(found, expected, strict=True)):
            assert_like(*pair, tolerance, f"{where}/{index}")
    elif isinstance(expected, float):
        assert abs(found - expected) <= tolerance * max(1, abs(expected)), f"{where}: {found}, recorded {expected}"
    else:
        assert found == expected, where


@pytest.mark.parametrize("name", RUNS)
def test_golden(name: str, golden: dict[str, Any], tiny_bert: Path, eval_dir: Path, tmp_path: Path) -> None:
    found = RUNS[name](name, tmp_path, tiny_bert, eval_dir)
    if "RECORD_GOLDEN" in os.environ:
        golden[name] = {"machine": machine(), **found}
        GOLDEN.write_text(json.dumps(golden, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return
    expected = {**golden[name]}
    same_machine = machine() == expected.pop("machine")
    if not same_machine:
        found["weights"], expected["weights"] = (without_rounding(one["weights"]) for one in (found, expected))
    assert_like(found, expected, 1e-6 if same_machine else 2e-3, name)


def without_rounding(weights: dict[str, Any]) -> dict[str, float]:
    """What of the saved weights is the same on all machines: no hash, and no bias of keys."""
    return {name: value for name, value in weights["projections"].items() if not name.endswith("key.bias")}


def test_what_was_recorded_tells_the_recipes_apart(golden: dict[str, Any]) -> None:
    """A stop in the middle changes no bit; each recipe has weights of its own."""
    cases = {name: {key: value for key, value in case.items() if key != "machine"} for name, case in golden.items()}
    assert cases.keys() == RUNS.keys()
    assert cases["resumed"] == cases["sentence"]
    assert len(cases["sentence"]["losses"]) == 6
    # The first of several seeds is the run of that seed alone.
    hashes = [case["weights"]["sha256"] for name, case in cases.items() if name not in ("resumed", "seeds")]
    assert len(set(hashes)) == len(hashes)
