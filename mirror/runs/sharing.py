"""What runs of a sweep have in common is read and computed once by each process, not once by each run.

A single run shares nothing and keeps nothing. What is kept must not be changed by those that get it.
"""

import hashlib
from collections.abc import Callable, Hashable, Iterable
from typing import Any, TypeVar

T = TypeVar("T")

KEPT = 2
"""Results of a kind that are kept, the last ones: a sweep's slow axes change seldom, and vectors are large."""
_kept: dict[str, dict[Hashable, Any]] = {}
_sharing = False


def start_sharing() -> None:
    """From now on this process remembers; files are taken to stay as they are."""
    global _sharing
    _sharing = True


def shared(kind: str, key: Hashable, make: Callable[[], T]) -> T:
    """What ``make`` gives: in a sweep the same object as when it was last asked for with this key."""
    if not _sharing:
        return make()
    results = _kept.setdefault(kind, {})
    result: T = results.pop(key) if key in results else make()
    results[key] = result  # the last one used is the last one dropped
    while len(results) > KEPT:
        del results[next(iter(results))]
    return result


def sharing() -> bool:
    """Whether others may get the same object."""
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
