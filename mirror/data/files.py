"""Files and data sets of the hub as rows of texts."""

import codecs
import errno
import glob
import hashlib
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mirror.config import DataConfig
from mirror.data.packed import OPENERS, OTHERS
from mirror.data.rows import Rows
from mirror.encoder import hub
from mirror.errors import MirrorError
from mirror.runs.atomic import written_whole

READERS = {
    ".txt": "text", ".text": "text", ".csv": "csv", ".tsv": "csv",
    ".jsonl": "json", ".json": "json", ".parquet": "parquet",
}  # fmt: skip
"""Which builder of ``datasets`` reads a file; any other suffix is plain text."""
WIDE = {
    codecs.BOM_UTF32_LE: "UTF-32", codecs.BOM_UTF32_BE: "UTF-32", codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}  # fmt: skip
"""How a file of another width begins; UTF-32 first, which begins as UTF-16 does."""
WANTED = {
    "csv": "a table with one text in a row, and its columns named in the first",
    "json": 'one object in a line, as {"text": "…"}',
    "parquet": "a whole file",
    "text": "one text a line",
}
"""What a builder reads."""
USUAL_COLUMNS = ("text", "sentence")
"""Taken without being asked for where a table has several columns of text."""


def regular_file(path: Path, named: str) -> Path:
    """The path, if it is a file that can be read more than once: no folder, pipe or device.

    Raises:
        MirrorError: it is something else, or nothing; ``named`` is what the user wrote, with the setting.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise MirrorError(f"{named} cannot be read ({reason}): give a text file.") from error
    if stat.S_ISDIR(mode):
        raise MirrorError(f"{named} is a folder: give one file in it.")
    if not stat.S_ISREG(mode):
        raise MirrorError(f"{named} is a pipe or a device, which is read only once: write the texts to a file first.")
    return path


def read_lines(path: str, setting: str) -> list[str]:
    """The lines of a text file as they are, empty ones included.

    Raises:
        MirrorError: the file cannot be read, is not UTF-8 or not text at all, or is empty.
    """
    file_path = regular_file(hub.local_path(path), f"{setting}={path}")
    try:
        # Lines end where an editor ends them: splitlines would also split at Unicode's other separators.
        with file_path.open(encoding="utf-8-sig") as file:
            lines = [line.removesuffix("\n") for line in file]
    except OSError as error:
        raise MirrorError(f"{setting}={path} cannot be read ({error.strerror}): give a text file.") from error
    except UnicodeDecodeError as error:
        raise MirrorError(f"{setting}={path} is not UTF-8 (byte {error.start}): {_conversion(file_path)}.") from error
    if not lines:
        raise MirrorError(f"{setting}={path} is empty: give a file with one text a line.")
    if any("\0" in line for line in lines):
        raise MirrorError(f"{setting}={path} is not a text file (it holds a zero byte): give one text a line.")
    return lines


def _conversion(path: Path) -> str:
    """The remedy for a file in another encoding."""
    with path.open("rb") as file:
        known = (_wide(file.read(4)) or "latin1").replace("UTF-", "utf")
    return f"convert it, for example with iconv -f {known} -t utf8"


def _wide(begin: bytes) -> str | None:
    return next((name for mark, name in WIDE.items() if begin.startswith(mark)), None)


def is_file_name(path: str) -> bool:
    """Whether ``data.path`` names a file rather than a data set on the hub."""
    return hub.looks_local(path) or Path(path).suffix.lower() in READERS


def file_rows(config: DataConfig) -> Rows:
    """The rows of the local file ``data.path``: memory-mapped, so that its size hardly matters.

    Raises:
        MirrorError: the file, or a column of it, cannot be read.
    """
    assert config.path is not None
    named = f"data.path={config.path}"
    path = hub.local_path(config.path)
    if not os.path.exists(path):
        raise MirrorError(f"{named} does not exist: give a text file or a hub data set.")
    regular_file(path, named)
    if config.name is not None or config.split != DataConfig.split:
        ignored = f"split={config.split}" if config.name is None else f"name={config.name}"
        raise MirrorError(f"data.{ignored} is for data sets of the hub, and {named} is a file: leave it out.")
    if path.suffix.lower() in OTHERS:
        raise MirrorError(f"{named} is packed in a way that is not read: unpack it, or pack it as .gz or .zst.")
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in OPENERS]
    suffix = suffixes[-1] if suffixes and suffixes[-1] in READERS else ".txt"
    builder = READERS[suffix]
    before = path.stat()
    folder = _cached(path, named, suffix, utf8=builder != "parquet")
    import datasets
    import pandas
    from pyarrow import parquet

    rows = 1
    options: dict[str, Any] = {}
    if builder == "csv":
        options["sep"] = "\t" if suffix == ".tsv" else ","
        options["keep_default_na"] = False  # the word NA is a text
        if suffix == ".tsv":
            options["quoting"] = 3  # csv.QUOTE_NONE: a tab-separated file has no quoting
    texts = str(folder / f"texts{suffix}")
    try:
        if builder == "csv":
            # Every cell is text: a column of numbers is still a column that can be named.
            header = pandas.read_csv(texts, nrows=1, **options)
            rows = len(header)
            options["features"] = datasets.Features({name: datasets.Value("string") for name in header.columns})
        elif builder == "parquet":
            rows = parquet.ParquetFile(texts).metadata.num_rows
        if rows == 0:  # datasets has no words for it
            raise MirrorError(f"{named} is a table without a row: give a file with at least two texts.")
        with _no_bars():
            table = datasets.load_dataset(
                builder, data_files=glob.escape(texts), split="train", cache_dir=str(folder), **options
            )
    except MirrorError:
        raise
    except Exception as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EFBIG, errno.EACCES, errno.EROFS):
            raise _no_cache(folder, cause) from error
        place = re.search(r" in row \d+", str(cause))
        raise MirrorError(
            f"{named} is damaged{place[0] if place else ''}, or no {builder}: give {WANTED[builder]}."
        ) from error
    after = path.stat()
    if (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, after.st_size):
        raise MirrorError(f"{named} was written to while it was read: wait until it is complete.")
    return _rows(table, config)


def _cached(path: Path, named: str, suffix: str, *, utf8: bool) -> Path:
    """The folder in which ``datasets`` keeps its copy of a file, and finds it as ``texts.<suffix>``, unpacked.

    It is named after the file's content: a file that was written again under an old time stamp is read again. And
    ``datasets`` takes paths for patterns and addresses, so that ``a[1].txt`` would be ``a1.txt``: it never sees them.

    Raises:
        MirrorError: the file is damaged, empty or not UTF-8, or the cache cannot be written.
    """
    import datasets

    with _reading(named), path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:20]
    opened = OPENERS.get(path.suffix.lower())
    if utf8:
        _check_utf8(opened or open, path, named)
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "mirror" / digest
    texts = folder / f"texts{suffix}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if opened is None or not texts.is_file():
            with written_whole(texts) as partial:  # another process may do the same
                if opened is None:
                    partial.symlink_to(path.resolve())
                else:
                    with opened(path, "rb") as packed, partial.open("wb") as unpacked:
                        shutil.copyfileobj(packed, unpacked)
    except OSError as error:
        raise _no_cache(folder, error) from error
    return folder


def _no_cache(folder: Path, error: OSError) -> MirrorError:
    return MirrorError(
        f"The cache of texts {folder.parent} cannot be written ({error.strerror}): free some space there, or name "
        "another folder in HF_DATASETS_CACHE."
    )


@contextmanager
def _reading(named: str) -> Iterator[None]:
    """Whatever the system, or a decompressor of a damaged file, says becomes one sentence."""
    try:
        yield
    except MirrorError:
        raise
    except Exception as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is damaged or cut off"
        raise MirrorError(f"{named} cannot be read ({reason}): give a whole file.") from error


def _check_utf8(opened: Callable[..., Any], path: Path, named: str) -> None:
    line = 0
    with _reading(named), opened(path, "rb") as file:
        for line, raw in enumerate(file, start=1):
            if line == 1 and (wide := _wide(raw)):
                raise MirrorError(f"{named} is {wide}, not UTF-8: {_conversion(path)}.")
            if b"\0" in raw:
                raise MirrorError(
                    f"{named} is not a text file (line {line} holds a zero byte): give txt, csv, tsv, jsonl or parquet."
                )
            try:
                raw.decode("utf-8")
            except UnicodeDecodeError:
                raise MirrorError(f"{named} is not UTF-8 in line {line}: {_conversion(path)}.") from None
    if line == 0:
        raise MirrorError(f"{named} is empty: give a file with at least two texts.")


def hub_rows(config: DataConfig) -> Rows:
    """The rows of the data set ``data.path`` on the hub.

    Raises:
        MirrorError: there is no such data set, or the hub cannot be reached.
    """
    assert config.path is not None
    what = f"data.path={config.path}"
    table = hub.load_dataset(config.path, config.name, config.split, what, "give a local file")
    return _rows(table, config)


@contextmanager
def _no_bars() -> Iterator[None]:
    import datasets

    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


def _rows(table: Any, config: DataConfig) -> Rows:
    columns = list(table.column_names)
    left = _column(columns, config.column, "data.column")
    right = _column(columns, config.pair_column, "data.pair_column") if config.pair_column else left

    def fetch(chosen: Sequence[int]) -> list[tuple[Any, Any]]:
        rows = table[chosen]
        pairs = list(zip(rows[left], rows[right], strict=True))
        if wrong := next((cell for pair in pairs for cell in pair if not isinstance(cell, str | None)), None):
            raise MirrorError(
                f"The column {left} of {config.path} holds {type(wrong).__name__}, not texts: choose another by "
                "data.column."
            )
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
