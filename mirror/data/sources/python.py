"""Python functions of a folder of source files."""

import ast
import logging
import textwrap
import tokenize
from collections.abc import Iterator

from mirror.data.rows import Rows, in_memory
from mirror.data.views.rewrite import parsed
from mirror.encoder.hub import local_path
from mirror.errors import MirrorError

log = logging.getLogger(__name__)


def functions(path: str) -> Rows:
    """Every function and method, with its decorators, comments and line breaks; functions within functions stay there.

    Args:
        path: a Python file, or a folder, which is read with all folders within it. Names that begin with a dot are
            passed over.

    Raises:
        MirrorError: there are no Python files, or no functions in them.
    """
    place = local_path(path)
    if not place.exists():
        raise MirrorError(f"data.path={path} does not exist: give a folder of Python files.")
    found = [place] if place.is_file() else sorted(place.rglob("*.py"))
    files = [file for file in found if not any(part.startswith(".") for part in file.relative_to(place).parts)]
    if not files or any(file.suffix != ".py" for file in files):
        raise MirrorError(f"data.path={path} has no Python files (.py): give a folder of Python source.")
    texts, unread = list[str](), 0
    for file in files:
        try:
            with tokenize.open(file) as opened:  # in the encoding that the file names
                source = opened.read()
        except (OSError, SyntaxError, UnicodeDecodeError):
            source = None
        tree = None if source is None else parsed(source)
        if source is None or tree is None:
            unread += 1
            continue
        texts += _sources(tree, source.splitlines())
    if unread:
        log.warning("data.path=%s: %d of %d files cannot be read as Python and are left out.", path, unread, len(files))
    if not texts:
        raise MirrorError(f"data.path={path} has no functions in its Python files: give another folder.")
    return in_memory(texts, f"functions of {place.name}", verbatim=True)


def _sources(tree: ast.AST, lines: list[str]) -> Iterator[str]:
    """The source of each outermost function."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            text = textwrap.dedent("\n".join(lines[first - 1 : node.end_lineno]))
            if parsed(text) is not None:  # a string may stand further left than its function
                yield text
        else:
            yield from _sources(node, lines)
