"""What is typed without a name: a question, the folders of a report, the parts of a soup."""

import os
import re
from itertools import pairwise

from mirror.config.compose import quoted

VALUED_FLAGS = (
    "-c", "--cfg", "-p", "--package", "-i", "--info",
    "-cp", "--config-path", "-cn", "--config-name", "-cd", "--config-dir",
)  # fmt: skip
"""Flags of Hydra that take the argument behind them."""


def with_paths(arguments: list[str]) -> list[str]:
    """The same arguments, in quotes where one is a path whose commas Hydra would take for a choice: the folders of a
    sweep's runs have such names."""
    apart = [argument.partition("=") for argument in arguments]
    return [
        f"{key}={quoted(value)}" if "," in value and os.path.exists(value) else argument
        for argument, (key, _, value) in zip(arguments, apart, strict=True)
    ]


def with_query(arguments: list[str]) -> list[str]:
    """The arguments as Hydra takes them: what is neither an option nor its value is the question."""
    options, words = _apart(arguments)
    return [*options, f"query={quoted(' '.join(words))}"] if words else options


def with_folders(arguments: list[str]) -> list[str]:
    """The same for a report, where such words are folders; ``--watch`` is short for ``watch=true``."""
    options, folders = _apart(["watch=true" if argument == "--watch" else argument for argument in arguments])
    for place, option in enumerate(options):  # a baseline is itself settings, whose signs Hydra would take for its own
        name, _, value = option.partition("=")
        if name == "baseline" and not value.startswith(("'", '"')):
            options[place] = f"baseline={quoted(value)}"
    return [*options, f"runs=[{','.join(map(quoted, folders))}]"] if folders else options


def with_parts(arguments: list[str]) -> list[str]:
    """The same for a soup, where such words are encoders."""
    options, parts = _apart(arguments)
    return [*options, f"parts=[{','.join(map(quoted, parts))}]"] if parts else options


def at_home(arguments: list[str]) -> list[str]:
    """The arguments with ``~/`` as shells write it out in front of a path, which they do not behind a name, nor within
    a list."""
    return [
        re.sub(r"(?<=[=,[])~/[^,\]]*", lambda path: quoted(os.path.expanduser(path[0])), argument)
        if re.match(r"[+]{0,2}[\w./@]+=[~[]", argument)
        else argument
        for argument in arguments
    ]


def flags_first(arguments: list[str]) -> list[str]:
    """The arguments with the flags and their values in front: Hydra takes no settings behind a flag that follows
    others."""
    flags = [argument.startswith("-") or before in VALUED_FLAGS for before, argument in pairwise(["", *arguments])]
    marked = list(zip(flags, arguments, strict=True))
    return [argument for flag, argument in marked if flag] + [argument for flag, argument in marked if not flag]


def _apart(arguments: list[str]) -> tuple[list[str], list[str]]:
    """The options with their values, and the words that are neither, which Hydra does not take."""
    options: list[str] = []
    words: list[str] = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        ours = before not in VALUED_FLAGS and not re.match(r"[+~]{0,2}[\w./@]+=|-(?!\d)", argument)
        (words if ours else options).append(argument)
    return options, words
