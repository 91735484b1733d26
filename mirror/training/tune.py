"""The whole recipe in one call."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mirror.config.compose import CONF, compose, quoted
from mirror.data.rows import Pair
from mirror.encoder.encoder import MirrorEncoder
from mirror.errors import MirrorError
from mirror.training.run import train


def mirror_tune(
    model: str,
    texts: Sequence[str] | Sequence[Pair],
    overrides: Sequence[str] = (),
    output: str | Path | None = None,
) -> MirrorEncoder:
    """Mirror-tune a model on texts: the whole recipe in one call.

    Args:
        model: hub name or local folder, or a file of the group ``model`` with all that suits it, such as ``"mini"``.
        texts: raw texts, or pairs of texts as given positives; all of them are used.
        overrides: settings as on the command line, such as ``["task=word", "loss.temperature=0.1"]``.
        output: run folder for the encoder, the metrics and the log; None leaves nothing behind.

    Raises:
        MirrorError: a setting, the model or the texts are wrong.
    """
    known = (CONF / "model" / f"{model}.yaml").is_file() and not os.path.exists(model)
    chosen = f"model={model}" if known else f"model.path={quoted(model)}"
    config = compose("train", ["eval=none", "data.size=null", *overrides, chosen])
    if output is not None:
        folder = Path(output)
        if folder.exists():
            raise MirrorError(f"{folder} exists already: nothing is overwritten, choose another output.")
        folder.mkdir(parents=True)
        return train(config, folder, texts)
    with tempfile.TemporaryDirectory() as scratch:
        return train(config, Path(scratch), texts)
