"""The vectors of a collection of texts, kept on disk between queries, and exact search among them."""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray

from mirror.encoder.digest import digest
from mirror.encoder.encoder import MirrorEncoder
from mirror.encoder.export import write_whole
from mirror.errors import MirrorError
from mirror.runs.sharing import fingerprint

Hit = tuple[int, float]
"""The index of a text, and its cosine similarity."""
VECTORS = "vectors.npy"


def unit_vectors(encoder: MirrorEncoder, texts: Sequence[str]) -> NDArray[np.float32]:
    """Vectors of length 1, (N, D)."""
    vectors = encoder.encode(texts, progress=len(texts) > 1)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12)
    return vectors


def kept_vectors(encoder: MirrorEncoder, texts: Sequence[str], name: str, store: Path) -> NDArray[np.float32]:
    """Vectors of length 1, (N, D), mapped from the file in which an earlier question left them.

    They are made anew for another encoder and for other texts; what the same encoder had of this collection before is
    removed.

    Args:
        encoder: identified by its weights, tokenizer and pooling, not by its path.
        texts: all of the collection.
        name: of the collection, in the folder's name.
        store: where the folders are.

    Raises:
        MirrorError: they cannot be written.
    """
    mine = f"{name}-{digest(encoder)}-"
    folder = store / f"{mine}{fingerprint(texts)[:12]}"
    try:
        store.mkdir(parents=True, exist_ok=True)
        with FileLock(store / ".lock"):  # of two simultaneous queries, the second waits for the vectors of the first
            if not folder.exists():
                vectors = unit_vectors(encoder, texts)
                write_whole(folder, lambda partial: np.save(partial / VECTORS, vectors))
                for other in store.iterdir():
                    if re.fullmatch(re.escape(mine) + "[0-9a-f]{12}", other.name) and other != folder:
                        shutil.rmtree(other, ignore_errors=True)
        kept: NDArray[np.float32] = np.load(folder / VECTORS, mmap_mode="c")
        return kept
    except (OSError, ValueError, EOFError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is damaged"
        raise MirrorError(
            f"{folder} cannot be used ({reason}): remove it, or set keep=false or another outputs=…."
        ) from error


def nearest(vectors: NDArray[np.float32], query: NDArray[np.float32], top: int) -> list[Hit]:
    """The ``top`` of ``vectors``, (N, D), by cosine similarity with ``query``, (D,), the nearest first: exact.

    Both are of length 1.
    """
    best = (torch.from_numpy(vectors) @ torch.from_numpy(query)).topk(min(top, len(vectors)))
    return list(zip(best.indices.tolist(), best.values.tolist(), strict=True))
