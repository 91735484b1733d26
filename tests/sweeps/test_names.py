"""What the folders of a sweep's runs are called."""

from pathlib import Path

import pytest

from mirror.sweeps.jobs import Job
from mirror.sweeps.names import LENGTH, earlier_folder, folder_name


@pytest.mark.parametrize(
    ("overrides", "axes", "name"),
    [
        (["loss.temperature=0.04", "aug=none", "seed=1"], ["loss.temperature", "aug"], "temperature=0.04,aug=none-1a"),
        (["seed=1"], [], "1a"),
        (["aug.rate=0.1", "perturb.rate=0.2"], ["aug.rate", "perturb.rate"], "aug.rate=0.1,perturb.rate=0.2-1a"),
        (["data.path=../my texts/two words.txt"], ["data.path"], "path=two_words.txt-1a"),
        (["eval.sets=[sts12,sts13]"], ["eval.sets"], "sets=sts12,sts13-1a"),
        (["model.path='org/bert'"], ["model.path"], "path=bert-1a"),
        (["loss.temperature=0.03482010478563"], ["loss.temperature"], "temperature=0.03482-1a"),
        (["optim.lr=3.482010478563e-05"], ["optim.lr"], "lr=3.482e-05-1a"),
        (['data.path=<x>:|?*"\\\n…'], ["data.path"], "path=_x-1a"),
    ],
)
def test_folder_name(overrides: list[str], axes: list[str], name: str) -> None:
    assert folder_name(overrides, axes, "1a") == name


def test_folder_name_is_short() -> None:
    name = folder_name([f"axis{number}=value" for number in range(50)], [f"axis{n}" for n in range(50)], "1a2b3c4d5e")
    assert len(name) <= LENGTH
    assert name.endswith("-1a2b3c4d5e")
    assert name.startswith("axis0=value,axis1=value")


def test_earlier_folder(tmp_path: Path) -> None:
    (tmp_path / "seed=1-1a").mkdir()
    (tmp_path / "2b").mkdir()
    (tmp_path / "file-3c").touch()
    assert [earlier_folder(tmp_path, name) for name in ("1a", "2b", "3c", "4d")] == ["seed=1-1a", "2b", None, None]


def test_axes_are_told_without_escapes() -> None:
    job = Job(["model.path=bundled\\:mini", "seed=1", "data.size=48"], "1a2b3c", Path("x"), ["model.path", "seed"])
    assert job.axes == "model.path=bundled:mini seed=1"
