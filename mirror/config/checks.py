"""Ranges of settings, and the error for a value outside."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mirror.errors import MirrorError


@dataclass(frozen=True)
class Rule:
    """The range of a part's setting, in its signature: ``k: Annotated[int, Rule(lambda k: k > 0, "above 0")]``."""

    holds: Callable[[Any], bool]
    words: str


def check(ok: bool, setting: str, value: object, rule: str) -> None:
    """Raises MirrorError unless ``ok``; ``rule`` says what the value must be."""
    if not ok:
        raise MirrorError(f"{setting}={value} is out of range: it must be {rule}.")


def limit(setting: str, tokens: int | None) -> None:
    """A number of tokens, or null for no limit."""
    check(tokens is None or tokens >= 3, setting, tokens, "at least 3, or null")


def rate(setting: str, value: float) -> None:
    """A share of at least 0 and below 1."""
    check(0.0 <= value < 1.0, setting, value, "at least 0 and below 1")
