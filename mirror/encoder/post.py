"""Post-processing: a linear map fitted on the vectors of the training texts, saved with the encoder as one more layer.

Chosen by ``post=``. One of a user's own is a function that is given ``vectors`` and returns a ``Stage``.
"""

from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray

from mirror.config import Rule
from mirror.encoder.dense import Dense
from mirror.errors import MirrorError

Dimensions = Annotated[int | None, Rule(lambda size: size >= 1, "at least 1, or null for all")]


def whitening(vectors: NDArray[np.float32], dimensions: Dimensions = 256) -> Dense:
    """(x - mean) U S^(-1/2), U S U' being the covariance: no direction stands out (Su et al. 2021, equations 8 to 10).

    Args:
        vectors: of the training texts, (N, D).
        dimensions: how many of the leading directions are kept; null is all.

    Raises:
        MirrorError: the vectors do not span so many dimensions.
    """
    mean, values, directions = _principal(vectors, dimensions, "whitening")
    return _dense(mean, directions / np.sqrt(values)[:, None])


def pca(vectors: NDArray[np.float32], dimensions: Dimensions = 256) -> Dense:
    """(x - mean) U: the leading directions as they are, for shorter vectors.

    Args:
        vectors: of the training texts, (N, D).
        dimensions: how many directions are kept; null is all.

    Raises:
        MirrorError: the vectors do not span so many dimensions.
    """
    mean, _, directions = _principal(vectors, dimensions, "pca")
    return _dense(mean, directions)


def _principal(
    vectors: NDArray[np.float32], dimensions: int | None, name: str
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Mean (D,), variances (K,) and directions (K, D) of the K leading components."""
    exact = vectors.astype(np.float64)
    mean = exact.mean(axis=0)
    values, columns = np.linalg.eigh((exact - mean).T @ (exact - mean) / len(exact))  # rising; (D, D)
    rank = int((values > values[-1] * 1e-9).sum())
    keep = rank if dimensions is None else dimensions
    if keep > rank or rank == 0:
        raise MirrorError(
            f"post={name}: the vectors of {len(exact)} texts span {rank} dimensions, fewer than "
            f"post.dimensions={dimensions}: give more texts or lower it."
        )
    return mean, values[::-1][:keep], columns.T[::-1][:keep]


def _dense(mean: NDArray[np.float64], weights: NDArray[np.float64]) -> Dense:
    """x -> W (x - mean) as a layer; W is (K, D)."""
    layer = Dense(weights.shape[1], weights.shape[0])
    with torch.no_grad():
        layer.linear.weight.copy_(torch.from_numpy(weights.copy()))
        assert layer.linear.bias is not None
        layer.linear.bias.copy_(torch.from_numpy(-weights @ mean))
    return layer.requires_grad_(False)
