"""``metrics.json``: there from the first second, whole at any moment, and true about the end."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from mirror import MirrorError
from mirror.runs.record import RunRecord, called
from tests.conftest import files_no_larger_than


def read(folder: Path) -> Any:
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


def test_there_while_the_run_runs(tmp_path: Path) -> None:
    """A run that is killed outright has said that it was running."""
    with RunRecord(tmp_path, {"seed": 7, "name": "ü"}):
        content = read(tmp_path)
    assert content["status"] == "running"
    assert content["seed"] == 7
    assert content["config"] == {"seed": 7, "name": "ü"}


def test_finished(tmp_path: Path) -> None:
    with RunRecord(tmp_path, {}, started=time.time() - 100) as record:
        with record.phase("train"):
            time.sleep(0.01)
        with record.phase("train"):
            time.sleep(0.01)
        record["steps"] = 3
    content = read(tmp_path)
    assert content["status"] == "finished"
    assert content["steps"] == 3
    assert content["seconds"]["train"] >= 0.02
    assert content["seconds"]["total"] >= 100
    assert content["peak_memory_mib"] > 0
    assert "error" not in content


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (MirrorError("lower optim.lr"), "failed", "MirrorError: lower optim.lr"),
        (ZeroDivisionError("oh"), "failed", "ZeroDivisionError: oh"),
        (KeyboardInterrupt(), "interrupted", "stopped by the user"),
        (SystemExit(1), "interrupted", "stopped by the user"),  # what Lightning makes of Ctrl-C
    ],
)
def test_how_it_ended(tmp_path: Path, error: BaseException, status: str, reason: str) -> None:
    """The error goes on to the caller, and phases that it broke off have their time."""
    with pytest.raises(type(error)), RunRecord(tmp_path, {}) as record, record.phase("train"):
        raise error
    content = read(tmp_path)
    assert (content["status"], content["error"]) == (status, reason)
    assert {"train", "total"} <= content["seconds"].keys()


def test_writing_replaces_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What dies while it writes leaves the last whole file."""
    record = RunRecord(tmp_path, {})
    record.write()
    record["steps"] = 3

    def die(*args: Any) -> None:
        raise SystemExit("killed")

    monkeypatch.setattr(os, "replace", die)
    with pytest.raises(SystemExit, match="killed"):
        record.write()
    assert "steps" not in read(tmp_path)


def test_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes of DDP beside the first write nothing."""
    monkeypatch.chdir(tmp_path)
    with RunRecord(None, {}):
        pass
    assert list(tmp_path.iterdir()) == []


def test_disk_full_for_the_record(tmp_path: Path) -> None:
    """It is told in a sentence, leaves the last whole record, and hides no other reason."""
    with files_no_larger_than(100), pytest.raises(MirrorError, match=r"metrics\.json cannot be written .* free some"):
        RunRecord(tmp_path, {}).write()
    record = RunRecord(tmp_path, {})
    record.write()
    with files_no_larger_than(100):
        record.__exit__(ValueError, ValueError("the reason"), None)
    assert read(tmp_path)["status"] == "running"
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]


def test_a_command_is_called_as_it_can_be_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert called("pretrain") == ["mirror-pretrain"]
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "pretrain.py").touch()
    assert called("pretrain") == ["python", "scripts/pretrain.py"]
    assert called("train") == ["mirror-train"]
