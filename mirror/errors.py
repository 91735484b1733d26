"""The one exception that means: the user can put this right."""


class MirrorError(Exception):
    """A mistake in the input or the settings, told in one sentence that names the setting and the remedy.

    The command line prints the sentence without a traceback and exits with status 1.
    """


class UnavailableError(MirrorError):
    """Data that are neither here nor on a hub that answers; the user gave no folder that should hold them."""


class PrunedError(MirrorError):
    """A search has given a run up: no mistake, and no failure."""
