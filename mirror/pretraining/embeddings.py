"""Word embeddings to start from: with them, pre-training skips the long plateau of unigram predictions.

Positive pointwise mutual information of co-occurrence within a window, factorised (Levy & Goldberg 2014). With a
model of 4 x 256 the loss left the plateau within 2M tokens instead of more than 8M.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import svds
from torch import Tensor

from mirror.errors import MirrorError
from mirror.pretraining.corpus import Corpus

WINDOW = 4
"""Context tokens on either side."""
TOKENS = 50_000_000
"""Most tokens counted, in half a minute."""
CHUNK = 2_000_000
"""Tokens counted at once, to bound the memory."""
SMOOTHING = 0.75
"""Power of the context's frequency (Levy, Goldberg & Dagan 2015, section 3.2)."""
FAINTEST = 1e-4
"""Smallest share of the largest singular value that is more than rounding: squares are factorised, in float32."""


def ppmi_embeddings(corpus: Corpus, vocabulary: int, dimension: int, std: float, seed: int) -> Tensor:
    """Vectors for the entries of the vocabulary, (V, D), with the standard deviation ``std``.

    Entries that the corpus does not hold keep random vectors.

    Raises:
        MirrorError: the co-occurrences of many tokens have fewer dimensions.
    """
    counts = _cooccurrences(corpus, vocabulary)
    totals = np.asarray(counts.sum(axis=1)).ravel()  # (V,)
    table = counts.tocoo()
    with np.errstate(divide="ignore", invalid="ignore"):
        contexts = totals**SMOOTHING / np.sum(totals**SMOOTHING)
        information = np.log(table.data / totals[table.row] / contexts[table.col])
    positive = information > 0
    ppmi = sparse.csr_matrix(
        (information[positive].astype(np.float32), (table.row[positive], table.col[positive])), shape=counts.shape
    )
    rng = np.random.default_rng(seed)
    vectors = _factorised(ppmi, dimension, rng.standard_normal(vocabulary).astype(np.float32))
    # A random rotation, so that no coordinate and no attention head holds more than another.
    rotation, _ = np.linalg.qr(rng.standard_normal((dimension, dimension)))
    vectors = vectors @ rotation
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unknown = lengths[:, 0] < 1e-6
    vectors[unknown] = rng.standard_normal((int(unknown.sum()), dimension))
    # Directions carry the meaning; lengths only reflect how rare a word is.
    vectors *= std * np.sqrt(dimension) / np.linalg.norm(vectors, axis=1, keepdims=True)
    return torch.from_numpy(vectors.astype(np.float32))


def _factorised(table: sparse.csr_matrix, dimension: int, first: NDArray[np.float32]) -> NDArray[Any]:
    """The left factor of a symmetric table's largest singular values, (V, D); ``first`` is where the search begins."""
    held = np.flatnonzero(table.getnnz(axis=1))
    if len(held) <= 2 * dimension + 1:  # the vectors that ARPACK keeps: it would go on from others that no seed fixes
        vectors = np.zeros((table.shape[0], dimension))
        left, strengths, _ = np.linalg.svd(table[held][:, held].toarray().astype(np.float64))
        few = min(dimension, len(held))
        vectors[held, :few] = left[:, :few] * np.sqrt(strengths[:few])
        return vectors
    left, strengths, _ = svds(table, k=dimension, v0=first)
    if strengths.min() < FAINTEST * strengths.max():
        raise MirrorError(
            f"model.start=ppmi finds fewer than model.hidden={dimension} dimensions in the text: set "
            "model.start=random, lower model.hidden or give other texts."
        )
    return np.asarray(left * np.sqrt(strengths))


def _cooccurrences(corpus: Corpus, vocabulary: int) -> sparse.csr_matrix:
    """How often two tokens occur within ``WINDOW`` of each other in a piece, (V, V).

    A pair counts for less the further apart it is, 1 / distance (Pennington et al. 2014, section 4.2).
    """
    counts = sparse.csr_matrix((vocabulary, vocabulary), dtype=np.float32)
    piece = np.repeat(np.arange(len(corpus)), corpus.lengths)[:TOKENS]
    ids = corpus.ids[:TOKENS].astype(np.int64)
    for first in range(0, len(ids), CHUNK):
        for distance in range(1, WINDOW + 1):
            here = slice(first, min(first + CHUNK, len(ids) - distance))
            there = slice(here.start + distance, here.stop + distance)
            together = piece[here] == piece[there]
            found, times = np.unique((ids[here] * vocabulary + ids[there])[together], return_counts=True)
            counts = counts + _symmetric(found, times / distance, vocabulary)
    return counts


def _symmetric(found: NDArray[np.int64], times: NDArray[np.float64], vocabulary: int) -> sparse.csr_matrix:
    rows, columns = found // vocabulary, found % vocabulary
    one_way = sparse.csr_matrix((times.astype(np.float32), (rows, columns)), shape=(vocabulary, vocabulary))
    return one_way + one_way.T


def sinusoids(positions: int, dimension: int, std: float) -> Tensor:
    """Position embeddings of the Transformer (Vaswani et al. 2017, section 3.5), scaled to ``std``, (P, D)."""
    place = torch.arange(positions, dtype=torch.float32)[:, None]
    frequency = 10_000 ** (-torch.arange(0, dimension, 2, dtype=torch.float32) / dimension)
    waves = torch.stack([torch.sin(place * frequency), torch.cos(place * frequency)], dim=-1)  # (P, D / 2, 2)
    return waves.flatten(1)[:, :dimension] * std * 2**0.5  # a wave's standard deviation is its amplitude over root two


def log_frequencies(corpus: Corpus, vocabulary: int) -> Tensor:
    """(V,), the logarithms of the tokens' shares of the text, each counted once more."""
    frequency = torch.bincount(torch.from_numpy(corpus.ids.astype("int64")), minlength=vocabulary) + 1.0
    return (frequency / frequency.sum()).log()
