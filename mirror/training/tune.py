"""The whole recipe in one call."""

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mirror.config import TrainConfig
from mirror.config.compose import compose, named_model, quoted
from mirror.data.rows import Pair, in_memory
from mirror.encoder.encoder import MirrorEncoder
from mirror.errors import MirrorError
from mirror.runs.record import METRICS, by_step
from mirror.runs.registry import read_run
from mirror.training.run import train

GIVEN = {"data": "texts", "data.path": "texts", "data.source": "texts", "model": "model", "model.path": "model"}
"""Settings that are arguments here."""


def mirror_tune(
    model: str | Path,
    texts: Iterable[str] | Iterable[Pair],
    overrides: Sequence[str] | Mapping[str, Any] = (),
    output: str | Path | None = None,
) -> MirrorEncoder:
    """Mirror-tune a model on texts: the whole recipe in one call.

    Args:
        model: hub name or local folder, or a file of the group ``model`` with all that suits it, such as ``"mini"``.
        texts: raw texts, or pairs of texts as given positives; all of them are used.
        overrides: settings as on the command line, such as ``["task=word", "loss.temperature=0.1"]``, or as a
            dictionary, ``{"task": "word", "loss.temperature": 0.1}``.
        output: run folder for the encoder, the metrics and the curves; None leaves nothing behind.

    Returns:
        The tuned encoder; its ``scores`` (with an ``eval=`` among the overrides) and its ``loss_curve`` are the run's.

    Raises:
        MirrorError: a setting, the model or the texts are wrong.

    Examples:
        >>> texts = ["A man plays the guitar.", "Someone makes music.", "It rains in the hills.", "Snow falls."]
        >>> encoder = mirror_tune("mini", texts, {"trainer.max_epochs": 2, "trainer.progress": False})
        >>> encoder.encode(["A song is played."]).shape
        (1, 256)
        >>> encoder.similarity(["A song is played."], texts).shape
        (1, 4)
        >>> len(encoder.loss_curve)
        2
    """
    rows = in_memory(texts)
    pairs = rows.fetch(range(rows.length))
    if isinstance(overrides, str) or not isinstance(overrides, Iterable):
        raise MirrorError(f"overrides={overrides!r:.80} is no list: give settings in one, as in ['batch.size=64'].")
    typed = [_override(*item) for item in overrides.items()] if isinstance(overrides, Mapping) else list(overrides)
    if other := next((override for override in typed if not isinstance(override, str)), None):
        raise MirrorError(f"overrides holds {other!r:.80}, which is no setting: write it as in 'batch.size=64'.")
    if output is not None and not isinstance(output, str | Path):
        raise MirrorError(f"output={output!r:.80} is no folder: give its path, or None.")
    for override in typed:
        name = override.lstrip("+").partition("=")[0]
        if name in GIVEN:
            raise MirrorError(f"{override} among the overrides: give it as {GIVEN[name]} of mirror_tune.")
    if not isinstance(model, str | Path):
        raise MirrorError(f"model={model!r:.80} is no model: give a hub name or a local folder.")
    model = str(model)
    chosen = f"model={model}" if named_model(model) else f"model.path={quoted(model)}"
    config = compose("train", ["eval=none", "data.size=null", "data.path=null", *typed, chosen])
    if output is not None:
        folder = Path(output).expanduser()
        if folder.exists() and not _failed_at_once(folder):
            raise MirrorError(f"{folder} exists already: nothing is overwritten, choose another output.")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MirrorError(f"output={folder} cannot be made ({error.strerror}): choose another folder.") from error
        return _run(config, folder, pairs)
    if not any(override.lstrip("+").startswith("loss.keep=") for override in typed) and config.loss.get("keep"):
        config.loss["keep"] = None  # a teacher's vectors would stay
    with tempfile.TemporaryDirectory() as scratch:
        return _run(config, Path(scratch), pairs)


def _failed_at_once(folder: Path) -> bool:
    """Whether nothing but the record of a failure is there, as after a wrong setting."""
    run = read_run(folder)
    return run is not None and run["status"] == "failed" and [path.name for path in folder.iterdir()] == [METRICS]


def _run(config: TrainConfig, folder: Path, pairs: Sequence[Pair]) -> MirrorEncoder:
    try:
        encoder = train(config, folder, pairs)
    except MirrorError as error:
        raise type(error)(str(error).replace("model.path=", "model=")) from error
    encoder.scores = (read_run(folder) or {}).get("scores", {})
    encoder.loss_curve = by_step(folder)
    return encoder


def _override(name: str, value: Any) -> str:
    """A setting of a dictionary as on the command line."""
    if isinstance(value, Mapping):
        raise MirrorError(f"overrides[{name!r}] is a dictionary: write each setting by its full name, '{name}.…'.")
    if isinstance(value, list | tuple):
        return f"{name}=[{','.join(_value(item) for item in value)}]"
    return f"{name}={_value(value)}"


def _value(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return quoted(value) if isinstance(value, str) else str(value)
