"""Documents: the paragraphs of a text file, or the text files of a folder."""

from itertools import groupby
from pathlib import Path

from mirror.data.files import read_lines
from mirror.data.rows import Rows, in_memory
from mirror.encoder.hub import local_path
from mirror.errors import MirrorError

SUFFIXES = (".txt", ".text", ".md", ".rst")
"""Of the files that are read in a folder."""


def documents(path: str) -> Rows:
    """Texts of several lines each.

    Args:
        path: a text file, whose paragraphs are separated by blank lines, or a folder, in which each text file, also in
            folders within it, is one document. Names that begin with a dot are passed over.

    Raises:
        MirrorError: a file cannot be read, is not UTF-8 or has no blank lines; a folder has no text files.
    """
    place = local_path(path)
    if place.is_dir():
        files = [
            file
            for file in sorted(place.rglob("*"))
            if file.suffix.lower() in SUFFIXES and file.is_file() and not _hidden(file.relative_to(place))
        ]
        if not files:
            raise MirrorError(f"data.path={path} has no text files ({', '.join(SUFFIXES)}): give another folder.")
        filled = [file for file in files if file.stat().st_size]
        return in_memory(("\n".join(read_lines(str(file), "data.path")) for file in filled), f"files of {place.name}")
    lines = read_lines(path, "data.path")
    paragraphs = ["\n".join(group) for filled, group in groupby(lines, lambda line: bool(line.strip())) if filled]
    if len(paragraphs) == 1:
        raise MirrorError(
            f"data.path={path} is a single document: separate its documents by blank lines, or set data=file for one "
            "text a line."
        )
    return in_memory(paragraphs, f"paragraphs of {place.name}")


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
