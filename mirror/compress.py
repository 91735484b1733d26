"""A smaller encoder of a saved one: weights of half the size, shorter vectors, or a bag of token vectors; and what that
costs, measured."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mirror.config import ExportConfig, Precision, plain
from mirror.config.compose import named_model
from mirror.config.suited import TUNING
from mirror.data.files import read_lines
from mirror.encoder.device import choose_device
from mirror.encoder.encoder import MirrorEncoder
from mirror.encoder.export import write_whole
from mirror.encoder.post import pca
from mirror.errors import MirrorError
from mirror.evaluation.contamination import AUDIT
from mirror.evaluation.sets import TestSet, load_sets
from mirror.evaluation.sets.score import cosines
from mirror.report.console import new_table, printed
from mirror.runs.record import ENCODER, RunRecord

log = logging.getLogger(__name__)

KINDS = {Precision.fp32: torch.float32, Precision.bf16: torch.bfloat16, Precision.fp16: torch.float16}
KEPT = ("README.md", AUDIT, TUNING)
"""Files that the smaller encoder takes over."""
Vectors = dict[str, NDArray[np.float32]]
Encode = Callable[[list[str]], NDArray[np.float32]]


def export(config: ExportConfig, folder: Path) -> None:
    """Save a smaller encoder under ``folder/encoder``, load it, and measure it beside the one it was made of.

    Raises:
        MirrorError: the encoder or the texts cannot be read, or the vectors are shorter than ``dimensions``.
    """
    with RunRecord(folder, plain(config)) as record:
        with record.phase("load"):
            if config.static:
                _model2vec()
            encoder = MirrorEncoder.load(named_model(config.encoder) or config.encoder, setting="encoder")
            if config.dimensions and config.dimensions > encoder.dimension:
                raise MirrorError(
                    f"dimensions={config.dimensions} is more than the {encoder.dimension} of {encoder.name}: lower it."
                )
            texts = list(dict.fromkeys(read_lines(config.input, "input"))) if config.input else []
            sets, setting = config.eval, "eval.validation"
            (test,) = load_sets([sets.validation], sets.data_dir, kinds=sets.kinds, setting=setting)
            encoder.to(choose_device(config.accelerator))
        rows: dict[str, dict[str, float]] = {}
        vectors: dict[str, Vectors] = {}
        with record.phase("evaluate"):
            rows["before"], vectors["before"] = _measured(encoder.encode, encoder.dimension, test)
        with record.phase("save"):
            size = _megabytes(encoder, torch.float32)
            save = _save_static if config.static else _save
            encode, dimension, smaller = save(encoder, config, texts, folder / ENCODER)
        with record.phase("evaluate"):
            rows["after"], vectors["after"] = _measured(encode, dimension, test)
        rows["before"]["megabytes"], rows["after"]["megabytes"] = size, smaller
        rows["after"]["largest change of a cosine"] = _largest_change(test, vectors["before"], vectors["after"])
        record["export"] = rows
        log.info("\n%s", _table(rows, test.name))
        log.info("encoder saved in %s", folder / ENCODER)


def _save(encoder: MirrorEncoder, config: ExportConfig, texts: list[str], folder: Path) -> tuple[Encode, int, float]:
    """The encoder with other weights or shorter vectors, as it is loaded again: what encodes, its dimensions, its
    megabytes."""
    device = encoder.device
    if config.dimensions:
        stage = pca(encoder.encode(texts, progress=True), config.dimensions).to(device)
        encoder.pooling = encoder.pooling.followed_by(stage, "pca")
    encoder.backbone.to(KINDS[config.weights])
    beside = {name: path.read_text() for name in KEPT if (path := Path(config.encoder) / name).is_file()}
    beside["README.md"] = beside.get("README.md", "") + _note(config)
    encoder.cpu().save(folder, beside)
    smaller = MirrorEncoder.load(folder)
    smaller.to(device)
    return smaller.encode, smaller.dimension, _megabytes(encoder, KINDS[config.weights])


def _save_static(
    encoder: MirrorEncoder, config: ExportConfig, texts: list[str], folder: Path
) -> tuple[Encode, int, float]:
    """The same of a vector for each token, by model2vec, whose folder sentence-transformers loads too.

    Raises:
        MirrorError: model2vec cannot read this tokenizer or model.
    """
    distill, load = _model2vec()
    try:
        static = distill(
            encoder.backbone,
            encoder.tokenizer,
            device=str(encoder.device),
            pca_dims=config.dimensions or "auto",
            quantize_to="float16" if config.weights is Precision.fp16 else "float32",
            pooling="first" if encoder.pooling.name.startswith("cls") else "mean",
        )
    except Exception as error:  # the library may raise anything for a tokenizer that it does not know
        reason = " ".join(str(error).split())[:200]
        raise MirrorError(f"static=true: model2vec cannot distil {encoder.name} ({reason}).") from error

    def write(partial: Path) -> None:
        static.save_pretrained(partial)
        with (partial / "README.md").open("a", encoding="utf-8") as card:
            card.write(_note(config))

    write_whole(folder, write)
    again = load(folder)
    return again.encode, again.dim, (folder / "model.safetensors").stat().st_size / 1e6


def _model2vec() -> tuple[Any, Any]:
    """Its functions that distil and load."""
    try:
        from model2vec import StaticModel
        from model2vec.distill import distill_from_model
    except ImportError as error:
        raise MirrorError(
            f"static=true needs the package model2vec ({error}): pip install 'mirror-encoders[static]'."
        ) from None
    return distill_from_model, StaticModel.from_pretrained


def _measured(encode: Encode, dimension: int, test: TestSet) -> tuple[dict[str, float], Vectors]:
    texts = test.texts()
    begin = time.perf_counter()
    found = encode(texts)
    seconds = time.perf_counter() - begin
    vectors = dict(zip(texts, found, strict=True))
    score = test.score_vectors(vectors).value
    return {test.name: score, "dimensions": dimension, "texts per second": len(texts) / seconds}, vectors


def _largest_change(test: TestSet, before: Vectors, after: Vectors) -> float:
    """Over the pairs of the set."""
    return float(np.abs(cosines(test.pairs(), before, test.name) - cosines(test.pairs(), after, test.name)).max())


def _megabytes(encoder: MirrorEncoder, kind: torch.dtype) -> float:
    """Of the weights as they are saved; those behind the backbone stay in float32."""
    behind = sum(weights.numel() * 4 for weights in encoder.pooling.parameters())
    return float(sum(w.numel() for w in encoder.backbone.parameters()) * kind.itemsize + behind) / 1e6


def _note(config: ExportConfig) -> str:
    if config.static:
        return (
            f"\nDistilled by model2vec from {config.encoder}, through mirror: a bag of token vectors, which "
            "sentence-transformers and model2vec load, and mirror.MirrorEncoder does not.\n"
        )
    shorter = f", vectors of {config.dimensions} dimensions by PCA" if config.dimensions else ""
    return (
        f"\nMade smaller of {config.encoder} by mirror: weights in {config.weights.value}{shorter}. Scores further up "
        "are of the encoder it was made of.\n"
    )


def _table(rows: dict[str, dict[str, float]], test: str) -> str:
    table = new_table(f"Before and after; {test} is Spearman × 100")
    table.add_column("")
    for name in rows:
        table.add_column(name, justify="right")
    for figure in rows["after"]:
        digits = {"largest change of a cosine": 5, "dimensions": 0, "texts per second": 0}.get(figure, 2)
        cells = [f"{row[figure]:.{digits}f}" if figure in row else "" for row in rows.values()]
        table.add_row(figure, *cells)
    return printed(table)
