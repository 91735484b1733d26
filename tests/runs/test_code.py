"""The code behind a run: the commit, whether the tree has changed, digests of a user's own parts."""

import subprocess
import sys
from pathlib import Path

import pytest

from mirror.runs.code import changed_parts, code_of, own_parts


def git(*arguments: str) -> str:
    line = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    return subprocess.run(line, check=True, capture_output=True, text=True).stdout.strip()


def test_commit_and_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert code_of({}) == {"commit": None, "changed": None, "parts": {}}
    git("init")
    Path("a.py").write_text("1")
    git("add", "a.py")
    git("commit", "-m", "first")
    Path("outputs").mkdir()  # what runs leave is no change
    Path("outputs/log").write_text("1")
    assert code_of({}) == {"commit": git("rev-parse", "HEAD"), "changed": False, "parts": {}}
    Path("a.py").write_text("2")
    assert code_of({})["changed"] is True


@pytest.mark.parametrize("kind", ["module", "package", "namespace"])
def test_own_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Wherever in the settings they stand; mirror's own and what is installed are not among them."""
    name = f"digested_{kind}"
    files = {"module": f"{name}.py", "package": f"{name}/losses.py", "namespace": f"{name}/losses.py"}
    file = tmp_path / files[kind]
    file.parent.mkdir(exist_ok=True)
    file.write_text("raise RuntimeError('it is not imported')")
    if kind == "package":
        (tmp_path / name / "__init__.py").write_text("from .losses import Own")
    monkeypatch.syspath_prepend(str(tmp_path))
    config = {
        "loss": {"_target_": "mirror.losses.infonce.InfoNCE"},
        "optim": {"_target_": "torch.optim.SGD"},
        "eval": {"kinds": [{"_target_": f"{name}.Own"}, {"_target_": "nowhere.Own"}]},
    }
    found = own_parts(config)
    assert list(found) == [name]
    run = {"config": config, "code": {"parts": found}}
    assert changed_parts(run) == []
    file.write_text("other = 1")
    assert changed_parts(run) == [name]
    file.unlink()
    assert changed_parts(run) == [name]
    assert changed_parts({"config": config}) == []  # a record of an earlier version
    assert name not in sys.modules
