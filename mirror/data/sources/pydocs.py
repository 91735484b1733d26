"""Text that every machine has: the documentation of Python and of the packages that are installed with mirror.

It is read from the running installation, so that a first run needs neither a data set nor a network.
"""

import importlib
import inspect
import platform
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Any

from mirror.data.rows import Rows, in_memory

STANDARD = (
    "argparse", "array", "ast", "asyncio", "base64", "bisect", "builtins", "bz2", "calendar", "cmath", "codecs",
    "collections", "collections.abc", "colorsys", "concurrent.futures", "configparser", "contextlib", "copy", "csv",
    "dataclasses", "datetime", "decimal", "difflib", "dis", "email", "enum", "fileinput", "fnmatch", "fractions",
    "functools", "gc", "getpass", "gettext", "glob", "gzip", "hashlib", "heapq", "hmac", "html", "html.parser",
    "http.client", "http.server", "importlib", "inspect", "io", "ipaddress", "itertools", "json", "keyword",
    "linecache", "locale", "logging", "lzma", "mailbox", "math", "mimetypes", "mmap", "multiprocessing", "numbers",
    "operator", "os", "os.path", "pathlib", "pdb", "pickle", "pkgutil", "platform", "plistlib", "pprint", "profile",
    "queue", "random", "re", "reprlib", "sched", "secrets", "select", "selectors", "shelve", "shlex", "shutil",
    "signal", "socket", "socketserver", "sqlite3", "ssl", "stat", "statistics", "string", "struct", "subprocess",
    "symtable", "sys", "sysconfig", "tarfile", "tempfile", "textwrap", "threading", "time", "timeit", "tokenize",
    "tomllib", "traceback", "tracemalloc", "types", "typing", "unicodedata", "unittest", "unittest.mock",
    "urllib.parse", "urllib.request", "uuid", "warnings", "wave", "weakref", "xml.dom.minidom",
    "xml.etree.ElementTree", "xml.sax", "zipfile", "zlib", "zoneinfo",
)  # fmt: skip
SCIENTIFIC = (
    "numpy", "numpy.fft", "numpy.linalg", "numpy.ma", "numpy.polynomial", "numpy.random", "pandas",
    "scipy.cluster.hierarchy", "scipy.cluster.vq", "scipy.constants", "scipy.fft", "scipy.integrate",
    "scipy.interpolate", "scipy.io", "scipy.linalg", "scipy.ndimage", "scipy.optimize", "scipy.signal",
    "scipy.sparse", "scipy.sparse.csgraph", "scipy.sparse.linalg", "scipy.spatial", "scipy.spatial.distance",
    "scipy.special", "scipy.stats", "torch", "torch.distributions", "torch.fft", "torch.linalg", "torch.nn",
    "torch.nn.functional", "torch.nn.init", "torch.optim", "torch.utils.data",
)  # fmt: skip
PACKAGES = sorted({name.partition(".")[0] for name in SCIENTIFIC})
OWNERS = {*sys.stdlib_module_names, *PACKAGES}
"""Whose functions are read: some packages patch their own into the standard library."""
HELD_OUT = 1000
"""Functions whose texts are kept from training, for the retrieval measure."""

SECTION = re.compile(
    r"^(?:(?P<numpy>[A-Z][\w ]+)\n\s*[-=~]{3,}\s*$"
    r"|(?:Args?|Arguments|Parameters|Keyword args|Keyword Arguments|Returns?|Yields?|Raises|Examples?|Note|Shape"
    r"|Attributes|Warning|References|See also|See Also)\s*::?\s*$|\.\. )",
    re.MULTILINE,
)
"""Where the prose of a docstring ends and its tables begin."""
HEADING = re.compile(r"[\w*, ]+ ?: |\w+:$|.*\) ?->|[\w.]+\(.*\)$|[\w.]+\(.*,$|\w+=.*,$|[^(]*\)(?: ->.*)?$")
"""Lines over a paragraph that are not prose: a parameter with its type, a section, a signature and its other lines."""
MARKUP = re.compile(
    r":[\w:+-]+:`~?([^`<]*?)(?:\s*<[^`>]*>)?`|``([^`]*)``|`([^`<]*?)(?:\s*<[^`>]*>)?`_{0,2}|\*\*?([^*\s][^*]*)\*\*?"
)
LEGACY = re.compile(r"\w+Tensor")
"""torch's typed tensors repeat ``torch.Tensor``."""
POINTER = re.compile(r"(See|Alias|In-place version|Same as|Equivalent to)\b")
"""Summaries that say nothing themselves."""
SENTENCE_END = re.compile(r"(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.)\s+(?=[A-Z\"'(])")
UNCLEAN = re.compile(r"[`\\|]|[*=_]{2}|\s\*\s|\w+ \(\w+\):|\w+ : \w+")
"""Left over from markup, formulas or tables."""
SHORTEST, LONGEST = 25, 300
"""Characters of a sentence."""


@dataclass(frozen=True)
class Function:
    """What the documentation says of a function, a class or a method."""

    name: str
    """As in ``numpy.argsort``."""
    summary: str
    """Its first sentence."""
    description: str
    """The prose after it, up to the tables of parameters; often empty."""


@cache
def functions() -> tuple[Function, ...]:
    """Everything documented in the public modules, in the order of names; each summary once."""
    found: dict[str, Function] = {}
    for name, text in _docstrings():
        function = _parse(name, text)
        if function is not None:
            found.setdefault(function.summary, function)
    return tuple(found.values())


@cache
def held_out() -> tuple[Function, ...]:
    """The functions that retrieval is measured on: each has a description, no two the same, none with its summary.

    A function is chosen by its name alone, so that installations that differ little are measured on nearly the same.
    """
    described = {
        function.description: function
        for function in functions()
        if len(function.description) >= 2 * SHORTEST and _words(function.summary) not in _words(function.description)
    }
    chosen = sorted(described.values(), key=lambda function: sha256(function.name.encode()).digest())
    return tuple(chosen[:HELD_OUT])


@cache
def sentences() -> tuple[str, ...]:
    """Sentences of the documentation, each once; none whose words stand in a text of ``held_out``."""
    from pydoc_data.topics import topics

    kept_out = [_words(text) for function in held_out() for text in (function.summary, function.description)]
    passages, openings = "\n".join(kept_out), {opening for text in kept_out for opening in _triples(text)}

    def is_new(sentence: str) -> bool:
        # The words and not the sentences: another paragraph or another quotation mark does not make a text unseen.
        words = _words(sentence)
        return next(_triples(words), None) not in openings or words not in passages  # the first is quick

    texts = [*topics.values(), *(text for _, text in _docstrings())]
    parts = (part for text in texts for paragraph in _paragraphs(text) for part in split_sentences(paragraph))
    return tuple(part for part in dict.fromkeys(parts) if _is_prose(part) and is_new(part))


def documentation() -> Rows:
    """The sentences as a source of training texts."""
    return in_memory(sentences(), f"documentation of {origin()}")


def origin() -> str:
    """Python and the packages whose documentation this is, with their versions."""
    found = [f"Python {platform.python_version()}"]
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def split_sentences(text: str) -> list[str]:
    """The sentences of a paragraph."""
    return SENTENCE_END.split(text)


@cache
def _docstrings() -> tuple[tuple[str, str], ...]:
    """Names and docstrings, sorted by name; an object that has several names counts under the shortest."""
    modules: dict[str, ModuleType] = {}
    for name in (*STANDARD, *SCIENTIFIC):
        try:
            modules[name] = importlib.import_module(name)
        except ImportError:  # not installed, or not on this system
            continue
    # Read only now: importing one package changes what others say, and the order must not matter.
    names: dict[str, str] = {}
    for module_name, module in modules.items():
        for name, text in _members(module, module_name.removeprefix("builtins")):
            if text not in names or (len(name), name) < (len(names[text]), names[text]):
                names[text] = name
    return tuple(sorted((name, text) for text, name in names.items()))


def _members(module: ModuleType, prefix: str) -> Iterator[tuple[str, str]]:
    public = getattr(module, "__all__", None) or [name for name in dir(module) if not name.startswith("_")]
    for name in sorted(public):
        item = getattr(module, name, None)
        if inspect.ismodule(item) or not callable(item) or LEGACY.fullmatch(name):
            continue
        full = f"{prefix}.{name}".lstrip(".")
        if text := _doc(item):
            yield full, text
        if inspect.isclass(item):
            for method in sorted(vars(item)):
                if not method.startswith("_") and (text := _doc(vars(item)[method])):
                    yield f"{full}.{method}", text


def _doc(item: Any) -> str:
    text, module = getattr(item, "__doc__", None), getattr(item, "__module__", None)
    if isinstance(module, str) and module.partition(".")[0] not in OWNERS:
        return ""
    return inspect.cleandoc(text) if isinstance(text, str) else ""


def _parse(name: str, text: str) -> Function | None:
    end = SECTION.search(text)
    paragraphs = list(_paragraphs(text[: end.start()] if end else text))
    if not paragraphs:
        return None
    summary, *rest = split_sentences(paragraphs[0])
    if len(summary) < 15 or " " not in summary or not summary[0].isalpha() or POINTER.match(summary):
        return None
    description = " ".join([*rest, *paragraphs[1:]])
    return Function(name, summary, "" if summary in description else description)


def _paragraphs(text: str) -> Iterator[str]:
    """The prose of a text: paragraphs without code, tables, signatures and markup."""
    for block in re.split(r"\n\s*\n", text):
        lines = [line.strip() for line in block.splitlines()]
        if any(line.startswith((">>>", "...", "|", "+-", "===", "---")) for line in lines):
            continue
        # A parameter's name stands over its description, a signature over a docstring.
        while lines and (not lines[0] or HEADING.match(lines[0])):
            lines.pop(0)
        paragraph = " ".join(" ".join(lines).split())
        paragraph = MARKUP.sub(lambda found: next(group for group in found.groups() if group is not None), paragraph)
        if paragraph:
            yield paragraph


def _is_prose(sentence: str) -> bool:
    letters = sum(character.isalpha() or character == " " for character in sentence)
    return (
        SHORTEST <= len(sentence) <= LONGEST
        and sentence[0].isupper()
        and sentence[-1] in ".!?"
        and len(sentence.split()) >= 5
        and letters >= 0.85 * len(sentence)
        and not UNCLEAN.search(sentence)
    )


def _words(text: str) -> str:
    """What is said, without case and punctuation, between spaces."""
    return " ".join(["", *re.findall(r"\w+", text.casefold()), ""])


def _triples(text: str) -> Iterator[tuple[str, ...]]:
    """Every three words in a row."""
    words = text.split()
    return zip(words, words[1:], words[2:], strict=False)
