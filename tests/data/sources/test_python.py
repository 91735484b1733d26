"""Functions of Python files: which they are, and that they keep their lines."""

import ast
import logging
from pathlib import Path

import pytest

from mirror.config import DataConfig
from mirror.config.compose import compose
from mirror.data.sources.python import functions
from mirror.data.texts import read_texts
from mirror.errors import MirrorError
from mirror.training.parts import check_parts
from tests.conftest import ROOT

SOURCE = '''
import os

LIMIT = 3  # of something


@cached(
    size=LIMIT,
)
def outer(a, b=1):
    """Doc."""
    # a comment
    def inner(c):
        return c

    return inner(a) + b


class Shape:
    sides = 4

    async def area(self):
        text = """
left of it"""
        return text

    if LIMIT:

        def hidden(self): return os
'''


def texts_of(path: Path) -> list[str]:
    rows = functions(str(path))
    return [text for text, _ in rows.fetch(range(rows.length))]


def test_functions_and_methods_with_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "shapes.py"
    file.write_text(SOURCE)
    outer, hidden = texts_of(file)  # of the method, a string stands further left
    assert outer.startswith("@cached(\n    size=LIMIT,\n)\ndef outer(a, b=1):\n")
    assert outer.endswith("    # a comment\n    def inner(c):\n        return c\n\n    return inner(a) + b")
    assert hidden == "def hidden(self): return os"


def test_lines_reach_the_training(tmp_path: Path) -> None:
    (tmp_path / "shapes.py").write_text(SOURCE)
    config = compose("train", ["data=python", f"data.path='{tmp_path}'", "data.size=null"])
    check_parts(config)
    table = read_texts(config.data, 0)
    assert [text for text, _ in table.pairs] == texts_of(tmp_path)
    assert table.source == f"functions of {tmp_path.name}"


def test_the_functions_of_this_package_parse() -> None:
    texts = texts_of(ROOT / "mirror")
    assert len(texts) > 500
    for text in texts:
        (function,) = ast.parse(text).body
        assert isinstance(function, ast.FunctionDef)


def test_what_cannot_be_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "notes.txt").write_text("def f(): pass")
    with pytest.raises(MirrorError, match=r"has no Python files \(.py\): give a folder of Python source"):
        functions(str(tmp_path))
    with pytest.raises(MirrorError, match=r"notes.txt has no Python files"):
        functions(str(tmp_path / "notes.txt"))
    with pytest.raises(MirrorError, match=r"data.path=missing does not exist"):
        functions("missing")
    (tmp_path / "empty.py").write_text("x = 1")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "a.py").write_text("def f(): pass")
    with pytest.raises(MirrorError, match=r"has no functions in its Python files"):
        functions(str(tmp_path))
    (tmp_path / "old.py").write_text("print 1")
    (tmp_path / "latin.py").write_bytes(b"# gr\xfcn\ndef f(): pass")
    (tmp_path / "named.py").write_bytes(b"# -*- coding: latin-1 -*-\ndef g(): return 'gr\xfcn'")
    with caplog.at_level(logging.WARNING):
        assert texts_of(tmp_path) == ["def g(): return 'grün'"]
    assert "2 of 4 files cannot be read as Python" in caplog.text


def test_one_function_is_too_few(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("def f(): pass")
    target = {"_target_": "mirror.data.sources.python.functions"}
    with pytest.raises(MirrorError, match="leaves too few texts"):
        read_texts(DataConfig(path=str(tmp_path), source=target), 0)
