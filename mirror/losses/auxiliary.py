"""A second loss beside the first, such as masked language modelling. Chosen by ``auxiliary=``.

One of a user's own is any ``Loss`` that returns its share of the sum as ``loss`` and its value under a name of its own.
"""

from mirror.data.batches import MirroredBatch
from mirror.errors import MirrorError
from mirror.losses.base import Components, Loss
from mirror.losses.embedder import Embedder


class Beside(Loss):
    """The sum of two losses.

    Args:
        main: decides how views are laid out and what is told of negatives.
        auxiliary: reads the same batches.

    Raises:
        MirrorError: the auxiliary loss wants the views apart, the main one together.
    """

    def __init__(self, main: Loss, auxiliary: Loss) -> None:
        super().__init__()
        if auxiliary.sides_apart and not main.sides_apart:
            raise MirrorError(
                f"auxiliary={type(auxiliary).__name__} lays the two views apart, {type(main).__name__} does not: they "
                "cannot stand beside each other."
            )
        self.main, self.auxiliary = main, auxiliary
        self.layered = main.layered or auxiliary.layered
        self.paired = main.paired or auxiliary.paired

    def forward(self, embed: Embedder, batch: MirroredBatch) -> Components:
        """The sum, and the components of both."""
        main, auxiliary = self.main(embed, batch), self.auxiliary(embed, batch)
        return {**main, **auxiliary, "loss": main["loss"] + auxiliary["loss"]}

    def check_run(self, texts: int) -> None:
        """Both."""
        self.main.check_run(texts)
        self.auxiliary.check_run(texts)

    def after_step(self, embed: Embedder) -> None:
        """Both."""
        self.main.after_step(embed)
        self.auxiliary.after_step(embed)

    def negatives(self, texts: int) -> int:
        """Of the main loss."""
        return self.main.negatives(texts)

    def describe(self) -> str:
        """Both."""
        return f"{self.main.describe()}; beside it {self.auxiliary.describe()}"
