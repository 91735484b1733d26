"""A pretrained backbone and its tokenizer, from this package, a local folder or the hub."""

import copy
import logging
import math
import os
import pickle
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
import transformers.modeling_utils  # with the other imports: no garbage is collected meanwhile
from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer
from transformers.utils import find_adapter_config_file

from mirror.config.pretrain import MOST_LAYERS
from mirror.encoder import hub, static
from mirror.encoder.damage import check_config, check_tokenizer, unloadable
from mirror.encoder.graph import GraphBackbone, graph_in
from mirror.errors import MirrorError
from mirror.runs.sharing import shared, sharing

log = logging.getLogger(__name__)

NAMED = 3
"""Most weights that an error names."""
FEWEST = 3
"""Tokens that a text with a word has, with those at its two ends."""


@contextmanager
def quiet(*, bars: bool = False) -> Iterator[None]:
    """Silence transformers' messages about missing and unused weights, such as the head of a masked language model."""
    verbosity, shown = transformers.logging.get_verbosity(), transformers.utils.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()
    if not bars:
        transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(verbosity)
        if shown:
            transformers.utils.logging.enable_progress_bar()


def load_backbone(name: str, setting: str) -> tuple[Path | None, Any, Any]:
    """The model's folder, if known, its backbone in float32 and its tokenizer.

    Code in the folder is never run, and the user is never asked to allow it.

    Raises:
        MirrorError: there is no such model, the hub cannot be reached, its files are damaged or do not belong together,
            or it is not an encoder; ``setting``, by which the user gave it, is named.
    """
    loaded = shared("backbone", name, lambda: _load(name, setting))
    return copy.deepcopy(loaded) if sharing() else loaded  # the backbone is going to be tuned


def _load(name: str, setting: str) -> tuple[Path | None, Any, Any]:
    source, given = hub.source_of(name, setting), f"{setting}={name}"
    folder = Path(source)
    if hub.looks_local(source):
        if not os.path.exists(folder):
            raise MirrorError(f"{given} does not exist: give a model folder or a hub name.")
        source, reachable = str(folder), True
    else:
        reachable = hub.go_offline_unless_reachable()
    try:
        with quiet(bars=not os.path.exists(folder)):  # a download keeps its bar
            _refuse_adapter(source, given)
            if os.path.exists(folder) and not (folder / "config.json").exists():
                inside = [name for name in ("encoder", "model") if (folder / name / "config.json").exists()]
                advice = f"; did you mean {given}/{inside[0]}?" if inside else "."
                raise MirrorError(f"{given} is no model folder: it has no config.json{advice}")
            if static.held_in(folder):
                return folder, *static.load(folder)
            config = AutoConfig.from_pretrained(source, trust_remote_code=False)
            if getattr(config, "is_encoder_decoder", False) or _decoder_only(config):
                raise MirrorError(
                    f"{given} is a {config.model_type} model, which does not read text in both directions: "
                    "give a masked language model such as BERT or RoBERTa."
                )
            graph = graph_in(folder)
            backbone: Any = GraphBackbone(folder, graph) if graph else load_weights(AutoModel, source, given)[0]
            tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except MirrorError:
        raise
    except Exception as error:  # the libraries may raise anything for a damaged or foreign folder
        raise unloadable(setting, name, error, reachable=reachable, source=source) from error
    if getattr(config, "auto_map", None):
        log.warning(
            "%s brings code of its own, which is not run: it is a plain %s here.", given, type(backbone).__name__
        )
    check_tokenizer(tokenizer, given, FEWEST)
    if graph is None and len(tokenizer) > backbone.get_input_embeddings().num_embeddings:
        raise MirrorError(
            f"{given}: the tokenizer has {len(tokenizer)} entries and the model only "
            f"{backbone.get_input_embeddings().num_embeddings} embeddings: they do not belong together."
        )
    return _folder_of(source), backbone, tokenizer


def load_weights(kind: Any, source: str, given: str) -> tuple[Any, list[str]]:
    """A model of an ``AutoModel`` class in float32, and the weights of its head that its files lack.

    Raises:
        MirrorError: weights of the backbone are missing, of another shape than the configuration says or not finite,
            or pickled ones cannot be read; ``given``, a setting with its value, is named.
    """
    check_config(AutoConfig.from_pretrained(source, trust_remote_code=False), given, MOST_LAYERS)
    try:
        # Other shapes are only let through to be named below.
        options = {"dtype": torch.float32, "ignore_mismatched_sizes": True, "output_loading_info": True}
        model, loading = kind.from_pretrained(source, trust_remote_code=False, **options)
    except ValueError:  # a configuration that this class does not know
        raise
    except Exception as error:  # torch's own advice to a file that it will not unpickle is to let it run its code
        if isinstance(error, pickle.UnpicklingError) or _only_pickled(Path(source)):
            raise MirrorError(
                f"{given} has pickled weights (pytorch_model.bin) that are damaged or hold more than weights, and are "
                "not loaded: give the model with a model.safetensors."
            ) from error
        raise
    for weights, found, wanted in sorted(loading["mismatched_keys"]):
        raise MirrorError(
            f"{given} has weights of another shape than its config.json says ({weights} is {_shape(found)} and not "
            f"{_shape(wanted)}): give the config.json that belongs to them."
        )
    prefix = "" if model.base_model is model else f"{model.base_model_prefix}."
    # Nothing reads the pooler, and many a checkpoint lacks it.
    backbone = {f"{prefix}{weights}" for weights in model.base_model.state_dict() if not weights.startswith("pooler.")}
    missing = sorted(loading["missing_keys"])
    if lost := [weights for weights in missing if weights in backbone]:
        raise MirrorError(
            f"{given} lacks weights that its config.json asks for ({_some(lost)}): give the whole model, with the "
            "config.json that belongs to it."
        )
    if further := _further_layers(loading["unexpected_keys"], model.base_model):
        raise MirrorError(
            f"{given} has weights of more layers than its config.json says ({_some(further)}), which would be cut off: "
            "give the config.json that belongs to them."
        )
    if wrong := [name for name, weights in model.named_parameters() if not weights.isfinite().all()]:
        raise MirrorError(
            f"{given} has weights that are infinite or not a number ({_some(wrong)}): give a model whose training did "
            "not diverge."
        )
    vars(model.config).pop("auto_map", None)  # where the model is saved, that code does not lie
    return model, missing


def _refuse_adapter(source: str, given: str) -> None:
    if find_adapter_config_file(source):
        raise MirrorError(
            f"{given} has an adapter beside or instead of its weights (adapter_config.json), which would be ignored: "
            "merge it into the model first (merge_and_unload in PEFT) and give that folder."
        )


def _only_pickled(folder: Path) -> bool:
    return any(folder.glob("*.bin")) and not any(folder.glob("*.safetensors*"))


def _further_layers(unused: Iterable[str], base: Any) -> list[str]:
    """Of the weights that a model does not take, those that it has under another number: no head, but a layer more."""
    layers = {re.sub(r"\.\d+\.", ".#.", weights) for weights in base.state_dict() if re.search(r"\.\d+\.", weights)}
    prefix = f"{base.base_model_prefix}."
    return sorted(name for name in unused if re.sub(r"\.\d+\.", ".#.", name.removeprefix(prefix)) in layers)


def _shape(sizes: Iterable[int]) -> str:
    return " x ".join(map(str, sizes))


def _some(names: Sequence[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")


def _folder_of(source: str) -> Path | None:
    """Where a model's small files are: its folder, or its folder in the hub's cache once they are fetched."""
    if Path(source).exists():
        return Path(source)
    from huggingface_hub import snapshot_download

    try:
        wanted = ["modules.json", "sentence_bert_config.json", "*/config.json", "*_WeightedLayerPooling/*"]
        return Path(snapshot_download(source, allow_patterns=wanted))
    except (OSError, ValueError):
        return None


def _decoder_only(config: Any) -> bool:
    """Whether a model was made to predict the next token."""
    masked = transformers.models.auto.modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    # XLNet reads in both directions although it was not made to fill in masks.
    return bool(getattr(config, "is_decoder", False)) or config.model_type not in (*masked, "xlnet")


def longest_text(backbone: Any, tokenizer: Any) -> int:
    """Longest text, in tokens, that backbone and tokenizer both take."""
    return int(min(tokenizer.model_max_length, positions(backbone, tokenizer.pad_token_id)))


def positions(backbone: Any, pad_id: int) -> float:
    """Tokens in a row that a backbone has positions for: only learned absolute ones end somewhere."""
    learnt = getattr(backbone.config, "max_position_embeddings", None)
    if not isinstance(learnt, int) or learnt <= 0:
        return math.inf
    return learnt - (pad_id + 1 if _positions_follow_padding(backbone) else 0)  # RoBERTa's family loses the first few


def _positions_follow_padding(backbone: Any) -> bool:
    embeddings = getattr(getattr(backbone, "embeddings", None), "position_embeddings", None)
    return isinstance(embeddings, nn.Embedding) and embeddings.padding_idx is not None
