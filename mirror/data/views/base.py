"""What a view maker is."""

import logging
from collections.abc import Iterable, Sequence
from itertools import islice
from random import Random

from mirror.data.rows import Pair
from mirror.data.texts import LongPairs
from mirror.encoder.perturb import Perturbation
from mirror.errors import MirrorError

log = logging.getLogger(__name__)

LOOKED_AT = 10_000
"""Texts of a long source that are looked at before training."""


class Views:
    """Makes the views of each text. Its settings are the arguments of its ``__init__``.

    Where that also asks for them, it is given ``layout`` (the encoder's tokenizer and limits), ``max_tokens`` (of
    ``batch``) and ``template`` (that of the encoder's pooling, or None).
    """

    count = 2
    """Views of each text. View 0 shows the pair's left text, view 1 its right one."""
    edits_tokens = False
    """Whether ``places`` changes the views once more, after they are tokenised."""
    templates: Sequence[str] = ()
    """What each view is put into, where that is not the encoder's own template; see ``mirror.encoder.prompt``."""
    longer = 0
    """The most tokens that ``places`` adds to a view."""

    def __call__(self, pair: Pair, rng: Random) -> tuple[str, ...]:
        """The views of a text, as strings.

        Args:
            pair: the text and its positive, which is the text itself unless the data gives another.
            rng: whatever is drawn comes from it, so that a batch is the same whoever makes it.
        """
        raise NotImplementedError

    def places(self, ids: list[int], view: int, rng: Random) -> list[int]:
        """Which tokens of a view the network reads, in their order; asked where ``edits_tokens`` is true.

        Args:
            ids: the view's token ids, special tokens included.
            view: 0 or 1, and so on.
            rng: of this text alone, the same on every device.

        Returns:
            Places in ``ids``, each as often as its token shall stand; at least one.
        """
        return list(range(len(ids)))

    def perturbations(self) -> list[Perturbation]:
        """What it changes within the network while it learns; ``encoder.block.views`` tells the views apart."""
        return []

    def unchangeable(self, pairs: Iterable[Pair]) -> int:
        """How many of these texts are too short to be changed. A run says so, and stops where it is all of them.

        Raises:
            MirrorError: texts of this kind cannot be used.
        """
        return 0

    def describe(self) -> str:
        """A line for the log and the model card."""
        return type(self).__name__


def one_text(pair: Pair, aug: str) -> str:
    """The text of which both views are parts.

    Raises:
        MirrorError: the pair's texts are different ones.
    """
    if pair[0] != pair[1]:
        raise MirrorError(
            f"aug={aug} takes both views from one text, and the data gives pairs: set aug=none, or leave out "
            "data.pair_column and data.pair_separator."
        )
    return pair[0]


def look(views: Views, pairs: Sequence[Pair]) -> None:
    """Say how many texts are too short for a view maker; of a long source, how many of the first ones.

    Raises:
        MirrorError: all are, or it does not take texts of this kind.
    """
    size = min(len(pairs), LOOKED_AT) if isinstance(pairs, LongPairs) else len(pairs)
    whole = views.unchangeable(islice(pairs, size))
    if whole and whole == size:
        raise MirrorError(
            f"None of the {size:,} texts is long enough for this aug= ({views.describe()}): give longer texts, or set "
            "aug=none."
        )
    if whole:
        log.warning("%d of %d texts are too short for aug= and stay whole (%s).", whole, size, views.describe())
