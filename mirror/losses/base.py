"""What a loss is: given the encoder and a batch, it returns the loss and its named components."""

from torch import Tensor, nn

from mirror.data.batches import MirroredBatch
from mirror.errors import MirrorError
from mirror.losses.embedder import Embedder

Components = dict[str, Tensor]
"""Scalars by name, the same names at every step. ``loss`` is minimised; each of the others is a curve of its own."""


class Loss(nn.Module):
    """A loss owns what it needs beside the encoder: a queue, a momentum encoder, a teacher. All of it is checkpointed.

    Its settings are the arguments of its ``__init__``. Where ``__init__`` also asks for ``embedder``, it is given the
    encoder with its projection head, to copy or to read sizes from; it must not keep it, or its weights count twice.
    """

    sides_apart = False
    """Whether the views of the two sides are to be laid into rows of their own, for two encoders that read one side
    each. Otherwise one pass through the encoder serves both."""

    equal_views = False
    """Whether it also learns where the two views of a text are one and the same vector, from a second encoder or a
    teacher. Otherwise a run with such views is refused."""

    layered = False
    """Whether it looks at more than the last layer."""

    whole = False
    """Whether a batch must be encoded in one piece: gradient caching (``batch.micro``) is refused."""

    paired: str | None = None
    """The setting that wants texts in pairs, such as ``loss.translations=true``; None where each may stand for itself.
    A run whose texts are no pairs is refused."""

    def forward(self, embed: Embedder, batch: MirroredBatch) -> Components:
        """The loss of a batch.

        Under ``torch.distributed`` each device calls this with its share of the texts; ``mirror.losses.gather`` brings
        the vectors of all. The mean of the devices' losses must be the loss of one process with all the texts.

        Args:
            embed: the batch's views to vectors; see ``Embedder``.
            batch: the views, the texts and their numbers.
        """
        raise NotImplementedError

    def check_run(self, texts: int) -> None:
        """Called before training, with the number of texts that the run's steps take in all, over all devices.

        Raises:
            MirrorError: so many do not serve this loss.
        """

    def after_step(self, embed: Embedder) -> None:
        """Called when the optimizer has taken a step, for instance to move a momentum encoder."""

    def negatives(self, texts: int) -> int:
        """How many vectors each row is contrasted with, in a batch of so many texts over all devices."""
        return 0

    def meaning(self, texts: int) -> str:
        """What the number on the bar says, for who sees it for the first time, in a batch of so many texts."""
        return ""

    def describe(self) -> str:
        """A line for the log and the model card."""
        return type(self).__name__


def check_two_views(batch: MirroredBatch) -> None:
    """For losses that compare two views of each text.

    Raises:
        MirrorError: the batch has more or fewer.
    """
    if len(batch.text_ids) != 2:
        raise MirrorError(
            f"loss compares two views of each text, not {len(batch.text_ids)}: choose another aug or loss."
        )
