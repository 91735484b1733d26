"""The settings that suit a model which no file of ``conf/model`` names: its own, or those of the nearest known one."""

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from mirror.config.train import ModelConfig
from mirror.errors import MirrorError

CONF_FOLDER = next(root / "conf" for root in Path(__file__).parents[1:] if (root / "conf" / "model").is_dir())
"""In an installed package ``conf`` lies inside it, in a clone beside it."""
OWN = "suited"
"""The file of ``conf/model`` that stands where no ``model=`` is given."""
TUNING = "config_tuning.json"
"""In a model's folder: the settings to tune it with."""
CARRIED = ("learning_rate", "pooling", "temperature", "drophead")
"""What that file may hold."""
SHAPES = {
    "albert": ("albert", 12, 768), "bert": ("bert", 12, 768), "bert_large": ("bert", 24, 1024),
    "bert_medium": ("bert", 8, 512), "bert_mini": ("bert", 4, 256), "bert_small": ("bert", 4, 512),
    "bert_tiny": ("bert", 2, 128), "deberta": ("deberta-v2", 12, 768), "distilbert": ("distilbert", 6, 768),
    "distilroberta": ("roberta", 6, 768), "electra": ("electra", 12, 768), "mini": ("bert", 2, 256),
    "minilm": ("bert", 12, 384), "modernbert": ("modernbert", 22, 768), "mpnet": ("mpnet", 12, 768),
    "roberta": ("roberta", 12, 768), "roberta_large": ("roberta", 24, 1024), "xlm": ("xlm", 12, 2048),
    "xlmr": ("xlm-roberta", 12, 768), "xlnet": ("xlnet", 12, 768),
}  # fmt: skip
"""Architecture, layers and width of the models that others are compared with."""
NEAR = 1.0
"""Farther than a factor of two away, in layers and width together, the rule speaks."""
OTHER_ARCHITECTURE = 0.1
"""Added to the distance: size decides about the settings, the architecture where two are about as near."""
LAYERS = ("num_hidden_layers", "n_layers", "n_layer")
WIDTH = ("hidden_size", "dim", "d_model", "emb_dim")
SCALE = 185
"""The rate times layers times width²: the geometric mean of bert_mini, bert_small, minilm, bert_medium and bert."""
TIMEOUT = 4.0
"""Seconds to wait for the hub."""
HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
Shape = tuple[str, int, int]


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
    for file in sorted((CONF_FOLDER / "model").glob("*.yaml")):
        values: Any = OmegaConf.to_container(OmegaConf.load(file))
        if file.stem != OWN:
            found[file.stem] = (values.pop("path"), Suited(file.stem, **values))
    return found


def named_file(path: str) -> Suited | None:
    """What a file of ``conf/model`` says of this very path, or of the same model without its owner's name."""
    local = os.path.exists(path)
    for own, found in known().values():
        if path == own or (not local and own.endswith(f"/{path}")):
            return found
    return None


def suited(path: str) -> Suited:
    """What suits the model at a path or of a hub name.

    Its own ``config_tuning.json`` speaks first; then the pooling with which a sentence encoder was saved; for the rest
    the known model that is nearest in layers and width, or, where none is near, a rule: the rate falls with layers
    times width², between those of the smallest and of the base models.

    Raises:
        MirrorError: the file in its folder is damaged.
    """
    if (named := named_file(path)) is not None:
        return named
    config = _json(path, "config.json")
    shape = _shape(config) if isinstance(config, dict) else None
    found = by_shape(*shape) if shape else Suited("base models")
    if pooling := _saved_pooling(path):
        found = replace(found, source=f"{found.source} (its own pooling)", pooling=pooling)
    own = _json(path, TUNING)
    if not isinstance(own, dict) or not own:
        return found
    own = {key: value for key, value in own.items() if key in CARRIED}
    try:
        ModelConfig(path, **own)
        if not isinstance(own.get("pooling", ""), str):  # never a part: what a folder names is not imported
            raise TypeError("pooling is no name")
    except (TypeError, MirrorError) as error:
        raise MirrorError(f"{Path(path) / TUNING} is damaged ({error}): mend it, or delete it.") from error
    return replace(found, **own, source=f"its {TUNING}")


def by_shape(architecture: str, layers: int, width: int) -> Suited:
    """What suits a model of a shape that says nothing itself; see ``suited``."""

    def distance(name: str) -> float:
        kind, deep, wide = SHAPES[name]
        apart = abs(math.log2(layers / deep)) + abs(math.log2(width / wide))
        return apart + OTHER_ARCHITECTURE * (kind != architecture)

    nearest = min(SHAPES, key=distance)
    kin = [name for name, (kind, *_) in SHAPES.items() if kind == architecture]
    # Drophead is a matter of the architecture, whatever the size.
    drophead = known()[min(kin or SHAPES, key=distance)][1].drophead
    if distance(nearest) <= NEAR + OTHER_ARCHITECTURE:
        return replace(known()[nearest][1], drophead=drophead)
    small, base = known()["bert_mini"][1], known()["bert"][1]
    rate = min(max(SCALE / (layers * width**2), base.learning_rate), small.learning_rate)
    like = small if rate > (small.learning_rate * base.learning_rate) ** 0.5 else base
    source = f"{layers} layers of {width}"
    return replace(like, source=source, learning_rate=float(f"{rate:.1g}"), drophead=drophead)


def _shape(config: Mapping[str, Any]) -> Shape | None:
    """Architecture, layers and width by a ``config.json``; None where it does not tell."""
    layers, width = (next((config[key] for key in keys if key in config), None) for keys in (LAYERS, WIDTH))
    if type(layers) is not int or type(width) is not int or min(layers, width) < 1:
        return None
    return str(config.get("model_type")), layers, width


def _saved_pooling(path: str) -> str | None:
    """The pooling of a sentence encoder that one name of ``Pooling`` covers, by sentence-transformers' files."""
    modules = _json(path, "modules.json") or []
    kinds = [str(module.get("type")).rpartition(".")[2] for module in modules if isinstance(module, dict)]
    if [kind for kind in kinds if kind not in ("Transformer", "Normalize")] != ["Pooling"]:
        return None
    settings = _json(path, f"{modules[kinds.index('Pooling')].get('path')}/config.json")
    if not isinstance(settings, dict):
        return None
    modes = [key.removeprefix("pooling_mode_") for key, value in settings.items() if value is True and "mode_" in key]
    mode = settings.get("pooling_mode", modes[0] if len(modes) == 1 else None)
    return {f"{name}{of}": name for name in ("cls", "mean", "max") for of in ("", "_token", "_tokens")}.get(str(mode))


def _json(path: str, name: str) -> Any:
    """A small file of a model, as a dictionary or a list; empty where it has none, or none that can be read: whether
    the model can be, is told when it is loaded."""
    folder = Path(path if os.path.exists(path) else os.path.expanduser(path))
    try:
        text = (folder / name).read_bytes() if folder.is_dir() else _from_hub(path, name)
        found = json.loads(text)
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict | list) else {}


@cache
def _from_hub(name: str, file: str) -> bytes:
    """A small file of a model on the hub: from the cache, else by one request.

    Raises:
        OSError: there is none, or the hub does not answer.
        ValueError: the name cannot be one of the hub.
    """
    if not HUB_NAME.fullmatch(name):
        raise ValueError(name)
    import huggingface_hub
    from huggingface_hub import constants

    cached = huggingface_hub.try_to_load_from_cache(name, file)
    if isinstance(cached, str):
        return Path(cached).read_bytes()
    if constants.HF_HUB_OFFLINE:
        raise FileNotFoundError(file)
    from urllib.request import urlopen

    with urlopen(f"{constants.ENDPOINT}/{name}/resolve/main/{file}", timeout=TIMEOUT) as answer:
        return bytes(answer.read())
