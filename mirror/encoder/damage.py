"""What is wrong with a model that the libraries do not read, told by the file that is to blame."""

import json
import re
from pathlib import Path
from typing import Any

import transformers
from safetensors import SafetensorError, safe_open

from mirror.errors import MirrorError

OBJECTS = ("config.json", "tokenizer_config.json", "tokenizer.json", "special_tokens_map.json")
"""Files that hold one JSON object each."""
TOKENIZER = ("tokenizer.*", "vocab*", "*.model", "merges.txt", "spiece*", "sentencepiece*")
SIZES = ("hidden_size", "num_attention_heads", "intermediate_size", "vocab_size")
USUAL = {"0", "1", "2", "True", "False", "None"}
"""Values that many settings have."""


def unloadable(setting: str, name: str, error: Exception, *, reachable: bool, source: str | None = None) -> MirrorError:
    """One sentence for an error of the libraries, whose own advice may be to run the folder's code.

    Args:
        setting: by which the user gave the model.
        name: what the user gave.
        error: of the libraries.
        reachable: whether the model is here, or the hub answers.
        source: where the model is read from; None is ``name``.
    """
    given, folder, text = f"{setting}={name}", Path(source or name), " ".join(str(error).split())
    if "trust_remote_code" in text:
        return MirrorError(
            f"{given} can only be read by code of its own, which is never run: give one that transformers "
            "reads by itself, such as BERT or RoBERTa."
        )
    if not reachable:
        return MirrorError(
            f"{given} is no local folder, and the hub cannot be reached: "
            f"give a local folder, as in {setting}=/path/to/model."
        )
    if folder.is_file():
        return MirrorError(f"{given} is a file: give the folder of a model.")
    if not folder.is_dir():
        return MirrorError(f"{given} cannot be loaded from the hub: {text[:300]}")
    return MirrorError(f"{given} cannot be loaded: {_culprit(folder, text)}.")


def _culprit(folder: Path, text: str) -> str:
    for name in OBJECTS:
        if (folder / name).exists() and _object(folder / name) is None:
            return f"its {name} is damaged (no JSON object): save or download it again"
    config = _object(folder / "config.json")
    if config is None:
        return "it has no config.json, nor a tokenizer that can be read: give the folder of a model"
    kind = config.get("model_type")
    if kind not in transformers.CONFIG_MAPPING:
        return f"its config.json has model_type {kind!r:.40}, which this version of transformers does not know"
    weights = sorted(folder.glob("*.safetensors"))
    if not weights and not any(folder.glob("*.bin")):
        return "it has no weights: add its model.safetensors"
    for path in weights:
        try:
            with safe_open(path, "pt"):
                pass
        except (SafetensorError, OSError):
            return f"its {path.name} is damaged or cut off: save or download it again"
    if not any(True for pattern in TOKENIZER for _ in folder.glob(pattern)):
        return "it comes without a tokenizer: add its tokenizer.json"
    # What the error says of a setting: its name, or its value.
    words = set(re.findall(r"[\w.-]+", text))
    for name in OBJECTS[:2]:
        settings = (_object(folder / name) or {}).items()
        told = [f"{key} {value!r:.40}" for key, value in settings if key in words or str(value) in words - USUAL]
        if told:
            return f"its {name} is damaged ({', '.join(told[:3])}): give the one that belongs to the weights"
    return "its config.json or its tokenizer's files are damaged, or for another version: save or download them again"


def check_config(config: Any, given: str, most_layers: int) -> None:
    """Sizes of a network that none has; more layers would be laid out for hours before their weights are missed.

    Raises:
        MirrorError: a size is out of range, or the weights are quantised.
    """
    for name, most in {"num_hidden_layers": most_layers, **dict.fromkeys(SIZES, 10**8)}.items():
        value = getattr(config, name, 1)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            raise MirrorError(
                f"{given} has a config.json with {name} {value!r:.40}, and it should be a number from 1 to {most}: "
                "give the config.json that belongs to the weights."
            )
    if getattr(config, "quantization_config", None):
        raise MirrorError(
            f"{given} is quantised (quantization_config in its config.json), and such weights are not read: give the "
            "model in full precision."
        )


def check_tokenizer(tokenizer: Any, given: str, fewest: int) -> None:
    """What every text needs of a tokenizer.

    Raises:
        MirrorError: it knows no words, lacks a special token, or its limit is no number of tokens.
    """
    if len(tokenizer) <= len(tokenizer.all_special_ids):  # transformers makes one up, without a single word
        raise MirrorError(f"{given} comes without a tokenizer: add its tokenizer.json to the folder.")
    if tokenizer.pad_token_id is None:
        raise MirrorError(f"{given} has a tokenizer without a padding token: give an encoder model.")
    for token in ("cls_token", "sep_token"):
        if getattr(tokenizer, token) is None:
            raise MirrorError(f"{given} has a tokenizer without a {token}: name it in its tokenizer_config.json.")
    limit = tokenizer.model_max_length
    if not isinstance(limit, int | float) or limit < fewest:
        raise MirrorError(
            f"{given} has a damaged tokenizer_config.json: model_max_length is {limit!r:.40}, and should be a number "
            f"of tokens, at least {fewest}."
        )
    if tokenizer.cls_token_id not in tokenizer("a")["input_ids"]:
        raise MirrorError(
            f"{given} has a tokenizer that puts no {tokenizer.cls_token} to a text: its tokenizer.json is damaged or "
            "of another model."
        )


def _object(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None
