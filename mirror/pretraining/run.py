"""A pre-training run from texts to a masked language model in a folder that transformers loads."""

import logging
import math
import re
import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any

import pytorch_lightning as pl
import torch
from tqdm.contrib.logging import logging_redirect_tqdm
from transformers import AutoModelForMaskedLM, BertConfig, BertForMaskedLM, RobertaConfig, RobertaForMaskedLM

from mirror.config import PretrainConfig, Start, TokenizerKind, plain
from mirror.data.texts import read_texts
from mirror.encoder import hub
from mirror.encoder.backbone import load_backbone, load_weights, longest_text, quiet
from mirror.encoder.encoder import MirrorEncoder
from mirror.encoder.export import write_whole
from mirror.encoder.perturb import set_dropout
from mirror.errors import MirrorError
from mirror.pretraining.card import model_card
from mirror.pretraining.corpus import Corpus, CorpusData, MaskedBatches, tokenize_corpus
from mirror.pretraining.embeddings import ppmi_embeddings, sinusoids
from mirror.pretraining.module import LOG_EVERY, PERPLEXITY, STD, PretrainModule
from mirror.pretraining.tokenizer import load_tokenizer, train_tokenizer
from mirror.report.terminal import time_line
from mirror.runs.record import CHECKPOINTS, RunRecord, by_step, not_written
from mirror.runs.stop import held
from mirror.training.hardware import Hardware, choose_hardware, is_rank_zero
from mirror.training.optimizer import check_optimizer
from mirror.training.resume import (
    Checkpointer,
    InterruptedRun,
    interrupted_run,
    interruptible,
    note_texts,
    repeatable,
)
from mirror.training.trackers import build_trackers, close_trackers
from mirror.training.trainer import build_trainer, quieten, remove_checkpoints

log = logging.getLogger(__name__)

COUNTED_STD = 0.1
"""Of embeddings that were counted. A step of Adam moves a weight by up to the rate, however small the weight: at
``STD`` the counts were forgotten within 200 steps of 1e-3 (SimLex-999 of the mean vectors 8.7 against 10.7, loss 6.78
against 6.68, 4 x 256, 0.4M tokens)."""
SAMPLES = 3
"""Held-out sentences shown with the model's guesses."""
SAMPLE = re.compile(r"[A-Z][^.!?]{40,100}\.")
BLANK = re.compile(r"\b[a-z]{5,}\b")
TOKENIZER, MODEL = "tokenizer", "model"
"""What a run leaves beside its record; the first only until it is finished."""


def pretrain(config: PretrainConfig, folder: Path) -> None:
    """Read texts, learn a tokenizer, train the model and save it under ``folder/model``.

    A run that is stopped goes on from its last checkpoint, with the result of one that never stopped.

    Raises:
        MirrorError: something the user can put right; ``folder/metrics.json`` has the reason too.
    """
    rank_zero = is_rank_zero()
    quieten(rank_zero)
    check_optimizer(config.optim, config.schedule)
    hardware = choose_hardware(config.trainer)
    before = interrupted_run(folder) if config.resume else None
    if rank_zero and before is None and (folder / TOKENIZER).exists():  # it would be taken for this run's, and removed
        raise MirrorError(f"{folder} holds {TOKENIZER}/ already: choose a new folder, or set tokenizer.path to it.")
    with ExitStack() as end, RunRecord(folder if rank_zero else None, plain(config)) as record:
        record["hardware"] = {"device": hardware.name, "precision": hardware.precision.value}
        if before:
            record["command"] = _command(before.record["command"], record.content["command"])
            before.note(record)
        with record.phase("read"):
            table = read_texts(config.data, config.seed)
            log.info("texts: %s", table)
            training, held_out = _hold_out([text for text, _ in table.pairs], config)
        record["data"] = {**table.counts(), "held out": len(held_out)}

        pl.seed_everything(config.seed, workers=True, verbose=False)
        progress = config.trainer.progress and rank_zero
        with record.phase("tokenise"):
            tokenizer = _tokenizer(config, training, folder, progress=progress)
            corpus = tokenize_corpus(training, tokenizer, config.batch.max_tokens, progress=progress)
            note_texts(record, corpus.fingerprint, config.data.path, before)
        with record.phase("load"):
            model = _model(config, tokenizer, corpus if before is None else None)
            longest = longest_text(model.base_model, tokenizer)
            if config.batch.max_tokens > longest:
                raise MirrorError(
                    f"batch.max_tokens={config.batch.max_tokens} is more than the {longest} tokens that model.path="
                    f"{config.model.path} takes: lower it."
                )
            encoder = MirrorEncoder(model.base_model, tokenizer, name=config.model.path or "the new model")
            batches = MaskedBatches(corpus, encoder, config.batch, config.masking, config.seed)
            if batches.tokens < config.batch.tokens:
                raise MirrorError(
                    f"data.path={config.data.path} has {batches.tokens:,} tokens, which is less than one batch of "
                    f"batch.tokens={config.batch.tokens:,}: lower it, or give more text."
                )
            validation = None
            if held_out:
                pieces = tokenize_corpus(held_out, tokenizer, config.batch.max_tokens, progress=False)
                validation = MaskedBatches(pieces, encoder, config.batch, config.masking, config.seed)
        steps = config.trainer.max_steps or config.trainer.max_epochs * batches.steps
        size = sum(weights.numel() for weights in model.parameters())
        log.info(
            "%s: %.2fM parameters; %s tokens in %d pieces; %d steps of %s tokens, %.1f epochs, on %s in %s",
            type(model).__name__,
            size / 1e6,
            f"{batches.tokens:,}",
            len(corpus),
            steps,
            f"{config.batch.tokens:,}",
            steps / batches.steps,
            hardware.name,
            hardware.precision.value,
        )
        record["parameters"] = size

        if before and rank_zero:
            log.info("going on from step %d", before.steps)
            before.keep_curve()
        samples = _samples(held_out, tokenizer)
        module = PretrainModule(
            model, encoder, config.optim, config.schedule, steps, samples, config.seed, config.bag_of_words
        )
        with record.phase("train"):
            data = CorpusData(batches, validation, steps, before.steps if before else 0, config.batch.workers)
            _fit(config, module, data, folder, hardware, before)
        if not rank_zero:
            return
        record["steps"], record["loss"] = steps, {"last": module.loss}
        record["tokens"] = batches.tokens * steps // batches.steps
        record["perplexity"] = {str(step + 1): round(value, 3) for step, value in by_step(folder, PERPLEXITY)}
        record["fill"] = module.fill()

        with record.phase("save"), repeatable(folder):
            card = model_card(config, table, record.content, by_step(folder))
            # What this run has saved already, before it was stopped, is saved again.
            _save(model, tokenizer, folder / MODEL, card, half=config.half, replace=before is not None)
        log.info("time: %s", time_line(record.content["seconds"]))
        log.info("model saved in %s; tune it with model.path=%s", folder / MODEL, folder / MODEL)
        end.enter_context(held())  # without checkpoints the run cannot go on, only be finished
        remove_checkpoints(folder / CHECKPOINTS)
        shutil.rmtree(folder / TOKENIZER, ignore_errors=True)


def _command(first: Sequence[str], resumed: Sequence[str]) -> list[str]:
    """What to type to make the same model without a stop: the first command, with what was changed on the way."""
    script, *typed = resumed
    changes = [word for word in typed if not word.startswith("resume=")]
    changed = {word.partition("=")[0] for word in changes}
    return [script, *(word for word in first[1:] if word.partition("=")[0] not in changed), *changes]


def _hold_out(texts: list[str], config: PretrainConfig) -> tuple[list[str], list[str]]:
    """Training texts and held-out texts; at most a tenth is held out."""
    count = min(config.held_out.texts, len(texts) // 10)
    chosen = set(Random(config.seed).sample(range(len(texts)), count))
    return [text for i, text in enumerate(texts) if i not in chosen], [texts[i] for i in sorted(chosen)]


def _tokenizer(config: PretrainConfig, texts: Sequence[str], folder: Path, *, progress: bool) -> Any:
    """The given tokenizer, the model's, the one that the run has learnt already, or one learnt from the texts."""
    if config.model.path:
        *_, tokenizer = load_backbone(config.model.path, "model.path")
        if tokenizer.mask_token_id is None:
            raise MirrorError(f"model.path={config.model.path} has no mask token: give a masked language model.")
    if config.tokenizer.path:
        return load_tokenizer(config.tokenizer.path)
    if config.model.path:
        log.info("tokenizer: that of model.path=%s; tokenizer.path= takes another one", config.model.path)
        return tokenizer
    learnt = folder / TOKENIZER
    if not learnt.exists() and is_rank_zero():
        log.info("learning a %s tokenizer of %d entries …", config.tokenizer.kind.value, config.tokenizer.vocab_size)
        tokenizer = train_tokenizer(texts, config.tokenizer, config.model.positions, progress=progress)
        write_whole(learnt, tokenizer.save_pretrained)
    while not learnt.exists():  # another process is learning it
        time.sleep(0.2)
    return load_tokenizer(str(learnt))


def _model(config: PretrainConfig, tokenizer: Any, corpus: Corpus | None) -> Any:
    """The model to train: one to continue from, or a new one, whose embeddings come from the corpus if one is given."""
    if config.model.path:
        with quiet():
            source = hub.source_of(config.model.path, "model.path")
            try:
                model, missing = load_weights(AutoModelForMaskedLM, source, f"model.path={config.model.path}")
            except ValueError as error:  # transformers has no masked language model of this type
                raise MirrorError(
                    f"model.path={config.model.path} cannot be trained to fill in masks: give a masked language model "
                    "such as BERT or RoBERTa."
                ) from error
        if missing:
            log.warning(
                "model.path=%s comes without %s: these weights begin at random.",
                config.model.path,
                ", ".join(missing),
            )
        if len(tokenizer) > model.get_input_embeddings().num_embeddings:
            raise MirrorError(
                f"tokenizer.path={config.tokenizer.path} has {len(tokenizer)} entries and model.path="
                f"{config.model.path} only {model.get_input_embeddings().num_embeddings} embeddings: "
                "they do not belong together."
            )
        set_dropout(model, config.model.dropout)
        return model
    if config.model.start is Start.ppmi and len(tokenizer) <= config.model.hidden:
        raise MirrorError(
            f"model.start=ppmi cannot make vectors of model.hidden={config.model.hidden} for a vocabulary of "
            f"{len(tokenizer)} entries: set model.start=random, lower model.hidden or raise tokenizer.vocab_size."
        )
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": config.model.hidden,
        "num_hidden_layers": config.model.layers,
        "num_attention_heads": config.model.heads,
        "intermediate_size": config.model.intermediate,
        "initializer_range": STD,
        "pad_token_id": tokenizer.pad_token_id,
    }
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
    if config.model.start is Start.ppmi and corpus is not None:
        log.info("counting and factorising co-occurrences for the embeddings …")
        embeddings = model.base_model.embeddings
        with torch.no_grad():
            vectors = ppmi_embeddings(corpus, len(tokenizer), config.model.hidden, COUNTED_STD, config.seed)
            embeddings.word_embeddings.weight.copy_(vectors)
            embeddings.word_embeddings.weight[tokenizer.pad_token_id] = 0
            embeddings.position_embeddings.weight[offset:] = sinusoids(
                config.model.positions, config.model.hidden, COUNTED_STD / 2
            )
            frequency = torch.bincount(torch.from_numpy(corpus.ids.astype("int64")), minlength=len(tokenizer)) + 1.0
            model.get_output_embeddings().bias.copy_((frequency / frequency.sum()).log())
            last_norm.weight.fill_(STD / COUNTED_STD)  # the embeddings score the guesses too: as evenly as usual
    set_dropout(model, config.model.dropout)
    return model


def _samples(texts: Sequence[str], tokenizer: Any) -> list[tuple[str, str]]:
    """Held-out sentences with a word blanked that is one token, and the word."""
    samples: list[tuple[str, str]] = []
    for text in texts:
        sentence = SAMPLE.search(text)
        words = [w for w in BLANK.finditer(sentence[0]) if len(tokenizer.tokenize(f" {w[0]}")) == 1] if sentence else []
        if sentence and words:
            word = words[len(words) // 2]
            blank = tokenizer.mask_token
            samples.append((sentence[0][: word.start()] + blank + sentence[0][word.end() :], word[0]))
        if len(samples) == SAMPLES:
            break
    return samples


def _fit(
    config: PretrainConfig,
    module: PretrainModule,
    data: CorpusData,
    folder: Path,
    hardware: Hardware,
    before: InterruptedRun | None,
) -> None:
    trainer = build_trainer(
        config.trainer,
        hardware,
        build_trackers(config.logger, folder, plain(config)) if is_rank_zero() else [],
        [Checkpointer(folder, config.checkpoint_every)],
        max_epochs=1,
        max_steps=data.steps,
        log_every_n_steps=min(LOG_EVERY, data.steps),
        val_check_interval=min(config.held_out.every, data.steps) if data.validation else None,
        check_val_every_n_epoch=None if data.validation else 1,
    )
    module.model.train()
    try:
        with logging_redirect_tqdm(), interruptible(trainer):
            trainer.fit(module, data, ckpt_path=before.checkpoint if before else None)
    except torch.OutOfMemoryError as error:
        raise MirrorError("The device has too little memory: lower batch.tokens.") from error
    except OSError as error:
        raise not_written(folder, error) from error
    finally:
        close_trackers()
    if not math.isfinite(sum(float(weights.detach().sum()) for weights in module.parameters())):
        raise MirrorError("The weights are not finite after training: lower optim.lr.")
    module.to(hardware.device)


def _save(model: Any, tokenizer: Any, folder: Path, card: str, *, half: bool, replace: bool) -> None:
    def write(partial: Path) -> None:
        with quiet():
            (model.half() if half else model).cpu().save_pretrained(partial)
            tokenizer.save_pretrained(partial)
        (partial / "README.md").write_text(card, encoding="utf-8")

    write_whole(folder, write, replace=replace)
