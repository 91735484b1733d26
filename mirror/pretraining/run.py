"""A pre-training run from texts to a masked language model in a folder that transformers loads."""

import json
import logging
import math
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any

import pytorch_lightning as pl
import torch
from tqdm.contrib.logging import logging_redirect_tqdm

from mirror.config import PretrainConfig, plain
from mirror.config.parts import build
from mirror.config.suited import TUNING
from mirror.data.rows import Pair
from mirror.data.texts import read_texts
from mirror.encoder.backbone import longest_text, quiet
from mirror.encoder.encoder import MirrorEncoder
from mirror.encoder.export import save_tokenizer, write_whole
from mirror.errors import MirrorError
from mirror.pretraining.average import AveragedWeights
from mirror.pretraining.card import model_card, tuning_command, tuning_settings
from mirror.pretraining.corpus import CorpusData, MaskedBatches
from mirror.pretraining.model import TOKENIZER, find_tokenizer
from mirror.pretraining.module import LOG_EVERY, PERPLEXITY, PretrainModule
from mirror.pretraining.objectives.base import Objective, objective_kind
from mirror.report.console import time_line
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

SAMPLES = 3
"""Held-out sentences shown with the model's guesses."""
SAMPLE = re.compile(r"[A-Z][^.!?]{40,100}\.")
BLANK = re.compile(r"\b[a-z]{5,}\b")
MODEL = "model"
"""Folder of the model within a run's folder."""


def pretrain(config: PretrainConfig, folder: Path) -> None:
    """Read texts, learn a tokenizer, train the model and save it under ``folder/model``.

    A run that is stopped goes on from its last checkpoint, with the result of one that never stopped.

    Raises:
        MirrorError: something the user can put right; ``folder/metrics.json`` has the reason too.
    """
    rank_zero = is_rank_zero()
    quieten(rank_zero)
    check_optimizer(config.optim, config.schedule)
    kind = objective_kind(config)
    if kind.pairs and config.bags.neighbours:
        raise MirrorError("bags.neighbours=true finds none among pairs, each of which stands alone: leave it out.")
    hardware = choose_hardware(config.trainer)
    if config.model.path is None:
        _check_size(config, hardware)
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
            training, held_out = _hold_out(list(table.pairs), config)
        record["data"] = {**table.counts(), "held out": len(held_out)}

        pl.seed_everything(config.seed, workers=True, verbose=False)
        progress = config.trainer.progress and rank_zero
        with record.phase("tokenise"):
            texts = [text for pair in training for text in (pair if kind.pairs else pair[:1])]
            tokenizer = find_tokenizer(config, texts, folder, progress=progress)
            corpus = kind.corpus(training, tokenizer, config.batch.max_tokens, progress=progress)
            note_texts(record, corpus.fingerprint, config.data.path, before)
        with record.phase("load"):
            model = kind.model(config, tokenizer, corpus if before is None else None)
            longest = longest_text(model.base_model, tokenizer)
            if config.batch.max_tokens > longest:
                name = "=".join(config.model.begins_with or ("tokenizer.path", str(config.tokenizer.path)))
                raise MirrorError(
                    f"batch.max_tokens={config.batch.max_tokens} is more than the {longest} tokens that {name} takes: "
                    "lower it."
                )
            encoder = MirrorEncoder(model.base_model, tokenizer, name=config.model.path or "the new model")
            batches = MaskedBatches(corpus, encoder, config.batch, config.masking, config.seed, config.bags)
            if batches.tokens < config.batch.tokens:
                raise MirrorError(
                    f"data.path={config.data.path} has {batches.tokens:,} tokens, which is less than one batch of "
                    f"batch.tokens={config.batch.tokens:,}: lower it, or give more text."
                )
            validation = None
            if held_out:
                pieces = kind.corpus(held_out, tokenizer, config.batch.max_tokens, progress=False)
                validation = MaskedBatches(pieces, encoder, config.batch, config.masking.at(1.0), config.seed)
        batches.run_steps = steps = config.trainer.max_steps or config.trainer.max_epochs * batches.steps
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
        samples = _samples([text for text, _ in held_out], tokenizer)
        given = {"model": model, "encoder": encoder, "dropout": config.model.dropout}
        objective = build(config.objective, "objective", Objective, **given)
        module = PretrainModule(
            model, encoder, objective, config.optim, config.schedule, steps, samples, config.seed, config.bag_of_words
        )
        with record.phase("train"):
            data = CorpusData(batches, validation, steps, before.steps if before else 0, config.batch.workers)
            average = AveragedWeights(model, steps, config.average_last) if config.average_last else None
            _fit(config, module, data, folder, hardware, before, average)
        if not rank_zero:
            return
        record["steps"], record["loss"] = steps, {"last": module.loss}
        record["tokens"] = batches.tokens * steps // batches.steps
        record["perplexity"] = {str(step + 1): round(value, 3) for step, value in by_step(folder, PERPLEXITY)}
        record["fill"] = module.fill()

        with record.phase("save"), repeatable(folder):
            card = model_card(config, table, record.content, by_step(folder), fills=kind.fills)
            # What this run has saved already, before it was stopped, is saved again.
            carried = json.dumps(tuning_settings(config, model.config, objective.pooling), indent=2) + "\n"
            beside = {"README.md": card, TUNING: carried}
            _save(model, tokenizer, folder / MODEL, beside, half=config.half, replace=before is not None)
        log.info("time: %s", time_line(record.content["seconds"]))
        log.info("model saved in %s; tune it, best with one sentence a line in data.path:", folder / MODEL)
        log.info("%s", tuning_command(config, folder / MODEL))
        end.enter_context(held())  # without checkpoints the run cannot go on, only be finished
        remove_checkpoints(folder / CHECKPOINTS)
        shutil.rmtree(folder / TOKENIZER, ignore_errors=True)


def _check_size(config: PretrainConfig, hardware: Hardware) -> None:
    """Refuse a model that memory cannot hold, before the system ends the process without a word."""
    weights = config.model.weights(config.tokenizer.vocab_size)
    # On a CPU each weight has a gradient and Adam's two moments beside it; a GPU's run is told by torch.
    needed = weights * 4 * (4 if hardware.device == "cpu" else 1)
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise MirrorError(
            f"model.layers={config.model.layers}, model.hidden={config.model.hidden} and the other sizes make "
            f"{weights / 1e9:.1f} billion weights, for which this machine's {there / 2**30:.0f} GiB of memory do not "
            "suffice: lower them, as in size=base."
        )


def _command(first: Sequence[str], resumed: Sequence[str]) -> list[str]:
    """What to type to make the same model without a stop: the first command, with what was changed on the way."""
    script, *typed = resumed
    changes = [word for word in typed if not word.startswith("resume=")]
    changed = {word.partition("=")[0] for word in changes}
    return [script, *(word for word in first[1:] if word.partition("=")[0] not in changed), *changes]


def _hold_out(texts: list[Pair], config: PretrainConfig) -> tuple[list[Pair], list[Pair]]:
    """Training texts and held-out texts; at most a tenth is held out."""
    count = min(config.held_out.texts, len(texts) // 10)
    chosen = set(Random(config.seed).sample(range(len(texts)), count))
    return [text for i, text in enumerate(texts) if i not in chosen], [texts[i] for i in sorted(chosen)]


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
    average: AveragedWeights | None,
) -> None:
    trainer = build_trainer(
        config.trainer,
        hardware,
        build_trackers(config.logger, folder, plain(config)) if is_rank_zero() else [],
        [*([average] if average else []), Checkpointer(folder, config.checkpoint_every)],
        max_epochs=1,
        max_steps=data.steps,
        log_every_n_steps=min(LOG_EVERY, data.steps),
        val_check_interval=min(config.held_out.every, data.steps) if data.validation else None,
        check_val_every_n_epoch=None if data.validation else 1,
    )
    module.train()
    try:
        with logging_redirect_tqdm(), interruptible(trainer):
            trainer.fit(module, data, ckpt_path=before.checkpoint if before else None)
    except torch.OutOfMemoryError as error:
        raise MirrorError("The device has too little memory: lower batch.tokens.") from error
    except OSError as error:
        raise not_written(folder, error) from error
    finally:
        close_trackers()
    if average:
        average.put()
    if not math.isfinite(sum(float(weights.detach().sum()) for weights in module.parameters())):
        raise MirrorError("The weights are not finite after training: lower optim.lr.")
    module.to(hardware.device)


def _save(model: Any, tokenizer: Any, folder: Path, beside: Mapping[str, str], *, half: bool, replace: bool) -> None:
    def write(partial: Path) -> None:
        with quiet():
            (model.half() if half else model).cpu().save_pretrained(partial)
            save_tokenizer(tokenizer, partial)
        for name, content in beside.items():
            (partial / name).write_text(content, encoding="utf-8")

    write_whole(folder, write, replace=replace)
