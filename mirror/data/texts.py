"""The training texts: cleaned, de-duplicated, sampled."""

import inspect
import unicodedata
import zlib
from array import array
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, overload

from mirror.config import DataConfig, Sample
from mirror.config.parts import TARGET, build, located
from mirror.data.files import file_rows, hub_rows, is_file_name
from mirror.data.rows import Pair, Rows, in_memory
from mirror.errors import MirrorError

CHUNK = 1024
"""Rows fetched at a time: a table's rows cost far less together than one by one."""
MAX_IN_MEMORY = 100_000
"""Texts above which they are neither held in memory nor tokenised ahead."""


@dataclass
class TextTable:
    """The training texts, and what became of those that are not among them."""

    pairs: Sequence[Pair]
    source: str
    available: int
    """Texts at the source."""
    read: int
    """Texts looked at: sampling stops when it has enough."""
    empty: int
    duplicate: int
    excluded: int | None = None
    """Texts of test sets that were left out; None where nobody looked."""
    fingerprint: int = 0
    """Tells other texts, or another order, from these."""

    def counts(self) -> dict[str, int]:
        """The figures that are printed and stored."""
        excluded = {} if self.excluded is None else {"excluded": self.excluded}
        return {
            "available": self.available, "read": self.read, "empty": self.empty,
            "duplicate": self.duplicate, **excluded, "kept": len(self.pairs),
        }  # fmt: skip

    def __str__(self) -> str:
        return (
            f"{self.source}: {self.available:,} available, {self.read:,} read, {self.empty:,} empty, "
            f"{self.duplicate:,} duplicate, "
            f"{'' if self.excluded is None else f'{self.excluded:,} of test sets, '}{len(self.pairs):,} kept"
        )


def clean(text: str) -> str:
    """Unicode NFC; runs of white space (byte order marks too) become one space, none at the ends."""
    return " ".join(unicodedata.normalize("NFC", text).replace("\ufeff", " ").split())


def read_texts(config: DataConfig, seed: int, excluded: Container[str] | None = None) -> TextTable:
    """Read, clean, de-duplicate and sample the texts that ``data.*`` names.

    Rows are visited in random order by ``seed`` (or in their own, ``data.sample=first``) until ``data.size``
    clean, distinct texts are found, so a sample of a large source costs what the sample costs. Texts in ``excluded``
    are passed over.

    Raises:
        MirrorError: the source cannot be read, or fewer than two texts are left.
    """
    if config.path is None or _reads_path(config):
        rows = _from_source(config)
        source = rows.name
    elif is_file_name(config.path):
        source, rows = Path(config.path).name, file_rows(config)
    else:
        source, rows = config.path, hub_rows(config)
    return choose(rows, config, seed, source, excluded)


def handed(config: DataConfig) -> dict[str, Any]:
    """What ``data.source`` is given where it asks for it; a source may also have a setting ``path`` of its own."""
    path = {} if "path" in config.source else {"path": config.path}
    return {"language": config.language, "size": config.size, **path}


def _reads_path(config: DataConfig) -> bool:
    return bool(config.source) and "path" in inspect.signature(located(config.source, "data.source")).parameters


def _from_source(config: DataConfig) -> Rows:
    """The texts of ``data.source``.

    Raises:
        MirrorError: there is none, or it does not read ``data.language``.
    """
    if config.source is None:
        raise MirrorError("data.path is not set: add data.path=…, a file or a hub data set, or choose data=words.")
    if (
        config.language != DataConfig.language
        and "language" not in inspect.signature(located(config.source, "data.source")).parameters
    ):
        raise MirrorError(f"data.language={config.language} is not read by {config.source[TARGET]}: leave it out.")
    found = build(config.source, "data.source", object, **handed(config))
    if isinstance(found, Rows):
        return found
    if not isinstance(found, Iterable):
        raise MirrorError(f"data.source.{TARGET}={config.source[TARGET]} gives no texts: return a list of them.")
    return in_memory(found, config.source[TARGET])


def choose(rows: Rows, config: DataConfig, seed: int, source: str, excluded: Container[str] | None = None) -> TextTable:
    """Clean, de-duplicate and sample; see ``read_texts``."""
    order: Sequence[int] = range(rows.length)
    if config.sample is Sample.random and config.size is not None:
        order = list(order)
        Random(seed).shuffle(order)
    size = rows.length if config.size is None else min(config.size, rows.length)
    table = TextTable([], source, available=rows.length, read=0, empty=0, duplicate=0)
    if excluded is not None:
        table.excluded = 0
    pairs: list[Pair] = []
    kept = array("q")  # row numbers
    seen: set[Pair | int] = set()
    for row, pair in zip(order, _stream(rows, order), strict=True):
        if len(kept) == size:
            break
        table.read += 1
        # Of many texts only the hashes are kept: of ten million, two in a million times are taken for equal by mistake.
        known = hash(pair) if size > MAX_IN_MEMORY else pair
        if not all(pair):
            table.empty += 1
        elif config.deduplicate and known in seen:
            table.duplicate += 1
        elif excluded is not None and any(text in excluded for text in dict.fromkeys(pair)):
            table.excluded = (table.excluded or 0) + 1
        else:
            seen.add(known)
            kept.append(row)
            if size <= MAX_IN_MEMORY:
                pairs.append(pair)
            table.fingerprint = zlib.crc32("\n".join(pair).encode("utf-8", "surrogatepass"), table.fingerprint)
    table.pairs = pairs if size <= MAX_IN_MEMORY else LongPairs(rows, kept)
    if len(table.pairs) < 2:
        named = source if config.path is None else f"data.path={config.path}"
        raise MirrorError(f"{named} leaves too few texts ({table}): training needs at least two different ones.")
    return table


class LongPairs(Sequence[Pair]):
    """The chosen rows of a long source: they stay where they are, and are read and cleaned when they are asked for."""

    def __init__(self, rows: Rows, kept: Sequence[int]) -> None:
        """``kept`` are the chosen rows' numbers."""
        self.rows, self.kept = rows, kept

    def __len__(self) -> int:
        return len(self.kept)

    def __iter__(self) -> Iterator[Pair]:
        return _stream(self.rows, self.kept)

    @overload
    def __getitem__(self, place: int) -> Pair: ...
    @overload
    def __getitem__(self, place: slice) -> list[Pair]: ...
    def __getitem__(self, place: int | slice) -> Pair | list[Pair]:
        if isinstance(place, slice):
            return self.take(range(*place.indices(len(self))))
        return self.take([place])[0]

    def take(self, places: Sequence[int]) -> list[Pair]:
        """Many at once, which costs far less than one by one."""
        return list(_stream(self.rows, [self.kept[place] for place in places]))


def _stream(rows: Rows, order: Sequence[int]) -> Iterator[Pair]:
    """The rows in that order, cleaned unless they are to be kept as they are."""
    cleaned = str if rows.verbatim else clean
    for start in range(0, len(order), CHUNK):
        for left, right in rows.fetch(order[start : start + CHUNK]):
            text = cleaned(left or "")  # a missing cell is an empty text
            yield text, text if right is left else cleaned(right or "")
