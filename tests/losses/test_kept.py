"""Rows on disk: made once, found by other processes and later runs, whole after a kill."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mirror import MirrorError
from mirror.losses.kept import KEYS, ROWS, Kept


def lengths(asked: list[str]) -> Callable[[list[str]], NDArray[np.float32]]:
    """A row of each text's length and of 1; notes what it is asked."""

    def make(texts: list[str]) -> NDArray[np.float32]:
        asked.extend(texts)
        return np.array([[len(text), 1] for text in texts], dtype=np.float32)

    return make


def test_each_row_is_made_once(tmp_path: Path) -> None:
    asked: list[str] = []
    kept = Kept(tmp_path / "kept", 2)
    assert kept.rows(["a", "bb", "a"], lengths(asked)).tolist() == [[1, 1], [2, 1], [1, 1]]
    assert kept.rows(["ccc", "bb"], lengths(asked)).tolist() == [[3, 1], [2, 1]]
    assert asked == ["a", "bb", "ccc"]
    later = Kept(tmp_path / "kept", 2)
    assert later.rows(["ccc", "a"], lengths(asked)).tolist() == [[3, 1], [1, 1]]
    assert asked == ["a", "bb", "ccc"]
    assert isinstance(later._table, np.memmap)


def test_two_at_once_find_each_other_s(tmp_path: Path) -> None:
    asked: list[str] = []
    one, other = Kept(tmp_path, 2), Kept(tmp_path, 2)
    one.rows(["a"], lengths(asked))
    other.rows(["a", "bb"], lengths(asked))
    one.rows(["bb"], lengths(asked))
    assert asked == ["a", "bb"]

    def meanwhile(texts: list[str]) -> NDArray[np.float32]:
        other.rows(["ccc"], lengths(asked))  # while one makes it, the other does
        return lengths(asked)(texts)

    assert one.rows(["ccc", "dddd"], meanwhile).tolist() == [[3, 1], [4, 1]]
    assert (tmp_path / KEYS).stat().st_size == 4 * 16
    assert Kept(tmp_path, 2).rows(["a", "bb", "ccc", "dddd"], meanwhile)[:, 0].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(("name", "cut"), [(ROWS, 5), (KEYS, 3), (KEYS, 16)])
def test_what_a_kill_cut_off_is_made_again(name: str, cut: int, tmp_path: Path) -> None:
    asked: list[str] = []
    Kept(tmp_path, 2).rows(["a", "bb"], lengths(asked))
    path = tmp_path / name
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - cut)
    kept = Kept(tmp_path, 2)
    assert kept.rows(["bb", "a", "ccc"], lengths(asked)).tolist() == [[2, 1], [1, 1], [3, 1]]
    assert asked == ["a", "bb", "bb", "ccc"]
    assert Kept(tmp_path, 2).rows(["a", "bb", "ccc"], lengths(asked))[:, 0].tolist() == [1, 2, 3]
    assert len(asked) == 4


def test_a_folder_that_is_removed_meanwhile_is_begun_again(tmp_path: Path) -> None:
    asked: list[str] = []
    kept = Kept(tmp_path, 2)
    kept.rows(["a", "bb"], lengths(asked))
    for name in (KEYS, ROWS):
        (tmp_path / name).unlink()
    assert kept.rows(["ccc", "a"], lengths(asked)).tolist() == [[3, 1], [1, 1]]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("a file")
    with pytest.raises(MirrorError, match=r"loss\.keep=.*kept cannot be used \(Not a directory\): .* loss\.keep=null"):
        Kept(tmp_path / "kept" / "table", 2)
