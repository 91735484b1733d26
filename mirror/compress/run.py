"""Save a smaller encoder and measure it beside the one it was made of."""

import logging
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mirror.compress import graph, static, weights
from mirror.compress.push import check_push, push
from mirror.config import ExportConfig, Format, plain
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

WRITERS = {Format.torch: weights, Format.onnx: graph, Format.openvino: graph, Format.static: static}
"""Each ``save(encoder, config, folder, beside)``, and ``check(config, encoder)`` before anything is measured."""
KEPT = ("README.md", AUDIT, TUNING)
"""Files that the smaller encoder takes over."""
SUFFIXES = (".safetensors", ".onnx", ".bin", ".xml")
"""Of files with weights."""
Vectors = dict[str, NDArray[np.float32]]


def export(config: ExportConfig, folder: Path) -> None:
    """Save a smaller encoder under ``folder/encoder``, load it, and measure it beside the one it was made of; push it.

    Raises:
        MirrorError: the encoder or the texts cannot be read, the vectors are shorter than ``dimensions``, the format
            cannot hold this encoder, or it cannot be pushed.
    """
    with RunRecord(folder, plain(config)) as record:
        with record.phase("load"):
            if config.push:
                check_push(config.push)
            encoder = MirrorEncoder.load(config.encoder, setting="encoder")
            if config.dimensions and config.dimensions > encoder.dimension:
                raise MirrorError(
                    f"dimensions={config.dimensions} is more than the {encoder.dimension} of {encoder.name}: lower it."
                )
            if not config.smaller:
                _push(Path(config.encoder), config)
                return
            WRITERS[config.format].check(config, encoder)
            texts = list(dict.fromkeys(read_lines(config.input, "input"))) if config.input else []
            sets, setting = config.eval, "eval.validation"
            (test,) = load_sets([sets.validation], sets.data_dir, kinds=sets.kinds, setting=setting)
            encoder.to(choose_device(config.accelerator))
        rows: dict[str, dict[str, float]] = {}
        with record.phase("evaluate"):
            rows["before"], before = _measured(encoder, test)
            rows["before"]["megabytes"] = sum(4 * each.numel() for each in encoder.parameters()) / 1e6
        with record.phase("save"):
            beside = {name: path.read_text() for name in KEPT if (path := Path(config.encoder) / name).is_file()}
            beside["README.md"] = beside.get("README.md", "") + _note(config)
            device = encoder.device
            if texts and config.dimensions:
                stage = pca(encoder.encode(texts, progress=True), config.dimensions).to(device)
                encoder.pooling = encoder.pooling.followed_by(stage, "pca")
            WRITERS[config.format].save(encoder.cpu(), config, folder / ENCODER, beside)
        with record.phase("evaluate"):
            smaller = MirrorEncoder.load(folder / ENCODER)
            rows["after"], after = _measured(smaller.to(device), test)
            files = [path for path in (folder / ENCODER).rglob("*") if path.suffix in SUFFIXES]
            rows["after"]["megabytes"] = sum(path.stat().st_size for path in files) / 1e6
        change = cosines(test.pairs(), before, test.name) - cosines(test.pairs(), after, test.name)
        rows["after"]["largest change of a cosine"] = float(np.abs(change).max())
        record["export"] = rows
        log.info("\n%s", _table(rows, test.name))
        log.info("encoder saved in %s", folder / ENCODER)
        _push(folder / ENCODER, config)


def _push(encoder: Path, config: ExportConfig) -> None:
    if config.push:
        log.info("pushed to %s", push(encoder, config.push, private=config.private))


def _measured(encoder: MirrorEncoder, test: TestSet) -> tuple[dict[str, float], Vectors]:
    texts = test.texts()
    begin = time.perf_counter()
    found = encoder.encode(texts)
    seconds = time.perf_counter() - begin
    vectors = dict(zip(texts, found, strict=True))
    score = test.score_vectors(vectors).value
    return {test.name: score, "dimensions": encoder.dimension, "texts per second": len(texts) / seconds}, vectors


def _note(config: ExportConfig) -> str:
    made = f"\nMade smaller of {config.encoder} by mirror: {config.format.value}, weights in {config.weights.value}"
    if config.dimensions:
        made += f", vectors of {config.dimensions} dimensions by PCA"
    return f"{made}. Scores further up are of the encoder it was made of.\n{WRITERS[config.format].note(config)}"


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
