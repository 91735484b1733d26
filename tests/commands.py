"""The commands as a user types them: what comes back, and how a refusal looks."""

from collections.abc import Callable
from typing import NamedTuple

SMALL = ["eval=none", "data.size=48", "batch.size=16", "optim.lr=1e-3", "trainer=cpu", "trainer.progress=false"]
"""Settings of a training run of three steps."""


class Result(NamedTuple):
    """What the user sees."""

    code: int
    out: str
    err: str


Command = Callable[..., Result]


def assert_refused(result: Result, *reasons: str) -> None:
    """One sentence that names what is wrong, and nothing else that looks like a crash."""
    assert result.code != 0
    assert "Traceback" not in result.err + result.out
    lines = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, result.err
    for reason in reasons:
        assert reason in lines[0]
