"""Rows of texts, wherever they lie."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

from mirror.encoder.layout import check_characters, check_no_table
from mirror.errors import MirrorError

Pair = tuple[str, str]
"""A text and its positive, which is the text itself unless the data gives another."""


@dataclass
class Rows:
    """Lazy access to the rows of a table."""

    length: int
    fetch: Callable[[Sequence[int]], list[tuple[Any, Any]]]
    """Row numbers to raw texts with their positives."""
    name: str = ""
    """Of the source, for the log and the model card."""
    verbatim: bool = False
    """Line breaks and other white space are kept, as source code needs them."""


def in_memory(texts: Iterable[str] | Iterable[Pair], name: str = "", *, verbatim: bool = False) -> Rows:
    """Rows over texts, or pairs of texts, that a program holds already.

    Raises:
        MirrorError: an item is neither a string nor a pair of strings, or it is a table.
    """
    if texts is None or isinstance(texts, str | PathLike) or not isinstance(texts, Iterable):
        raise MirrorError(f"texts={texts!r:.80} is no list of texts: give the texts themselves, as in ['one', 'two'].")
    check_no_table(texts)
    pairs: list[Pair] = []
    for i, item in enumerate(texts):
        pair = (item, item) if isinstance(item, str) else tuple(item) if isinstance(item, tuple | list) else ()
        if len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise MirrorError(f"texts[{i}] is neither a string nor a pair of strings: {item!r:.80}")
        for text in pair:
            check_characters(text, f"texts[{i}]")
        pairs.append((pair[0], pair[1]))
    return Rows(len(pairs), lambda chosen: [pairs[i] for i in chosen], name, verbatim)
