"""What the operating system refuses, in one sentence that names the argument."""

import errno
import re
from collections.abc import Sequence

from mirror.errors import MirrorError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""No room: the writing of a file names no path."""
REFUSALS = (
    *FULL, errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ELOOP,
    errno.EIO, errno.ENODEV, errno.ENXIO,
)  # fmt: skip
"""What is no mistake of the program."""


def refusal(error: OSError, arguments: Sequence[str]) -> MirrorError | None:
    """The sentence for an error of the system; None where it may be a mistake of the program.

    Args:
        error: with the path that it is about, as a rule.
        arguments: of the command, as Hydra takes them; the one whose value is in the path is named.
    """
    if error.errno not in REFUSALS:
        return None
    if error.filename is None:
        return MirrorError(f"A file cannot be written ({error.strerror}): free some space or choose another disk.")
    path = str(error.filename)
    # The longest value of those in the path: outputs=out may be in it by chance.
    named = max(
        ((value, argument) for argument in arguments for value in _values(argument) if value in path), default=None,
        key=lambda found: len(found[0]),
    )  # fmt: skip
    what = f"{named[1].partition('=')[0].lstrip('+')}={named[0]}" if named else path
    remedy = "free some space or choose another disk" if error.errno in FULL else "choose another"
    return MirrorError(f"{what} cannot be used ({error.strerror}): {remedy}.")


def _values(argument: str) -> list[str]:
    """The value of an argument, or those of a list, without quotes."""
    return [value for value in re.split(r"[\[\],'\"]+", argument.partition("=")[2]) if len(value) > 1]
