"""Documents from a file's paragraphs and from a folder's files, and as the settings name them."""

from pathlib import Path

import pytest

from mirror.config import DataConfig
from mirror.config.compose import compose
from mirror.data.sources.documents import documents
from mirror.data.texts import read_texts
from mirror.errors import MirrorError
from mirror.training.parts import check_parts
from tests.conftest import SENTENCES

TARGET = {"_target_": "mirror.data.sources.documents.documents"}


def texts_of(path: Path) -> list[str]:
    rows = documents(str(path))
    return [text for text, _ in rows.fetch(range(rows.length))]


def test_paragraphs_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "book.txt"
    file.write_text("\n\nOne line.\nIts second.\n \t\nTwo.\n\n\nThree\nends the book", encoding="utf-8")
    assert texts_of(file) == ["One line.\nIts second.", "Two.", "Three\nends the book"]
    table = read_texts(DataConfig(path=str(file), source=TARGET, size=None), 0)
    assert table.pairs[0] == ("One line. Its second.", "One line. Its second.")
    assert table.source == "paragraphs of book.txt"


def test_files_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "deep" / ".git").mkdir(parents=True)
    (tmp_path / "b.txt").write_text("Second.\n\nStill the second.\n")
    (tmp_path / "a.md").write_text("First.")
    (tmp_path / "deep" / "c.TXT").write_text("Third.")
    for passed_over in (tmp_path / "code.py", tmp_path / ".d.txt", tmp_path / "deep" / ".git" / "e.txt"):
        passed_over.write_text("Not this.")
    (tmp_path / "empty.txt").touch()
    assert texts_of(tmp_path) == ["First.", "Second.\n\nStill the second.", "Third."]


def test_the_command_line_names_them(tmp_path: Path) -> None:
    file = tmp_path / "book.txt"
    file.write_text("\n\n".join(SENTENCES[:20]))
    config = compose("train", ["data=documents", f"data.path='{file}'", "data.size=null"])
    check_parts(config)
    assert len(read_texts(config.data, 0).pairs) == 20
    with pytest.raises(MirrorError, match=r"data.path is not set"):
        compose("train", ["data=documents"])


def test_what_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "code.py").touch()
    with pytest.raises(MirrorError, match=r"data.path=.* has no text files \(.txt, .text, .md, .rst\): give another"):
        documents(str(tmp_path))
    lines = tmp_path / "lines.txt"
    lines.write_text("\n".join(SENTENCES))
    with pytest.raises(MirrorError, match=r"lines.txt is a single document: separate its documents by blank lines"):
        documents(str(lines))
    with pytest.raises(MirrorError, match=r"data.path=missing.txt cannot be read"):
        documents("missing.txt")
    lines.write_bytes(b"gr\xfcn")
    with pytest.raises(MirrorError, match=r"data.path=.*lines.txt is not UTF-8"):
        documents(str(tmp_path))
