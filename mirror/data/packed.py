"""Compressed text files, read to their end or refused."""

import gzip
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mirror.errors import MirrorError

CHUNK = 2**20
"""Bytes read at a time."""


class ZstdFile(io.RawIOBase):
    """The content of a .zst file, all its frames. The library's own reader takes a file that was cut off for a whole
    one.

    Raises:
        EOFError: when reading, the file ends within a frame.
        MirrorError: zstandard is not installed.
    """

    def __init__(self, path: Path) -> None:
        try:
            import zstandard
        except ImportError:
            raise MirrorError(f"{path} needs the package zstandard: pip install 'mirror-encoders[zstd]'.") from None
        self._library = zstandard.ZstdDecompressor()
        self._file = path.open("rb")
        self._frame: Any = None
        self._ready = b""

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer with what comes next; 0 at the end."""
        while not self._ready:
            packed = self._file.read(CHUNK)
            if not packed:
                if self._frame is not None:
                    raise EOFError("the file was cut off: it ends within a compressed frame")
                return 0
            while packed:
                if self._frame is None:
                    self._frame = self._library.decompressobj()
                self._ready += self._frame.decompress(packed)
                packed = self._frame.unused_data if self._frame.eof else b""
                if self._frame.eof:
                    self._frame = None
        count = min(len(buffer), len(self._ready))
        buffer[:count], self._ready = self._ready[:count], self._ready[count:]
        return count

    def close(self) -> None:
        """Close the file below."""
        self._file.close()
        super().close()


def open_zst(path: Path, mode: str = "rb") -> io.BufferedReader:
    """As ``gzip.open``."""
    return io.BufferedReader(ZstdFile(path), CHUNK)


OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".zst": open_zst}
"""What opens a compressed file, by its suffix."""
OTHERS = (".7z", ".bz2", ".lz4", ".rar", ".tar", ".tgz", ".xz", ".zip")
"""Suffixes of files that are packed in a way that is not read."""
