"""What an adaptation is: it decides which weights of an encoder learn, and when. Chosen by ``adapt=``.

One of a user's own is a class derived from ``Adaptation``. Its settings are the arguments of its ``__init__``; where
that also asks for ``seed`` or ``epoch_steps``, it is given the run's seed and the number of steps of an epoch.
"""

from collections.abc import Container, Iterator
from contextlib import contextmanager

import torch

from mirror.encoder.encoder import MirrorEncoder


class Adaptation:
    """Decides which weights learn; this one leaves them all to learn in every step."""

    adds_weights = False
    """Whether the backbone has further weights while it is tuned."""

    def check(self, encoder: MirrorEncoder) -> None:
        """Called before anything is measured; leaves the encoder as it is.

        Raises:
            MirrorError: the encoder cannot be adapted in this way.
        """

    def attach(self, encoder: MirrorEncoder) -> None:
        """Called before training, with torch's random state set by the seed. What is given ``requires_grad=False``
        here is trained no more, and gets its own value back afterwards."""

    def resting(self, step: int) -> Container[str]:
        """Names of the backbone's weights that stay as they are in this step, counted from 0, and learn in others."""
        return ()

    def detach(self, encoder: MirrorEncoder) -> None:
        """Called after training: the backbone has the weights again, by name and shape, that it had before."""


class Full(Adaptation):
    """Every weight learns, as in the paper."""


@contextmanager
def adapted(encoder: MirrorEncoder, adaptation: Adaptation, seed: int) -> Iterator[None]:
    """The encoder as it is trained; ``seed`` is of the weights that the adaptation draws."""
    learns = {name: weights.requires_grad for name, weights in encoder.named_parameters()}
    torch.manual_seed(seed)
    adaptation.attach(encoder)
    try:
        yield
    finally:
        adaptation.detach(encoder)
        for name, weights in encoder.named_parameters():
            weights.requires_grad_(learns[name])
