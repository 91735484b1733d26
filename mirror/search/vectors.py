"""The vectors of a collection of texts, kept on disk between queries, and exact search among them."""

import hashlib
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray

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
    mine = f"{name}-{_key(encoder)}-"
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
        raise MirrorError(f"{folder} cannot be used ({error}): remove it, or set keep=false.") from error


def nearest(vectors: NDArray[np.float32], query: NDArray[np.float32], top: int) -> list[Hit]:
    """The ``top`` of ``vectors``, (N, D), by cosine similarity with ``query``, (D,), the nearest first: exact.

    Both are of length 1.
    """
    best = (torch.from_numpy(vectors) @ torch.from_numpy(query)).topk(min(top, len(vectors)))
    return list(zip(best.indices.tolist(), best.values.tolist(), strict=True))


def _key(encoder: MirrorEncoder) -> str:
    """Equal for encoders that give equal vectors, whatever their path."""
    digest = hashlib.sha256()
    for name, weights in encoder.state_dict().items():
        if name.startswith("backbone.pooler."):  # not part of the encoder, and random where the folder has none
            continue
        digest.update(weights.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    tokenizer = encoder.tokenizer
    pieces = json.loads(tokenizer.backend_tokenizer.to_str()) if tokenizer.is_fast else tokenizer.get_vocab()
    content = {
        "tokenizer": _without(pieces, "truncation", "padding"),
        "backbone": _without(encoder.backbone.config.to_dict(), "_name_or_path"),
        "encoder": [repr(encoder.pooling), encoder.max_tokens, encoder.layout.pad_to],
    }
    digest.update(json.dumps(content, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:12]


def _without(content: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name not in names}
