import logging
import re
from collections.abc import Iterator
from itertools import pairwise

import pytest

from mirror.config import DataConfig
from mirror.data.sources import pydocs
from mirror.data.sources.pydocs import Function, functions, held_out, sentences
from mirror.data.texts import read_texts


def clear() -> None:
    for cached in (functions, held_out, pydocs._docstrings):
        cached.cache_clear()


@pytest.fixture
def fresh() -> Iterator[None]:
    """The documentation is read anew in the test, and again after it."""
    clear()
    yield
    clear()


DOCSTRING = """
    join(separator, *parts) -> str

    Join the parts with a separator, as `str.join` does.  An empty
    part is :func:`skipped <mirror.skip>`.

    A second paragraph says **more** of it.

        >>> join("-", "a", "b")
        'a-b'

    Parameters
    ----------
    separator : str
        What stands between two parts.
    """


def test_a_docstring_becomes_summary_and_description() -> None:
    import inspect

    parsed = pydocs._parse("os.join", inspect.cleandoc(DOCSTRING))
    assert parsed == Function(
        "os.join",
        "Join the parts with a separator, as str.join does.",
        "An empty part is skipped. A second paragraph says more of it.",
    )


def test_there_are_ten_thousand_sentences() -> None:
    assert len(sentences()) >= 10_000
    assert len(set(sentences())) == len(sentences())
    assert all(sentence[0].isupper() and sentence[-1] in ".!?" for sentence in sentences())


def test_code_is_no_sentence() -> None:
    assert not [sentence for sentence in sentences() if ">>>" in sentence or "`" in sentence or "==" in sentence]


def test_functions_are_the_installed_ones() -> None:
    known = {function.name: function for function in functions()}
    assert known["sorted"].summary.startswith("Return a new list containing all items from the iterable")
    assert {"dict.get", "collections.Counter.most_common", "numpy.argsort", "torch.stack"} <= known.keys()
    assert len(known) == len(functions())


def test_order_is_always_the_same() -> None:
    found = []
    for _ in range(2):
        clear()
        sentences.cache_clear()
        found.append((functions(), held_out(), sentences()))
    assert found[0] == found[1]


def test_training_never_sees_what_retrieval_is_measured_on() -> None:
    """Not even as a part of a longer text, or with other quotation marks; found without the package's own splitting."""
    table = read_texts(DataConfig(source={"_target_": "mirror.data.sources.pydocs.documentation"}, size=None), seed=0)
    assert len(table.pairs) >= 10_000
    assert "documentation of Python 3." in table.source
    measured = [words(text) for function in held_out() for text in (function.summary, function.description)]
    assert len(set(measured)) > 1990
    by_opening: dict[str, list[str]] = {}
    for text, _ in table.pairs:
        by_opening.setdefault(" ".join(words(text).split()[:2]), []).append(words(text))
    seen = [
        text
        for passage in measured
        for opening in {" ".join(pair) for pair in pairwise(passage.split())}
        for text in by_opening.get(opening, [])
        if f" {text} " in f" {passage} "
    ]
    assert seen == []


def words(text: str) -> str:
    return re.sub(r"\W+", " ", text.casefold()).strip()


def test_what_another_package_patches_in_is_left_out(monkeypatch: pytest.MonkeyPatch, fresh: None) -> None:
    """Else the texts would depend on what was imported before."""

    def shout() -> None:
        """Log a message so that nobody can miss it."""

    shout.__module__ = "elsewhere.logging"
    monkeypatch.setattr(logging.Logger, "shout", shout, raising=False)
    assert "logging.Logger.shout" not in {function.name for function in functions()}
    shout.__module__ = "logging"
    clear()
    assert "logging.Logger.shout" in {function.name for function in functions()}


def test_like_installations_are_measured_on_nearly_the_same(monkeypatch: pytest.MonkeyPatch, fresh: None) -> None:
    before, fewer = set(held_out()), tuple(function for i, function in enumerate(functions()) if i % 20)
    monkeypatch.setattr(pydocs, "functions", lambda: fewer)
    held_out.cache_clear()
    assert len(before & set(held_out())) >= 0.9 * len(before)


def test_lines_of_a_signature_are_no_summary() -> None:
    parsed = pydocs._parse(
        "a", "array(object, dtype=None,\n      copy=True,\n      like=None) -> array\n\nCreate an array."
    )
    assert parsed == Function("a", "Create an array.", "")


def test_held_out_functions_are_distinct() -> None:
    chosen = held_out()
    assert len(chosen) == pydocs.HELD_OUT
    assert len({function.summary for function in chosen}) == len({f.description for f in chosen}) == len(chosen)
    assert not [function for function in chosen if function.summary in function.description]
