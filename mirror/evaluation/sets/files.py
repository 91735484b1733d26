"""Test files: tab-separated, UTF-8, one header line, no quoting."""

import csv
import math
from pathlib import Path

from mirror.errors import MirrorError

SUFFIX = ".tsv"
ENCODING = "utf-8-sig"
"""UTF-8, with the mark before it that spreadsheets write, or without."""


def header(path: Path) -> list[str]:
    """The columns of a test file.

    Raises:
        MirrorError: it cannot be read, or is empty.
    """
    try:
        with path.open(encoding=ENCODING, newline="") as file:
            columns = next(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE), [])
    except OSError as error:
        raise MirrorError(f"eval.sets names {path}, which cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise MirrorError(f"{path} is not UTF-8 ({error.reason}): convert it.") from error
    except csv.Error as error:
        raise MirrorError(f"{path} cannot be read as tab-separated ({error}): shorten its cells.") from error
    if not columns:
        raise MirrorError(f"{path} is empty: its first line must name its columns (tab-separated).")
    return columns


def read_table(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """Rows of a test file as dictionaries.

    Raises:
        MirrorError: the file or one of the columns is missing, a line is longer than the header, or it is not UTF-8.
    """
    if not path.exists():
        raise MirrorError(f"eval.data_dir lacks {path.parent.name}/{path.name}: add the file or choose another eval=.")
    try:
        with path.open(encoding=ENCODING, newline="") as file:
            reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            rows, found = list(reader), reader.fieldnames or []
    except UnicodeDecodeError as error:
        raise MirrorError(f"{path} is not UTF-8 ({error.reason}): convert it.") from error
    except csv.Error as error:
        raise MirrorError(
            f"{path}, line {reader.line_num}, cannot be read as tab-separated ({error}): shorten its cells."
        ) from error
    absent = [column for column in columns if column not in found]
    if absent:
        raise MirrorError(f"{path} has no column {absent[0]!r}: it needs {', '.join(columns)} (tab-separated).")
    wrong = next((line for line, row in enumerate(rows, start=2) if None in row), None)
    if wrong is not None:
        raise MirrorError(f"{path}, line {wrong} has more cells than the header: is there a tab inside a text?")
    return rows


def number(row: dict[str, str], column: str, path: Path | str, line: int) -> float:
    """A finite number from a row.

    Raises:
        MirrorError: the cell holds something else.
    """
    try:
        value = float(row[column])
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise MirrorError(f"{path}, line {line}: {column} is {row[column]!r}, not a number.")
    return value


def text(row: dict[str, str], column: str, path: Path | str, line: int) -> str:
    """A text that is not empty from a row.

    Raises:
        MirrorError: the cell is empty.
    """
    value = (row[column] or "").strip()
    if not value:
        raise MirrorError(f"{path}, line {line}: {column} is empty.")
    return value
