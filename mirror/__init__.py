"""Mirror-BERT as a research framework: from a masked language model and raw text to a text encoder.

Liu, Vulić, Korhonen and Collier (2021), "Fast, Effective, and Self-Supervised: Transforming Masked Language
Models into Universal Lexical and Sentence Encoders", arXiv 2104.08027.
"""

from typing import TYPE_CHECKING, Any

from mirror.errors import MirrorError
from mirror.version import __version__

if TYPE_CHECKING:
    from mirror.encoder.encoder import MirrorEncoder
    from mirror.training.tune import mirror_tune

__all__ = ["MirrorEncoder", "MirrorError", "__version__", "mirror_tune"]


def __getattr__(name: str) -> Any:
    """Import torch only when an encoder is asked for: ``--help`` and tab completion must answer at once."""
    if name == "MirrorEncoder":
        from mirror.encoder.encoder import MirrorEncoder

        return MirrorEncoder
    if name == "mirror_tune":
        from mirror.training.tune import mirror_tune

        return mirror_tune
    raise AttributeError(f"module 'mirror' has no attribute {name!r}")
