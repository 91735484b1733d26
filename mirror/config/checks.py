"""Ranges of settings, and the error for a value outside."""

import re
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


NEEDED = {
    "could not be converted to Integer": "a whole number",
    "could not be converted to Float": "a number",
    "is not a valid bool": "true or false",
    "to string": "one text",
    "is not a ListConfig": "a list, as in [one,two]",
    "is not Optional": "set, not null",
    "Incompatible value 'None'": "set, not null",
    "is not a subclass of": "a section of its own",
    "Cannot assign": "one value",
}
"""What OmegaConf finds wrong with a value, in parts of its messages, and what the value must be."""


def needed(message: str) -> str | None:
    """What a value must be that OmegaConf refuses with this message; None if it says nothing of a value."""
    if choices := re.search(r"expected one of \[([^\]]*)\]", message):
        return f"one of {choices[1]}"
    return next((words for part, words in NEEDED.items() if part in message), None)


def limit(setting: str, tokens: int | None) -> None:
    """A number of tokens, or null for no limit."""
    check(tokens is None or (type(tokens) is int and tokens >= 3), setting, tokens, "at least 3, or null")


def rate(setting: str, value: float) -> None:
    """A share of at least 0 and below 1."""
    check(0.0 <= value < 1.0, setting, value, "at least 0 and below 1")
