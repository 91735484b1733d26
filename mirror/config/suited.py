"""The settings that suit a model which no file of ``conf/model`` names: its own, or those of the nearest known one."""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from mirror.config.sections import ModelConfig
from mirror.errors import MirrorError

CONF = next(root / "conf" for root in Path(__file__).parents[1:] if (root / "conf" / "model").is_dir())
"""In an installed package ``conf`` lies inside it, in a clone beside it."""
OWN = "suited"
"""The file of ``conf/model`` that stands where no ``model=`` is given."""
TUNING = "config_tuning.json"
"""In a model's folder: the settings to tune it with."""
CARRIED = ("learning_rate", "pooling", "temperature", "drophead")
"""What that file may hold."""
SHAPES = {
    "bert_tiny": (2, 128), "mini": (2, 256), "bert_mini": (4, 256), "bert_small": (4, 512), "bert_medium": (8, 512),
    "minilm": (12, 384), "distilbert": (6, 768), "bert": (12, 768), "bert_large": (24, 1024),
}  # fmt: skip
"""Layers and width of the models that others are compared with: as in their names, those of BERT as in Devlin et al.
2019, section 3; DistilBERT has half its layers."""
KIN = {"deberta-v2": "deberta", "mpnet": "mpnet", "roberta": "roberta", "xlm-roberta": "xlmr"}
"""Architectures with a drophead rate of their own, whatever the size, and the file that says it."""
NEAR = 1.0
"""Farther than a factor of two away, in layers and width together, the rule speaks."""
SCALE = 185
"""The rate times layers times width²: the geometric mean of bert_mini, bert_small, minilm, bert_medium and bert."""
LAYERS = ("num_hidden_layers", "n_layers", "n_layer")
WIDTH = ("hidden_size", "dim", "d_model", "emb_dim")


@dataclass(frozen=True)
class Suited:
    """Settings of ``ModelConfig`` that suit a model, and whose they are."""

    source: str
    """A file of ``conf/model``, the file in the model's folder, or what the rule goes by."""
    learning_rate: float = ModelConfig.learning_rate
    pooling: str = str(ModelConfig.pooling)
    temperature: float = ModelConfig.temperature
    drophead: float = ModelConfig.drophead


@cache
def known() -> dict[str, tuple[str, Suited]]:
    """By the name of each file in ``conf/model``: its path, and what it says."""
    found = {}
    for file in sorted((CONF / "model").glob("*.yaml")):
        if file.stem != OWN:
            values: Any = OmegaConf.to_container(OmegaConf.load(file))
            found[file.stem] = (values.pop("path"), Suited(file.stem, **values))
    return found


def named_file(path: str) -> Suited | None:
    """What a file of ``conf/model`` says of the model at this path; None if none names it."""
    return next((found for own, found in known().values() if path == own), None)


def suited(path: str) -> Suited:
    """What suits the model at a path or of a hub name.

    A file of ``conf/model`` that names it speaks first, then the ``config_tuning.json`` in its folder, then the known
    model that is nearest in layers and width, or, where none is near, a rule. What only the hub knows is not asked
    for: such a model gets the settings of BERT.

    Raises:
        MirrorError: the file in its folder is damaged.
    """
    if found := named_file(path):
        return found
    folder = Path(path).expanduser()
    found = by_config(_json(folder / "config.json"))
    if not os.path.isfile(folder / TUNING):  # unlike that of a Path, it takes names of any length
        return found
    try:
        own = {key: value for key, value in _json(folder / TUNING).items() if key in CARRIED}
        if not own:
            raise ValueError(f"it holds none of {', '.join(CARRIED)}")
        if not isinstance(own.get("pooling", ""), str):  # never a part: what a folder names is not imported
            raise ValueError("pooling is no name")
        if wrong := next((key for key, value in own.items() if key != "pooling" and not _is_number(value)), None):
            raise ValueError(f"{wrong} is no number")
        ModelConfig(path, **own)
    except (TypeError, ValueError, MirrorError) as error:
        raise MirrorError(f"{folder / TUNING} is damaged ({error}): mend it, or delete it.") from error
    return replace(found, **own, source=f"its {TUNING}")


def by_config(config: Mapping[str, Any]) -> Suited:
    """What suits a model that says nothing itself, by the shape in its ``config.json``; see ``suited``."""
    layers, width = (next((config[key] for key in keys if key in config), None) for keys in (LAYERS, WIDTH))
    if type(layers) is not int or type(width) is not int or min(layers, width) < 1:
        return known()["bert"][1]  # whether the model can be read at all, is told when it is loaded

    def distance(name: str) -> float:
        deep, wide = SHAPES[name]
        return abs(math.log2(layers / deep)) + abs(math.log2(width / wide))

    drophead = known()[KIN.get(str(config.get("model_type")), "bert")][1].drophead
    nearest = min(SHAPES, key=distance)
    if distance(nearest) <= NEAR:
        return replace(known()[nearest][1], drophead=drophead)
    small, base = known()["bert_mini"][1], known()["bert"][1]
    rate = min(max(SCALE / (layers * width**2), base.learning_rate), small.learning_rate)
    like = small if rate > (small.learning_rate * base.learning_rate) ** 0.5 else base
    source = f"{layers} layers of {width}"
    return replace(like, source=source, learning_rate=float(f"{rate:.1g}"), drophead=drophead)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _json(file: Path) -> dict[str, Any]:
    """A small file of a model as a dictionary, empty where it cannot be read."""
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
