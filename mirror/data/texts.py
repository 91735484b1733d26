"""Raw texts: read from wherever they are, cleaned, de-duplicated, sampled."""

import gzip
import inspect
import io
import unicodedata
import zlib
from array import array
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, overload

from mirror.config import DataConfig, Sample
from mirror.config.parts import TARGET, build, located
from mirror.encoder import hub
from mirror.errors import MirrorError

CHUNK = 1024
"""Rows fetched at a time: a table's rows cost far less together than one by one."""
LONG = 100_000
"""Texts above which they are neither held in memory nor tokenised ahead."""
READERS = {
    ".txt": "text", ".text": "text", ".csv": "csv", ".tsv": "csv",
    ".jsonl": "json", ".json": "json", ".parquet": "parquet",
}  # fmt: skip
"""Which builder of ``datasets`` reads a file; any other suffix is plain text."""


def read_lines(path: str, setting: str) -> list[str]:
    """The lines of a text file as they are, empty ones included.

    Raises:
        MirrorError: the file cannot be read, is not UTF-8 or not text at all, or is empty.
    """
    try:
        # Lines end where an editor ends them: splitlines would also split at Unicode's other separators.
        with Path(path).expanduser().open(encoding="utf-8-sig") as file:
            lines = [line.removesuffix("\n") for line in file]
    except OSError as error:
        raise MirrorError(f"{setting}={path} cannot be read ({error.strerror}): give a text file.") from error
    except UnicodeDecodeError as error:
        raise MirrorError(f"{setting}={path} is not UTF-8 (byte {error.start}): convert it.") from error
    if not lines:
        raise MirrorError(f"{setting}={path} is empty: give a file with one text a line.")
    if any("\0" in line for line in lines):
        raise MirrorError(f"{setting}={path} is not a text file (it holds a zero byte): give one text a line.")
    return lines


def _open_zst(path: Path, mode: str) -> Any:
    try:
        import zstandard
    except ImportError:
        raise MirrorError(f"{path} needs the package zstandard: pip install 'mirror-encoders[zstd]'.") from None
    return io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(path.open("rb"), closefd=True))


COMPRESSED: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".zst": _open_zst}
USUAL_COLUMNS = ("text", "sentence")
"""Taken without being asked for where a table has several columns of text."""

Pair = tuple[str, str]
"""A text and its positive, which is the text itself unless the data gives another."""


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
    if config.path is None:
        rows = _from_source(config)
        source = rows.name
    elif hub.looks_local(config.path) or Path(config.path).suffix.lower() in READERS:
        source, rows = Path(config.path).name, _rows_of(_read_file(config), config)
    else:
        source, rows = config.path, _rows_of(_read_hub(config), config)
    return choose(rows, config, seed, source, excluded)


@dataclass
class Rows:
    """Lazy access to the rows of a table."""

    length: int
    fetch: Callable[[Sequence[int]], list[tuple[Any, Any]]]
    """Row numbers to raw texts with their positives."""
    name: str = ""
    """Of the source, for the log and the model card."""


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
        known = hash(pair) if size > LONG else pair
        if not all(pair):
            table.empty += 1
        elif config.deduplicate and known in seen:
            table.duplicate += 1
        elif excluded is not None and any(text in excluded for text in dict.fromkeys(pair)):
            table.excluded = (table.excluded or 0) + 1
        else:
            seen.add(known)
            kept.append(row)
            if size <= LONG:
                pairs.append(pair)
            table.fingerprint = zlib.crc32("\n".join(pair).encode("utf-8", "surrogatepass"), table.fingerprint)
    table.pairs = pairs if size <= LONG else LongPairs(rows, kept)
    if len(table.pairs) < 2:
        raise MirrorError(
            f"data.path={config.path} leaves too few texts ({table}): training needs at least two different ones."
        )
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
    """The rows in that order, cleaned."""
    for start in range(0, len(order), CHUNK):
        for left, right in rows.fetch(order[start : start + CHUNK]):
            text = clean(left or "")  # a missing cell is an empty text
            yield text, text if right is left else clean(right or "")


def in_memory(texts: Iterable[str] | Iterable[Pair], name: str = "") -> Rows:
    """Rows over texts, or pairs of texts, that a program holds already.

    Raises:
        MirrorError: an item is neither a string nor a pair of strings.
    """
    pairs: list[Pair] = []
    for i, item in enumerate(texts):
        pair = (item, item) if isinstance(item, str) else tuple(item) if isinstance(item, tuple | list) else ()
        if len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise MirrorError(f"texts[{i}] is neither a string nor a pair of strings: {item!r:.80}")
        pairs.append((pair[0], pair[1]))
    return Rows(len(pairs), lambda chosen: [pairs[i] for i in chosen], name)


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
    found = build(config.source, "data.source", object, language=config.language, size=config.size)
    if isinstance(found, Rows):
        return found
    if not isinstance(found, Iterable):
        raise MirrorError(f"data.source.{TARGET}={config.source[TARGET]} gives no texts: return a list of them.")
    return in_memory(found, config.source[TARGET])


def _read_file(config: DataConfig) -> Any:
    """A local file as a ``datasets.Dataset``: memory-mapped, so that its size hardly matters."""
    assert config.path is not None
    path = Path(config.path).expanduser()
    if not path.exists():
        raise MirrorError(f"data.path={config.path} does not exist: give a text file or a hub data set.")
    if path.is_dir():
        raise MirrorError(f"data.path={config.path} is a folder: give one file in it.")
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in COMPRESSED]
    builder = READERS.get(suffixes[-1] if suffixes else ".txt", "text")
    if builder != "parquet":
        _check_utf8(path, config.path)
    import datasets
    import pandas

    options: dict[str, Any] = {}
    if builder == "csv":
        options["sep"] = "\t" if suffixes[-1] == ".tsv" else ","
        options["keep_default_na"] = False  # the word NA is a text
        if suffixes[-1] == ".tsv":
            options["quoting"] = 3  # csv.QUOTE_NONE: a tab-separated file has no quoting
    try:
        if builder == "csv":
            # Every cell is text: a column of numbers is still a column that can be named.
            header = pandas.read_csv(path, nrows=0, **options)
            options["features"] = datasets.Features({name: datasets.Value("string") for name in header.columns})
        return _quiet(lambda: datasets.load_dataset(builder, data_files=str(path), split="train", **options))
    except Exception as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        reason = " ".join(str(cause).split())[:200]
        raise MirrorError(f"data.path={config.path} cannot be read as {builder}: {reason}") from error


def _check_utf8(path: Path, shown: str) -> None:
    line = 0
    try:
        with COMPRESSED.get(path.suffix.lower(), open)(path, "rb") as file:
            for line, raw in enumerate(file, start=1):
                if b"\0" in raw:
                    raise MirrorError(
                        f"data.path={shown} is not a text file (line {line} holds a zero byte): "
                        "give txt, csv, tsv, jsonl or parquet."
                    )
                raw.decode("utf-8")
    except UnicodeDecodeError:
        raise MirrorError(
            f"data.path={shown} is not UTF-8 in line {line}: convert it, for example with iconv -f latin1 -t utf8."
        ) from None
    except MirrorError:
        raise
    except Exception as error:  # the system's errors, and whatever a decompressor says of a damaged file
        raise MirrorError(f"data.path={shown} cannot be read: {error}") from error
    if line == 0:
        raise MirrorError(f"data.path={shown} is empty: give a file with at least two texts.")


def _read_hub(config: DataConfig) -> Any:
    import datasets

    reachable = hub.go_offline_unless_reachable()
    try:
        return datasets.load_dataset(config.path, config.name, split=config.split)
    except Exception as error:
        if not reachable:
            raise MirrorError(
                f"data.path={config.path} is no local file, and the hub cannot be reached: give a local file."
            ) from error
        raise MirrorError(f"data.path={config.path}: {' '.join(str(error).split())[:300]}") from error


def _quiet(load: Callable[[], Any]) -> Any:
    import datasets

    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        return load()
    finally:
        if shown:
            datasets.enable_progress_bars()


def _rows_of(table: Any, config: DataConfig) -> Rows:
    columns = list(table.column_names)
    left = _column(columns, config.column, "data.column")
    right = _column(columns, config.pair_column, "data.pair_column") if config.pair_column else left

    def fetch(chosen: Sequence[int]) -> list[tuple[Any, Any]]:
        rows = table[chosen]
        pairs = list(zip(rows[left], rows[right], strict=True))
        if wrong := next((cell for pair in pairs for cell in pair if not isinstance(cell, str | None)), None):
            raise MirrorError(f"The column {left} of {config.path} holds {type(wrong).__name__}, not texts.")
        return [_split(text, config) for text, _ in pairs] if config.pair_separator else pairs

    return Rows(len(table), fetch)


def _split(text: str | None, config: DataConfig) -> tuple[str, str]:
    assert config.pair_separator
    first, found, second = (text or "").partition(config.pair_separator)
    if text and text.strip() and not found:
        raise MirrorError(
            f"data.pair_separator={config.pair_separator!r} is missing from the line {text[:60]!r} of "
            f"{config.path}: every line must hold two texts."
        )
    return first, second


def _column(columns: list[str], wanted: str | None, setting: str) -> str:
    if wanted is not None:
        if wanted not in columns:
            raise MirrorError(f"{setting}={wanted} is not a column of the data; it has {', '.join(columns)}.")
        return wanted
    if len(columns) == 1:
        return columns[0]
    usual = [column for column in USUAL_COLUMNS if column in columns]
    if not usual:
        raise MirrorError(f"{setting} is not set and the data has several columns: choose {', '.join(columns)}.")
    return usual[0]
