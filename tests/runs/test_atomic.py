"""What the system says of a file that it does not let be written."""

import errno
import os

import pytest

from mirror.runs.atomic import reason_of


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a"),
        OSError("7680 requested and 4064 written"),  # numpy
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),  # safetensors
    ],
)
def test_a_full_disk(error: Exception) -> None:
    assert reason_of(error) == "No space left on device"


def test_what_is_not_known() -> None:
    assert reason_of(OSError("something else")) == "something else"
