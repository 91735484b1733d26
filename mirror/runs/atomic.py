"""Files and folders that appear under their names only when they are whole."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SCRATCH = ".mirror-"
"""How the names of temporary folders begin."""


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
