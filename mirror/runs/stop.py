"""How a command ends when it is asked to: Ctrl-C and SIGTERM, at any moment."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_received: list[int] | None = None
"""Signals received during a command."""
_held = 0
_workers_handler: Any = signal.SIG_DFL
"""What heard of a child's end before a signal came."""


def received() -> int | None:
    """The signal that asked this command to end, if any: libraries turn the exception into exits and errors of their
    own."""
    return _received[0] if _received else None


def heeded() -> list[signal.Signals]:
    """The signals to take over: none outside the main thread, and none that the shell ignores."""
    if threading.current_thread() is not threading.main_thread():
        return []
    return [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]


def note(number: int) -> bool:
    """Remember a signal; returns whether to obey it at once, as with every second Ctrl-C. A second SIGTERM adds
    nothing: ``timeout`` sends two."""
    again = received() is not None
    if _received is not None:
        _received.append(number)
        _forget_workers()
    return number == signal.SIGINT if again else not _held


def _forget_workers() -> None:
    """Until the command ends. The workers of a DataLoader die of the same signal, and PyTorch's handler raises that
    into whatever the main thread does then: into the writing of the record, for one."""
    global _workers_handler
    if signal.getsignal(signal.SIGCHLD) is not _ignore:
        _workers_handler = signal.signal(signal.SIGCHLD, _ignore)


def _ignore(number: int, frame: FrameType | None) -> None:
    """Not ``SIG_IGN``, which would take the exit status of every child away."""


def _obey(number: int, frame: FrameType | None) -> None:
    if note(number):
        raise KeyboardInterrupt


@contextmanager
def at_once() -> Iterator[None]:
    """Inside, Ctrl-C ends the process on the spot: nothing has begun, and libraries make errors of their own of an
    exception in the middle of their imports."""

    def leave(number: int, frame: FrameType | None) -> None:
        os.write(2, b"interrupted\n")
        os._exit(128 + number)

    ours = signal.SIGINT in heeded()
    before = signal.signal(signal.SIGINT, leave) if ours else None
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGINT, before)


@contextmanager
def stoppable() -> Iterator[None]:
    """Both signals raise ``KeyboardInterrupt`` inside, so that a run ends the same way for both."""
    global _received
    _received = []
    before = {number: signal.signal(number, _obey) for number in heeded()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if _received:
            signal.signal(signal.SIGCHLD, _workers_handler)
        _received = None


@contextmanager
def held() -> Iterator[None]:
    """Delay signals until the end of the block, which must not be interrupted halfway."""
    global _held
    before = received()
    _held += 1
    try:
        yield
    finally:
        _held -= 1
    if received() != before and not _held:
        raise KeyboardInterrupt
