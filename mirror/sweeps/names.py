"""What the folders of a sweep's runs are called: their axes, then their identity."""

import re
from collections.abc import Collection, Sequence
from pathlib import Path

LENGTH = 120
"""Most characters of a folder's name."""


def folder_name(overrides: Sequence[str], axes: Collection[str], name: str) -> str:
    """The axes and their values, then the run's identity, as in ``temperature=0.04,aug=none-1a2b3c``.

    Args:
        overrides: of the run, ``key=value``.
        axes: the keys that differ between the runs.
        name: the run's identity; it stands alone where there is no axis.
    """
    shown = shown_axes(overrides, axes, LENGTH - len(name) - 1)
    return f"{shown}-{name}" if shown else name


def shown_axes(overrides: Sequence[str], axes: Collection[str], length: int = LENGTH) -> str:
    """The axes and their values in characters that every file system takes, as in ``temperature=0.04,aug=none``."""
    short = {axis: axis.rpartition(".")[2] for axis in axes}
    parts = [
        # Two axes may end alike, such as aug.rate and perturb.rate.
        f"{short[key] if list(short.values()).count(short[key]) == 1 else key}={_value(value)}"
        for key, _, value in (override.partition("=") for override in overrides)
        if key in axes
    ]
    return re.sub(r"[^\w.,=+-]+", "_", ",".join(parts), flags=re.ASCII)[:length].rstrip(",=_")


def earlier_folder(sweep: Path, name: str) -> str | None:
    """What this run's folder is called since an earlier start, whose axes may have been others, or in its name none."""
    return next((path.name for path in sorted(sweep.glob(f"*{name}")) if path.is_dir()), None)


def _value(text: str) -> str:
    """Of a path its last part, of a long number four digits; without quotes and brackets."""
    last = text.strip("'\"[]{}").rstrip("/").rpartition("/")[2].lstrip(".")
    return f"{float(last):.4g}" if re.fullmatch(r"-?\d*\.\d{5,}(e-?\d+)?", last) else last
