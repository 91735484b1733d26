"""How a command ends when it is asked to: Ctrl-C and SIGTERM, at any moment."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_received: list[int] = []


def received() -> int | None:
    """The signal that asked this process to end, if one did."""
    return _received[-1] if _received else None


def note(number: int) -> None:
    """Remember a signal: libraries turn what it raises into an exit of their own."""
    _received.append(number)


def _raise(number: int, frame: FrameType | None) -> None:
    note(number)
    raise KeyboardInterrupt


@contextmanager
def stoppable() -> Iterator[None]:
    """Both signals raise ``KeyboardInterrupt`` inside, so that one path ends a run whoever asks for it."""
    _received.clear()
    before = {number: signal.signal(number, _raise) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
