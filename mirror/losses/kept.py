"""Rows of numbers on disk, each made once and found again by its text: a teacher's vectors, or its scores of pairs."""

from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from mirror.errors import MirrorError

KEYS, ROWS = "keys.bin", "rows.bin"
KEY = 16
"""Bytes of a text's digest."""
NUMBER = np.dtype("<f4")

Make = Callable[[list[str]], NDArray[np.float32]]
"""N texts to their rows, (N, D)."""


class Kept:
    """A table that grows on disk and is memory-mapped; in memory are the digests of its texts alone.

    Several processes may use it: each appends under a lock, and finds what the others have appended. What a kill has
    cut off is written again.

    Args:
        folder: of the table; it is made when the first row is.
        size: numbers in a row.

    Raises:
        MirrorError: the folder cannot be made or written.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.folder, self.size = folder.expanduser(), size
        self._guarded(self._probe)
        self._places: dict[bytes, int] = {}
        self._table = np.empty((0, size), NUMBER)

    def rows(self, texts: Sequence[str], make: Make) -> NDArray[np.float32]:
        """The rows of some texts, (N, D); ``make`` is asked for those that are not here yet, each once.

        Raises:
            MirrorError: the folder cannot be read or written.
        """
        keys = [_key(text) for text in texts]
        if any(key not in self._places for key in keys):
            self._guarded(self._look)
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._places}
        if missing:
            made = make(list(missing.values()))
            self._guarded(lambda: self._append(list(missing), made))
        return np.asarray(self._table[[self._places[key] for key in keys]])

    def _guarded(self, act: Callable[[], None]) -> None:
        try:
            act()
        except OSError as error:
            raise MirrorError(
                f"loss.keep={self.folder.parent} cannot be used ({error.strerror}): choose another folder, or set "
                "loss.keep=null."
            ) from error

    def _probe(self) -> None:
        """Whether it could be made, before anything is trained."""
        place = self.folder
        while not place.exists():
            place = place.parent
        with TemporaryFile(dir=place):
            pass

    def _look(self) -> None:
        """Take note of what has been appended."""
        rows = min(_size(self.folder / KEYS) // KEY, _size(self.folder / ROWS) // (NUMBER.itemsize * self.size))
        if rows < len(self._table):  # somebody removed it
            self._places, self._table = {}, np.empty((0, self.size), NUMBER)
        known = len(self._table)
        if rows == known:
            return
        with (self.folder / KEYS).open("rb") as file:
            file.seek(known * KEY)
            new = file.read((rows - known) * KEY)
        self._places |= {new[i * KEY : (i + 1) * KEY]: known + i for i in range(rows - known)}
        self._table = np.memmap(self.folder / ROWS, NUMBER, "r", shape=(rows, self.size))

    def _append(self, keys: Sequence[bytes], made: NDArray[np.float32]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / ".lock"):
            self._look()  # another process may have made some of them meanwhile
            new = [i for i, key in enumerate(keys) if key not in self._places]
            whole = len(self._table)
            # The key comes last: a row without one is not there.
            for name, each, content in (
                (ROWS, NUMBER.itemsize * self.size, made[new].astype(NUMBER).tobytes()),
                (KEYS, KEY, b"".join(keys[i] for i in new)),
            ):
                with (self.folder / name).open("ab") as file:
                    file.truncate(whole * each)
                    file.write(content)
            self._look()


def _key(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=KEY).digest()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
