"""A smaller encoder of a saved one: weights of half the size, shorter vectors; and what that costs, measured."""

import logging
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mirror.config import ExportConfig, Precision, plain
from mirror.config.compose import named_model
from mirror.config.suited import TUNING
from mirror.data.files import read_lines
from mirror.encoder.device import choose_device
from mirror.encoder.encoder import MirrorEncoder
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


def export(config: ExportConfig, folder: Path) -> None:
    """Save a smaller encoder under ``folder/encoder``, load it, and measure it beside the one it was made of.

    Raises:
        MirrorError: the encoder or the texts cannot be read, or the vectors are shorter than ``dimensions``.
    """
    with RunRecord(folder, plain(config)) as record:
        with record.phase("load"):
            encoder = MirrorEncoder.load(named_model(config.encoder) or config.encoder, setting="encoder")
            if config.dimensions and config.dimensions > encoder.dimension:
                raise MirrorError(
                    f"dimensions={config.dimensions} is more than the {encoder.dimension} of {encoder.name}: lower it."
                )
            texts = list(dict.fromkeys(read_lines(config.input, "input"))) if config.input else []
            test = load_sets([config.eval.validation], config.eval.data_dir, kinds=config.eval.kinds)[0]
            encoder.to(device := choose_device(config.accelerator))
        rows, vectors = {}, {}
        with record.phase("evaluate"):
            rows["before"], vectors["before"] = _measured(encoder, test)
        with record.phase("save"):
            if config.dimensions:
                stage = pca(encoder.encode(texts, progress=True), config.dimensions).to(device)
                encoder.pooling = encoder.pooling.followed_by(stage, "pca")
            size = _megabytes(encoder, torch.float32, before=config.dimensions is not None)
            encoder.backbone.to(KINDS[config.weights])
            beside = {name: path.read_text() for name in KEPT if (path := Path(config.encoder) / name).is_file()}
            beside["README.md"] = beside.get("README.md", "") + _note(config)
            encoder.cpu().save(folder / ENCODER, beside)
        with record.phase("evaluate"):
            smaller = MirrorEncoder.load(folder / ENCODER)
            smaller.to(device)
            rows["after"], vectors["after"] = _measured(smaller, test)
        rows["before"]["megabytes"] = size
        rows["after"]["megabytes"] = _megabytes(encoder, KINDS[config.weights])
        rows["after"]["largest change of a cosine"] = _largest_change(test, vectors["before"], vectors["after"])
        record["export"] = rows
        log.info("\n%s", _table(rows, test.name))
        log.info("encoder saved in %s", folder / ENCODER)


def _measured(encoder: MirrorEncoder, test: TestSet) -> tuple[dict[str, float], Vectors]:
    texts = test.texts()
    begin = time.perf_counter()
    found = encoder.encode(texts)
    seconds = time.perf_counter() - begin
    vectors = dict(zip(texts, found, strict=True))
    score = test.score_vectors(vectors).value
    return {test.name: score, "dimensions": encoder.dimension, "texts per second": len(texts) / seconds}, vectors


def _largest_change(test: TestSet, before: Vectors, after: Vectors) -> float:
    """Over the pairs of the set."""
    return float(np.abs(cosines(test.pairs(), before, test.name) - cosines(test.pairs(), after, test.name)).max())


def _megabytes(encoder: MirrorEncoder, kind: torch.dtype, *, before: bool = False) -> float:
    """Of the weights as they are saved; ``before`` leaves out the last stage, which is new."""
    stages = list(encoder.pooling.stages)[: -1 if before else None]
    behind = sum(weights.numel() * 4 for stage in stages for weights in stage.parameters())
    return float(sum(w.numel() for w in encoder.backbone.parameters()) * kind.itemsize + behind) / 1e6


def _note(config: ExportConfig) -> str:
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
