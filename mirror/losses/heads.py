"""Projection heads: vectors to vectors while the encoder learns, left behind when it is saved. Chosen by ``head=``.

One of a user's own is any ``nn.Module`` whose ``__init__`` may ask for ``dimension``, the size D of the encoder's
vectors.
"""

from typing import Annotated

from torch import Tensor, nn

from mirror.config import Rule


class TanhHead(nn.Module):
    """tanh(W x + b), D to D: SimCSE's head, trained and left out at test time (Gao et al. 2021,
    ``simcse/models.py``)."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.layer = nn.Linear(dimension, dimension)

    def forward(self, vectors: Tensor) -> Tensor:
        """(N, D) to (N, D)."""
        return self.layer(vectors).tanh()  # type: ignore[no-any-return]


class MLPHead(nn.Module):
    """Linear layers with ReLU between them (SimCLR, Chen et al. 2020, section 2.1; two layers in v1, three in v2).

    Args:
        dimension: size D of the encoder's vectors.
        hidden: size of the layers between; null is D.
        out: size of the vectors that the loss sees.
        layers: 2 or 3.
        batch_norm: normalise each hidden layer over the batch.
    """

    def __init__(
        self,
        dimension: int,
        hidden: Annotated[int | None, Rule(lambda size: size >= 1, "at least 1, or null")] = None,
        out: Annotated[int, Rule(lambda size: size >= 1, "at least 1")] = 128,
        layers: Annotated[int, Rule(lambda count: count in (2, 3), "2 or 3")] = 2,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        size, steps = dimension, list[nn.Module]()
        for _ in range(layers - 1):
            steps.append(nn.Linear(size, hidden or dimension))
            size = hidden or dimension
            if batch_norm:
                steps.append(nn.BatchNorm1d(size))
            steps.append(nn.ReLU())
        self.steps = nn.Sequential(*steps, nn.Linear(size, out))

    def forward(self, vectors: Tensor) -> Tensor:
        """(N, D) to (N, out)."""
        return self.steps(vectors)  # type: ignore[no-any-return]
