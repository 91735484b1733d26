"""Shares what the runs of a sweep have in common: each process reads and computes it once, not once per run.

A single run shares nothing and keeps nothing. Callers must not change what they get.
"""

import hashlib
from collections.abc import Callable, Hashable, Iterable
from typing import Any, TypeVar

T = TypeVar("T")

KEPT = 2
"""Number of results kept of each kind, the latest: a sweep's slow axes change seldom, and vectors are large."""
_kept: dict[str, dict[Hashable, Any]] = {}
_sharing = False


def start_sharing() -> None:
    """From now on this process keeps results; it assumes that files do not change."""
    global _sharing
    _sharing = True


def shared(kind: str, key: Hashable, make: Callable[[], T]) -> T:
    """The result of ``make``; in a sweep, the object that the last call with this key returned."""
    if not _sharing:
        return make()
    results = _kept.setdefault(kind, {})
    result: T = results.pop(key) if key in results else make()
    results[key] = result  # the last one used is the last one dropped
    while len(results) > KEPT:
        del results[next(iter(results))]
    return result


def sharing() -> bool:
    """Whether results are shared."""
    return _sharing


def stop_sharing() -> None:
    """Forget everything."""
    global _sharing
    _sharing = False
    _kept.clear()


def fingerprint(texts: Iterable[str]) -> str:
    """Equal for equal texts, and short."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()
