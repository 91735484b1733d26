"""Using an encoder: scores of any model, vectors of any text file."""

import logging
import os
from pathlib import Path

import numpy as np
import torch

from mirror.config import EncodeConfig, EvaluateConfig, plain
from mirror.encoder import MirrorEncoder
from mirror.errors import MirrorError
from mirror.evaluation import Score, load_sets
from mirror.evaluation import evaluate as score_sets
from mirror.record import RunRecord
from mirror.summary import protocol_table
from mirror.texts import read_lines

log = logging.getLogger(__name__)


def evaluate(config: EvaluateConfig, folder: Path) -> dict[str, Score]:
    """Score an encoder on the sets of ``eval=`` and print them by protocol.

    Raises:
        MirrorError: the encoder or a set cannot be loaded.
    """
    with RunRecord(folder, plain(config)) as record:
        if not config.eval.measured:
            raise MirrorError("eval=none measures nothing: choose eval=stsb, eval=sts, eval=words or eval=demo.")
        with record.phase("load"):
            encoder = _load(config.encoder, config)
            sets = load_sets(config.eval.measured, config.eval.data_dir)
        with record.phase("evaluate"):
            scores = score_sets(lambda texts: encoder.encode(texts, progress=True), sets)
        pooling = encoder.pooling.value
        record["pooling"] = pooling
        record["scores"] = {
            f"{pooling}": {name: {**score.protocols, "pairs": score.pairs} for name, score in scores.items()}
        }
        log.info("\n%s", protocol_table(scores, f"{config.encoder}, {pooling} pooling, × 100 (Spearman, unless named)"))
        return scores


def encode(config: EncodeConfig) -> None:
    """Write one vector for each line of a text file, as a NumPy array (lines, dimension), float32.

    Raises:
        MirrorError: the input cannot be read, or the output exists or cannot be written.
    """
    target = Path(config.output)
    if target.exists():
        raise MirrorError(f"output={target} exists already: nothing is overwritten, choose another name.")
    if not target.parent.is_dir():
        raise MirrorError(f"output={target}: the folder {target.parent} does not exist, make it first.")
    lines = read_lines(config.input, "input")
    vectors = _load(config.encoder, config).encode(lines, progress=True)
    partial = target.with_name(target.name + ".partial")
    try:
        with partial.open("wb") as file:
            np.save(file, vectors)
        os.replace(partial, target)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise MirrorError(f"output={target} cannot be written ({error.strerror}): choose another place.") from error
    log.info("%d vectors of %d dimensions in %s", *vectors.shape, target)


def _load(name: str, config: EvaluateConfig | EncodeConfig) -> MirrorEncoder:
    encoder = MirrorEncoder.load(name, config.pooling, max_tokens=config.max_tokens, setting="encoder")
    return encoder.to("cuda" if torch.cuda.is_available() else "cpu")
