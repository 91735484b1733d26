"""A pretrained backbone and its tokenizer, from this package, a local folder or the hub."""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer

from mirror.encoder import hub
from mirror.errors import MirrorError
from mirror.runs.sharing import shared, sharing


@contextmanager
def quiet(*, bars: bool = False) -> Iterator[None]:
    """Silence what transformers says of weights that come or go: the head of a masked language model is not used."""
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
    """The folder that a model lies in, if it is known, the backbone in float32 and the tokenizer.

    Errors name ``setting``, by which the user gave the model.
    """
    loaded = shared("backbone", name, lambda: _load(name, setting))
    return copy.deepcopy(loaded) if sharing() else loaded  # the backbone is going to be tuned


def _load(name: str, setting: str) -> tuple[Path | None, Any, Any]:
    source = hub.source_of(name, setting)
    folder = Path(source).expanduser()
    if hub.looks_local(source):
        if not folder.exists():
            raise MirrorError(f"{setting}={name} does not exist: give a model folder or a hub name.")
        if not (folder / "config.json").exists():
            raise MirrorError(f"{setting}={name} is no model folder: it has no config.json.")
        source, reachable = str(folder), True
    else:
        reachable = hub.go_offline_unless_reachable()
    try:
        with quiet(bars=not folder.exists()):  # a download keeps its bar
            config = AutoConfig.from_pretrained(source)
            if getattr(config, "is_encoder_decoder", False) or _decoder_only(config):
                raise MirrorError(
                    f"{setting}={name} is a {config.model_type} model, which does not read text in both directions: "
                    "give a masked language model such as BERT or RoBERTa."
                )
            backbone = AutoModel.from_pretrained(source, config=config, dtype=torch.float32)
            tokenizer = AutoTokenizer.from_pretrained(source)
    except MirrorError:
        raise
    except Exception as error:  # whatever the libraries make of a folder that is damaged or none of theirs
        if not reachable:
            raise MirrorError(
                f"{setting}={name} is no local folder, and the hub cannot be reached: "
                f"give a local folder, as in {setting}=/path/to/model."
            ) from error
        raise MirrorError(f"{setting}={name} cannot be loaded: {' '.join(str(error).split())[:300]}") from error
    if len(tokenizer) <= len(tokenizer.all_special_ids):  # transformers makes one up, without a single word
        raise MirrorError(f"{setting}={name} comes without a tokenizer: add its tokenizer.json to the folder.")
    if tokenizer.pad_token_id is None:
        raise MirrorError(f"{setting}={name} has a tokenizer without a padding token: give an encoder model.")
    if len(tokenizer) > backbone.get_input_embeddings().num_embeddings:
        raise MirrorError(
            f"{setting}={name}: the tokenizer has {len(tokenizer)} entries and the model only "
            f"{backbone.get_input_embeddings().num_embeddings} embeddings: they do not belong together."
        )
    return _folder_of(source), backbone, tokenizer


def _folder_of(source: str) -> Path | None:
    """Where a model's small files lie: its folder, or its place in the hub's cache once they are fetched."""
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
