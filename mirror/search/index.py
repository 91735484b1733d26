"""The vectors of a collection of texts, kept on disk between questions, and the nearest of them to a query."""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from tqdm import tqdm

from mirror.config import SearchIndex
from mirror.encoder.encoder import MirrorEncoder
from mirror.encoder.export import write_whole
from mirror.errors import MirrorError
from mirror.runs.sharing import fingerprint

Hit = tuple[int, float]
"""The place of a text, and its cosine similarity."""
VECTORS, GRAPH = "vectors.npy", "hnsw.faiss"
LINKS, SEARCHED = 32, 64
"""Neighbours of a node in the graph, and candidates looked at for a query (M and ef of Malkov & Yashunin 2018, who
find 5 to 48 links reasonable)."""
CHUNK = 2048
"""Vectors added to the graph at a time, so that the progress bar moves."""


def unit_vectors(encoder: MirrorEncoder, texts: Sequence[str]) -> NDArray[np.float32]:
    """Vectors of length 1, (N, D)."""
    vectors = encoder.encode(texts, progress=len(texts) > 1)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12)
    return vectors


def kept_vectors(
    encoder: MirrorEncoder, texts: Sequence[str], name: str, store: Path
) -> tuple[NDArray[np.float32], Path]:
    """Vectors of length 1, (N, D), mapped from the file in which an earlier question left them, and its folder.

    They are made anew for another encoder and for other texts; what the same encoder had of this collection before is
    removed.

    Args:
        encoder: told from others by its weights, tokenizer and pooling, not by its path.
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
        with FileLock(store / ".lock"):  # of two questions at once the second waits for the vectors of the first
            if not folder.exists():
                vectors = unit_vectors(encoder, texts)
                write_whole(folder, lambda partial: np.save(partial / VECTORS, vectors))
                for other in store.iterdir():
                    if other.name.startswith(mine) and other != folder:
                        shutil.rmtree(other, ignore_errors=True)
        return np.load(folder / VECTORS, mmap_mode="c"), folder
    except (OSError, ValueError) as error:
        raise MirrorError(f"{folder} cannot be used ({error}): remove it, or set keep=false.") from error


def nearest(vectors: NDArray[np.float32], query: NDArray[np.float32], top: int) -> list[Hit]:
    """The ``top`` of ``vectors``, (N, D), by cosine similarity with ``query``, (D,), the nearest first: exact.

    Both are of length 1.
    """
    best = (torch.from_numpy(vectors) @ torch.from_numpy(query)).topk(min(top, len(vectors)))
    return list(zip(best.indices.tolist(), best.values.tolist(), strict=True))


def nearest_in_graph(folder: Path, vectors: NDArray[np.float32], query: NDArray[np.float32], top: int) -> list[Hit]:
    """As ``nearest``, by a graph over the vectors that is built once and kept beside them: nearly exact.

    Raises:
        MirrorError: faiss is not installed, or the graph cannot be read or written.
    """
    faiss = check_faiss()
    file = folder / GRAPH
    try:
        if not file.exists():
            graph = faiss.IndexHNSWFlat(vectors.shape[1], LINKS, faiss.METRIC_INNER_PRODUCT)
            with tqdm(total=len(vectors), desc="index", unit="vector", leave=False) as bar:
                for start in range(0, len(vectors), CHUNK):
                    graph.add(vectors[start : start + CHUNK])
                    bar.update(len(vectors[start : start + CHUNK]))
            partial = file.with_name(f"{GRAPH}.{os.getpid()}.partial")
            try:
                faiss.write_index(graph, str(partial))
                os.replace(partial, file)
            finally:
                partial.unlink(missing_ok=True)
        graph = faiss.read_index(str(file), faiss.IO_FLAG_MMAP_IFC)
    except (OSError, RuntimeError) as error:
        raise MirrorError(f"{file} cannot be used ({error}): remove it, or set index=exact.") from error
    graph.hnsw.efSearch = max(SEARCHED, top)
    cosines, places = graph.search(query[None], min(top, len(vectors)))
    found = zip(places[0].tolist(), cosines[0].tolist(), strict=True)
    return [(place, cosine) for place, cosine in found if place >= 0]  # -1: the graph led to fewer than were asked for


def check_faiss() -> Any:
    """The index library.

    Raises:
        MirrorError: it is not installed.
    """
    try:
        import faiss
    except ImportError:
        raise MirrorError(
            f"index={SearchIndex.hnsw.value} needs the package faiss: pip install 'mirror-encoders[index]', or set "
            "index=exact."
        ) from None
    return faiss


def _key(encoder: MirrorEncoder) -> str:
    """Equal for encoders that give equal vectors, wherever they lie and whatever they were used for."""
    digest = hashlib.sha256()
    for name, weights in encoder.backbone.state_dict().items():
        if name.startswith("pooler."):  # not part of the encoder, and random where the folder has none
            continue
        digest.update(weights.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    tokenizer = encoder.tokenizer
    pieces = json.loads(tokenizer.backend_tokenizer.to_str()) if tokenizer.is_fast else tokenizer.get_vocab()
    told = {
        "tokenizer": _without(pieces, "truncation", "padding"),
        "backbone": _without(encoder.backbone.config.to_dict(), "_name_or_path"),
        "encoder": [encoder.pooling.value, encoder.max_tokens, encoder.normalize, encoder.pad_to],
    }
    digest.update(json.dumps(told, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:12]


def _without(content: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name not in names}
