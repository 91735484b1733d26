"""Terminals and files whose encoding lacks some characters, such as those of an ASCII or Latin-1 locale."""

import codecs
import io
import sys

NAME = "mirror.nearest"
"""Of the way in which characters are replaced."""
NEAREST = {
    "─": "-", "│": "|", "…": "..", "–": "-", "−": "-", "×": "x", "±": "+-", "†": "+", "²": "2", "▁": "_", "·": ".",
    "≠": "!=", "’": "'", "█": "#",
}  # fmt: skip
"""What stands for the signs of mirror's tables and sentences: as wide where it can be, for the columns to stay."""


def readable() -> None:
    """Print what the encoding has; signs become those nearest to them, other characters Python's escapes."""
    codecs.register_error(NAME, _nearest)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=NAME)


def _nearest(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(
        NEAREST.get(sign) or sign.encode("ascii", "backslashreplace").decode() for sign in lacking
    ), error.end
