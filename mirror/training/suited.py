"""What a run says of the settings that follow its model, and what its encoder carries for whoever tunes it further."""

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mirror.config import Pooling, Task, TrainConfig
from mirror.config.parts import TARGET
from mirror.config.suited import Suited, by_config, named_file, suited
from mirror.runs.record import RunRecord

log = logging.getLogger(__name__)

FAR = 8
"""A rate so many times lower than the suited one is warned of."""
ADAMW, FULL = "mirror.training.optimizer.adamw", "mirror.adapt.base.Full"


def note_suited(config: TrainConfig, architecture: Mapping[str, Any], record: RunRecord) -> None:
    """Say and record which settings follow the model because nobody chose them; nothing of a model that a file of
    ``conf/model`` names. Warn of a rate that is far too low for it, as that of another model's recipe.

    Args:
        config: of the run.
        architecture: the configuration of the loaded model.
        record: gets ``suited``.
    """
    path = config.model.path
    own = suited(path)
    rate = config.optim.get("lr")
    if rate and _learns_whole(config) and rate * FAR <= own.learning_rate:
        log.warning(
            "optim.lr=%g is %.0f times lower than suits this model, which learns little by it: set optim.lr=%g (as for "
            "%s).", rate, own.learning_rate / rate, own.learning_rate, own.source
        )  # fmt: skip
    if named_file(path):
        return
    followed = _followed(config, own)
    if followed:
        record["suited"] = {"source": own.source, **followed}
        log.info("as for %s: %s; set them to choose otherwise", own.source, _words(followed))
    better = by_config(architecture)
    if Path(path).expanduser().exists() or replace(better, source=own.source, drophead=own.drophead) == own:
        return
    # The size of a model on the hub is known only now.
    advice = {name: value for name, value in _suits(better).items() if followed.get(name, value) != value}
    if advice:
        log.warning("%s has another size than BERT: add %s (as for %s).", path, _words(advice, " "), better.source)


def _suits(found: Suited) -> dict[str, Any]:
    return {
        "optim.lr": found.learning_rate, "model.pooling": found.pooling, "loss.temperature": found.temperature
    }  # fmt: skip


def _followed(config: TrainConfig, own: Suited) -> dict[str, Any]:
    now = (config.optim.get("lr"), config.model.pooling, config.loss.get("temperature"))
    return {name: value for (name, value), used in zip(_suits(own).items(), now, strict=True) if used == value}


def _words(settings: Mapping[str, Any], between: str = ", ") -> str:
    return between.join(f"{name}={value}" for name, value in settings.items())


def _learns_whole(config: TrainConfig) -> bool:
    """Whether its rate can be compared: other optimizers have other ones, and few weights want a higher one."""
    return bool(config.optim.get(TARGET) == ADAMW and (config.adapt or {}).get(TARGET, FULL) == FULL)


def tuning_file(config: TrainConfig) -> str:
    """``config_tuning.json`` of a tuned encoder."""
    model, pooling = config.model, config.model.pooling
    rate = config.optim.get("lr") if _learns_whole(config) else None
    found: dict[str, Any] = {"learning_rate": rate or model.learning_rate, "drophead": model.drophead}
    if isinstance(pooling, str) and pooling != Pooling.mean_padded.value:
        found["pooling"] = pooling
    if config.task is Task.sentence:  # words want another temperature than what the encoder may be tuned for next
        found["temperature"] = config.loss.get("temperature", model.temperature)
    return json.dumps(found, indent=2) + "\n"
