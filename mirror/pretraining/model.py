"""The model to pre-train and its tokenizer: given ones, or new ones of the settings' sizes."""

import logging
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForMaskedLM, BertConfig, BertForMaskedLM, RobertaConfig, RobertaForMaskedLM

from mirror.config import PretrainConfig, Start, TokenizerKind
from mirror.encoder import hub
from mirror.encoder.backbone import load_backbone, load_weights, quiet
from mirror.encoder.export import save_tokenizer, write_whole
from mirror.encoder.perturb import set_dropout
from mirror.errors import MirrorError
from mirror.pretraining.corpus import Corpus
from mirror.pretraining.embeddings import log_frequencies, ppmi_embeddings, sinusoids
from mirror.pretraining.grow import grown
from mirror.pretraining.heads import STD
from mirror.pretraining.tokenizer import load_tokenizer, train_tokenizer
from mirror.training.hardware import is_rank_zero

log = logging.getLogger(__name__)

TOKENIZER = "tokenizer"
"""Folder of a tokenizer that a run has learnt, until the run is finished."""
COUNTED_STD = 0.1
"""Of embeddings that were counted. A step of Adam moves a weight by up to the rate, however small the weight: at
``STD`` the counts were forgotten within 200 steps (benchmarks/results/notes.md)."""


def find_tokenizer(config: PretrainConfig, texts: Sequence[str], folder: Path, *, progress: bool) -> Any:
    """The given tokenizer, the model's, the one that the run has learnt already, or one learnt from the texts."""
    if begins_with := config.model.begins_with:
        setting, name = begins_with
        *_, tokenizer = load_backbone(name, setting)
        if tokenizer.mask_token_id is None:
            raise MirrorError(f"{setting}={name} has no mask token: give a masked language model.")
    if config.tokenizer.path:
        return load_tokenizer(config.tokenizer.path)
    if begins_with:
        log.info("tokenizer: that of %s=%s; tokenizer.path= takes another one", *begins_with)
        return tokenizer
    learnt = folder / TOKENIZER
    if not learnt.exists() and is_rank_zero():
        log.info("learning a %s tokenizer of %d entries …", config.tokenizer.kind.value, config.tokenizer.vocab_size)
        tokenizer = train_tokenizer(texts, config.tokenizer, config.model.positions, progress=progress)
        write_whole(learnt, partial(save_tokenizer, tokenizer))
    while not learnt.exists():  # another process is learning it
        time.sleep(0.2)
    return load_tokenizer(str(learnt))


def build_model(config: PretrainConfig, tokenizer: Any, corpus: Corpus | None) -> Any:
    """The model to train: one to continue from, or a new one, whose embeddings come from the corpus if one is given."""
    if begins_with := config.model.begins_with:
        setting, name = begins_with
        with quiet():
            source = hub.source_of(name, setting)
            try:
                model, missing = load_weights(AutoModelForMaskedLM, source, f"{setting}={name}")
            except ValueError as error:  # transformers has no masked language model of this type
                raise MirrorError(
                    f"{setting}={name} cannot be trained to fill in masks: give a masked language model such as BERT "
                    "or RoBERTa."
                ) from error
        if missing:
            log.warning("%s=%s comes without %s: these weights begin at random.", setting, name, ", ".join(missing))
        if len(tokenizer) > model.get_input_embeddings().num_embeddings:
            raise MirrorError(
                f"tokenizer.path={config.tokenizer.path} has {len(tokenizer)} entries and {setting}={name} only "
                f"{model.get_input_embeddings().num_embeddings} embeddings: they do not belong together."
            )
        if config.model.grow_from:
            model = grown(model, config.model)
        set_dropout(model, config.model.dropout)
        return model
    sizes = sizes_of(config, tokenizer)
    offset = 0
    if config.tokenizer.kind is TokenizerKind.wordpiece:
        model = BertForMaskedLM(BertConfig(**sizes, max_position_embeddings=config.model.positions))
        last_norm = model.cls.predictions.transform.LayerNorm
    else:
        offset = tokenizer.pad_token_id + 1  # RoBERTa counts positions from here
        ends = {"bos_token_id": tokenizer.cls_token_id, "eos_token_id": tokenizer.sep_token_id}
        positions = {"max_position_embeddings": config.model.positions + offset, "type_vocab_size": 1}
        model = RobertaForMaskedLM(RobertaConfig(**sizes, **ends, **positions))
        last_norm = model.lm_head.layer_norm
    if corpus is not None and start_embeddings(config, tokenizer, corpus, model.base_model.embeddings, offset):
        with torch.no_grad():
            model.get_output_embeddings().bias.copy_(log_frequencies(corpus, len(tokenizer)))
            last_norm.weight.fill_(STD / COUNTED_STD)  # the embeddings score the guesses too: as evenly as usual
    set_dropout(model, config.model.dropout)
    return model


def sizes_of(config: PretrainConfig, tokenizer: Any) -> dict[str, Any]:
    """A new model's sizes, as ``transformers`` names them.

    Raises:
        MirrorError: the text cannot give embeddings of this width.
    """
    if config.model.start is Start.ppmi and len(tokenizer) <= config.model.hidden:
        raise MirrorError(
            f"model.start=ppmi cannot make vectors of model.hidden={config.model.hidden} for a vocabulary of "
            f"{len(tokenizer)} entries: set model.start=random, lower model.hidden or raise tokenizer.vocab_size."
        )
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": config.model.hidden,
        "num_hidden_layers": config.model.layers,
        "num_attention_heads": config.model.heads,
        "intermediate_size": config.model.intermediate,
        "initializer_range": STD,
        "pad_token_id": tokenizer.pad_token_id,
    }


def start_embeddings(config: PretrainConfig, tokenizer: Any, corpus: Corpus, embeddings: Any, offset: int = 0) -> bool:
    """Let embeddings begin as ``model.start`` says; whether they were counted. Positions begin at ``offset``."""
    if config.model.start is not Start.ppmi:
        return False
    log.info("counting and factorising co-occurrences for the embeddings …")
    with torch.no_grad():
        vectors = ppmi_embeddings(corpus, len(tokenizer), config.model.hidden, COUNTED_STD, config.seed)
        embeddings.word_embeddings.weight.copy_(vectors)
        embeddings.word_embeddings.weight[tokenizer.pad_token_id] = 0
        embeddings.position_embeddings.weight[offset:] = sinusoids(
            config.model.positions, config.model.hidden, COUNTED_STD / 2
        )
    return True
