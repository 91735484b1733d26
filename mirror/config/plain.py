"""Settings as plain values."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from enum import Enum
from typing import Any


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Plain settings by their full names, as on the command line."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def plain(config: Any) -> dict[str, Any]:
    """A settings dataclass as a plain dictionary, for JSON files, loggers and checkpoints."""

    def value(item: Any) -> Any:
        if isinstance(item, Enum):
            return item.value
        if isinstance(item, dict):
            return {key: value(entry) for key, entry in item.items()}
        if isinstance(item, list):
            return [value(entry) for entry in item]
        if isinstance(item, float) and not math.isfinite(item):
            return str(item)
        return item

    result = value(asdict(config))
    assert isinstance(result, dict)
    return result
