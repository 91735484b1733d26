"""What a picture along one axis shows: its values in order, and a line for each combination of the other settings."""

from collections.abc import Sequence
from typing import Any

from mirror.report.table import Row, order


def values_along(rows: Sequence[Row], axis: str) -> list[Any]:
    """The values that a setting has: numbers by size, then everything else by name."""
    return sorted(dict.fromkeys(row.settings[axis] for row in rows), key=order)


def lines_along(rows: Sequence[Row], axis: str, others: Sequence[str]) -> dict[tuple[Any, ...], list[Row]]:
    """Rows along an axis, by their values of the other settings.

    A line with one point says nothing about the axis: it is left out, unless no other line has that value.
    """
    lines: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        lines.setdefault(tuple(row.settings[other] for other in others), []).append(row)
    compared = {row.settings[axis] for members in lines.values() if len(members) > 1 for row in members}
    return {key: rows for key, rows in lines.items() if len(rows) > 1 or rows[0].settings[axis] not in compared}
