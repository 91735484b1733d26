"""The file that is named is read, as it is now and to its end, or refused in one sentence."""

import gzip
import os
import re
import socket
from pathlib import Path
from typing import Any

import pytest

from mirror.config import DataConfig, Sample
from mirror.data.files import read_lines
from mirror.data.texts import read_texts
from mirror.errors import MirrorError


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own for each test."""
    import datasets

    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder)
    return folder


def texts(path: Path | str) -> list[str]:
    table = read_texts(DataConfig(path=str(path), size=None, sample=Sample.first), 0)
    return [text for text, _ in table.pairs]


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("a[1].txt", "a1.txt"),
        ("a[!1].txt", "a2.txt"),
        ("q?.txt", "qq.txt"),
        ("s*.txt", "ss.txt"),
        ("**", "a.txt"),
        ("a::b.txt", "b.txt"),
        ("a%20b.txt", "a b.txt"),
        ("a#b.txt", "a"),
        ("{a,b}.txt", "a.txt"),
        ("~a.txt", "a.txt"),
        (".a.txt", "a.txt"),
        ("__a.txt", "a.txt"),
        ("hf://datasets/a.txt", "a.txt"),
        ("zip://a.txt::b.txt", "b.txt"),
    ],
)
def test_the_named_file_is_read_and_no_other(
    name: str, other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    for file, first in ((other, "wrong"), (name, "right")):
        (tmp_path / file).write_text(f"{first}\ntwo\n")
    assert texts(name) == texts(tmp_path / name) == read_lines(name, "input") == ["right", "two"]


@pytest.mark.parametrize("folder", ["a[1]", "x*", ".hidden", "a b"])
def test_the_cache_may_lie_anywhere(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / folder)
    (tmp_path / "a.csv").write_text("text\none\ntwo\n")
    assert texts(tmp_path / "a.csv") == ["one", "two"]


@pytest.mark.parametrize("name", ["~nobody-of-this-name.txt", "~/nothing.txt", "a" * 300 + ".txt", "nul\0.txt"])
def test_a_name_that_is_no_file(name: str) -> None:
    with pytest.raises(MirrorError, match="does not exist"):
        texts(name)
    with pytest.raises(MirrorError, match=r"input=.* cannot be read"):
        read_lines(name, "input")


def test_a_file_that_changes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    path = tmp_path / "texts.txt"
    path.write_text("one\ntwo\n")
    load = datasets.load_dataset

    def late(*arguments: Any, **options: Any) -> Any:
        path.write_text("six\nten\neleven\n")
        return load(*arguments, **options)

    monkeypatch.setattr(datasets, "load_dataset", late)
    with pytest.raises(MirrorError, match=r"texts\.txt was written to while it was read"):
        texts(path)


def test_a_relative_path_and_one_from_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.txt").write_text("one\ntwo\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert texts("mine.txt") == texts("./mine.txt") == texts("~/mine.txt") == ["one", "two"]


def test_a_file_with_an_old_time_stamp_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("one 1\ntwo 2\n")
    before = path.stat()
    assert texts(path) == ["one 1", "two 2"]
    path.write_text("one 3\ntwo 4\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert texts(path) == ["one 3", "two 4"]


def compressed(path: Path, content: bytes) -> Path:
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(content))
    else:
        zstandard = pytest.importorskip("zstandard")
        path.write_bytes(zstandard.ZstdCompressor().compress(content))
    return path


LINES = "".join(f"a text with the number {i}\n" for i in range(50_000)).encode()


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_compressed_file_is_read_to_its_end(suffix: str, tmp_path: Path) -> None:
    """Of several frames too, as parallel compressors and ``cat`` make them."""
    path = compressed(tmp_path / f"texts.txt{suffix}", LINES)
    assert len(texts(path)) == 50_000
    more = compressed(tmp_path / f"more.txt{suffix}", b"another text\n")
    both = tmp_path / f"both.txt{suffix}"
    both.write_bytes(path.read_bytes() + more.read_bytes())
    assert texts(both)[-2:] == ["a text with the number 49999", "another text"]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
def test_a_compressed_file_that_was_cut_off_is_refused(suffix: str, share: float, tmp_path: Path) -> None:
    path = compressed(tmp_path / f"texts.txt{suffix}", LINES)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(MirrorError, match=r"texts.txt.* cannot be read \(it is damaged or cut off\): give a whole"):
        texts(path)


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "socket.txt"))
    for path in (tmp_path / "pipe.txt", tmp_path / "socket.txt", "/dev/zero", "/dev/null"):
        with pytest.raises(MirrorError, match="is a pipe or a device"):
            texts(path)
        with pytest.raises(MirrorError, match=r"input=.* is a pipe or a device"):
            read_lines(str(path), "input")
    server.close()
    with pytest.raises(MirrorError, match="is a folder: give one file in it"):
        texts(tmp_path)


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_a_table_of_a_header_alone(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"table{suffix}"
    path.write_text("text\n")
    with pytest.raises(MirrorError, match="is a table without a row"):
        texts(path)


def test_an_empty_parquet_file(tmp_path: Path) -> None:
    import pandas

    path = tmp_path / "table.parquet"
    pandas.DataFrame({"text": []}, dtype="str").to_parquet(path)
    with pytest.raises(MirrorError, match="is a table without a row"):
        texts(path)


def test_a_cache_that_cannot_be_written_is_named(cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("one\ntwo\n")
    (cache / "mirror").write_text("in the way")
    with pytest.raises(MirrorError, match=rf"The cache of texts {cache}/mirror cannot be written .*HF_DATASETS_CACHE"):
        texts(path)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.jsonl", b'{"text": "a"}\n{"text": "b"\n', "is damaged in row 1, or no json: give one object in a line"),
        ("a.json", b"{}", "is damaged, or no json: give one object in a line"),
        ("a.jsonl", b'{"text": 1}\n{"text": 2}\n', "holds int, not texts: choose another by data.column"),
        ("a.parquet", b"PAR1", "is damaged, or no parquet: give a whole file"),
        ("a.txt.gz", b"no archive", "cannot be read (it is damaged or cut off): give a whole file"),
        ("a.txt.xz", b"\xfd7zXZ", "is packed in a way that is not read: unpack it, or pack it as .gz or .zst"),
        ("a.zip", b"PK", "is packed in a way that is not read"),
        ("a.txt", "one\ntwo\n".encode("utf-32"), "is UTF-32, not UTF-8: convert it, for example with iconv -f utf32"),
    ],
)
def test_a_damaged_file_is_told_in_our_words(name: str, content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MirrorError, match=re.escape(reason)):
        texts(tmp_path / name)
