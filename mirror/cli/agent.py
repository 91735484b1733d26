"""What is different in a run that W&B's agent has started for one of its sweeps."""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from mirror.sweeps.names import shown_axes

PARAMETERS = "WANDB_SWEEP_PARAM_PATH"
"""The variable in which the agent names a file with the run's parameters."""


def run_name(overrides: Sequence[str]) -> str | None:
    """The sweep's parameters with their values in this run; None without an agent.

    Args:
        overrides: of the run, ``key=value``.
    """
    try:
        parameters = yaml.safe_load(Path(os.environ[PARAMETERS]).read_text(encoding="utf-8"))
    except (KeyError, OSError, ValueError, yaml.YAMLError):
        return None
    return shown_axes(overrides, parameters) or None


def end_by(number: int) -> None:
    """End this process by the signal itself if an agent waits for it: it would take a status such as 143 for an error,
    and gives a sweep up after a few of them. Elsewhere nothing happens."""
    if PARAMETERS in os.environ:
        sys.stdout.flush()
        sys.stderr.flush()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
