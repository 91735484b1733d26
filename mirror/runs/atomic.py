"""Files and folders that appear under their names only when they are whole."""

import errno
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SCRATCH = ".mirror-"
"""How the names of temporary folders begin."""


def reason_of(error: BaseException) -> str:
    """Why the system did not let a file be written, in its own words. numpy tells how far it came on a full disk, and
    safetensors wraps the words in its own."""
    told = getattr(error, "strerror", None) or str(error)
    if re.search(r"\d+ requested and \d+ written", told):
        return os.strerror(errno.ENOSPC)
    wrapped = re.search(r"([^:]+) \(os error \d+\)", told)
    return wrapped[1].strip() if wrapped else told


@contextmanager
def scratch_beside(target: Path) -> Iterator[Path]:
    """A path for what is to become ``target``: on the same disk, and nobody else has it. What is left there at the end
    is removed."""
    with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=target.parent, ignore_cleanup_errors=True) as scratch:
        yield Path(scratch) / target.name


@contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """A path to write a file to, which then replaces ``target`` in one step: a reader never sees half of it, and an
    error leaves what was there."""
    with scratch_beside(target) as partial:
        yield partial
        os.replace(partial, target)
