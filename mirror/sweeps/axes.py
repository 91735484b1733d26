"""How many runs a grid has."""

import math
from collections.abc import Sequence

from hydra.core.override_parser.types import Override, RangeSweep

from mirror.errors import MirrorError


def runs_of(grid: Sequence[Override]) -> int:
    """Combinations of the axes; an axis that is named twice counts once, with its last values."""
    axes: dict[str, int] = {}
    for override in grid:
        swept = override.is_sweep_override()
        axes[override.get_key_element()] = _length(override) if swept else 1
    return math.prod(axes.values())


def _length(axis: Override) -> int:
    """Values of an axis, counted without making them: a range may have a billion.

    Raises:
        MirrorError: it is an interval, or a range that does not end.
    """
    if not axis.is_discrete_sweep():
        raise MirrorError(f"{axis.input_line} is drawn from by sweep=optuna alone: write choice(…) or range(…).")
    swept = axis.value()
    if not isinstance(swept, RangeSweep) or swept.start is None or swept.stop is None:
        return len(list(axis.sweep_string_iterator()))
    try:
        return max(0, math.ceil((swept.stop - swept.start) / swept.step))
    except (ArithmeticError, ValueError) as error:
        raise MirrorError(f"{axis.input_line} does not end: give it finite bounds and a step other than 0.") from error
