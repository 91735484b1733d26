"""The README's commands as a newcomer types them: only models, texts and sizes are made small and local."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mirror import MirrorEncoder
from mirror.evaluation.sets.sts import HUB
from tests.conftest import ROOT, SENTENCES
from tests.sweep_runs import write_sweep

README = (ROOT / "README.md").read_text(encoding="utf-8")
CODE = {
    language: "".join(re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)) for language in ("bash", "python")
}
COMMANDS = [line for line in CODE["bash"].splitlines() if line.startswith("python scripts/")]
SMALL = {
    "train": [
        "data.path=texts.txt", "data.size=48", "batch.size=16", "trainer.max_epochs=1", "trainer.accelerator=cpu",
    ],
    "pretrain": [
        "model.hidden=32", "model.intermediate=64", "model.layers=1", "batch.tokens=300",
        "batch.max_tokens=32", "trainer.max_steps=3", "trainer.max_epochs=1", "held_out.texts=10", "model.heads=2",
        "trainer.accelerator=cpu",
    ],
}  # fmt: skip
"""What makes a run short, unless the command says it itself."""


def adapted(command: str, places: dict[str, Path]) -> list[str]:
    for name, place in places.items():
        command = command.replace(name, str(place))
    words = shlex.split(command, comments=True)
    script = Path(words[1]).stem
    extra = list(SMALL.get(script, []))
    if script == "train":
        extra += [f"model.path={places['/some/local/folder']}", f"eval.data_dir={places['/some/test/sets']}"]
        extra += ["eval=stsb"] if "task=word" not in words else ["eval=none"]
    if script == "pretrain":
        extra += [f"tokenizer.vocab_size={300 if 'tokenizer=bpe' in words else 150}"]  # BPE begins with the 256 bytes
    given = {word.partition("=")[0] for word in words}
    return [sys.executable, *words[1:], *(word for word in extra if word.partition("=")[0] not in given)]


@pytest.fixture(scope="module")
def places(tiny_bert: Path, eval_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What the README's made-up names stand for; the folder to run in is ``.``."""
    here = tmp_path_factory.mktemp("newcomer")
    for name in ("texts", "words", "lines", "corpus", "notes", "reports"):
        (here / f"{name}.txt").write_text("\n".join(SENTENCES), encoding="utf-8")
    run = here / "outputs" / "train" / "earlier"
    MirrorEncoder.load(tiny_bert, "mean").save(run / "encoder")
    for name in ("one", "another"):  # of the soup
        MirrorEncoder.load(tiny_bert, "mean").save(here / name / "encoder")
    content = {"status": "finished", "config": {"task": "sentence", "model": {"path": str(tiny_bert)}}}
    (run / "metrics.json").write_text(json.dumps(content), encoding="utf-8")
    (here / "tests" / "sts").mkdir(parents=True)
    for name in HUB:  # every set that a command may name
        shutil.copy(eval_dir / "sts" / "stsb-dev.tsv", here / "tests" / "sts" / f"{name}.tsv")
    sweep: dict[str, list[Any]] = {"loss.temperature": [0.02, 0.04], "seed": [1, 2]}
    write_sweep(here / "outputs" / "train-sweep" / "temperature", sweep)
    for entry in ("scripts", "mirror", "hydra_plugins", "conf"):
        (here / entry).symlink_to(ROOT / entry)
    return {
        "outputs/…/encoder": run / "encoder",
        "/some/local/folder": tiny_bert,
        "bert-base-uncased": tiny_bert,
        "one/encoder": here / "one" / "encoder",
        "another/encoder": here / "another" / "encoder",
        "/some/test/sets": here / "tests",
        ".": here,
    }


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_command(command: str, places: dict[str, Path]) -> None:
    names = {name: place for name, place in places.items() if name != "."}
    result = subprocess.run(
        adapted(command, names),
        cwd=places["."],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(places["."]), os.environ["PYTHONPATH"]])},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr


def test_there_are_commands() -> None:
    assert {shlex.split(command)[1] for command in COMMANDS} == {
        f"scripts/{path.name}" for path in (ROOT / "scripts").glob("*.py")
    }


def test_python_calls(tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = CODE["python"].replace("roberta-base", str(tiny_bert))
    names = {"texts": SENTENCES[:20], "words": [word for text in SENTENCES for word in text.split()][:20]}
    exec(code, names)
    content = json.loads((tmp_path / "outputs" / "words" / "metrics.json").read_text(encoding="utf-8"))
    assert content["status"] == "finished"
    ours = MirrorEncoder.load(tmp_path / "my-encoder").encode(["a sentence"])
    from sentence_transformers import SentenceTransformer

    theirs = SentenceTransformer(str(tmp_path / "my-encoder")).encode(["a sentence"])
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
