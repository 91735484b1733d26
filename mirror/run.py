"""A training run from texts to a measured, saved encoder."""

import logging
import shutil
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.utilities import rank_zero_only

from mirror.augment import DropHead, set_dropout
from mirror.batches import BatchKey, MirrorData, MirroredBatch, MirroredPairs
from mirror.card import model_card
from mirror.compose import compose
from mirror.config import Accelerator, Precision, Select, Strategy, TrainConfig, TrainerConfig, plain
from mirror.encoder import MirrorEncoder
from mirror.errors import MirrorError, UnavailableError
from mirror.evaluation import PairSet, Score, evaluate, load_sets, score_vectors, texts_of
from mirror.module import MirrorModule
from mirror.record import RunRecord
from mirror.selfcheck import check_views
from mirror.summary import protocol_table, score_table, time_line
from mirror.texts import Pair, TextTable, choose, in_memory, read_texts
from mirror.trackers import build_trackers, close_trackers

log = logging.getLogger(__name__)

HARDLY_MOVED = 0.05
"""A loss that falls by less than this share says that the learning rate does not suit the model."""
LIGHTNING_PRECISION = {Precision.fp32: "32-true", Precision.bf16: "bf16-mixed", Precision.fp16: "16-mixed"}


def train(
    config: TrainConfig,
    folder: Path,
    texts: Sequence[str] | Sequence[Pair] | None = None,
    started: float | None = None,
) -> MirrorEncoder:
    """Read texts, tune the encoder, measure it before and after, save it under ``folder/encoder``.

    Args:
        config: every setting.
        folder: of this run.
        texts: used in place of ``data.*`` where given.
        started: when the command was given.

    Returns:
        The tuned encoder, in evaluation mode.

    Raises:
        MirrorError: something the user can put right; ``folder/metrics.json`` has the reason too.
    """
    chief = _is_chief()  # under DDP every process runs this; one measures, prints and saves
    _quieten(chief)
    accelerator, precision = _hardware(config.trainer)
    with RunRecord(folder if chief else None, plain(config), started) as record:
        record["hardware"] = {"accelerator": _accelerator_name(accelerator), "precision": precision.value}

        with record.phase("read"):
            if texts is None:
                table = read_texts(config.data, config.seed)
            else:
                table = choose(in_memory(texts), config.data, config.seed, "texts given to mirror_tune")
        record["data"] = table.counts()
        _report_texts(table, config)

        with record.phase("load"):
            pl.seed_everything(config.seed, workers=True, verbose=False)
            encoder = MirrorEncoder.load(
                config.model.path, config.model.pooling, max_tokens=config.model.max_tokens, setting="model.path"
            )
            _prepare(encoder, config)
            sets, validation = _sets(config, needed=chief)

        before: dict[str, dict[str, Score]] = {}
        if chief and sets:
            with record.phase("evaluate"):
                encoder.to(accelerator)
                before = _raw_scores(encoder, sets, config)
            record["scores"] = {name: _plain_scores(scores) for name, scores in before.items()}

        if config.batch.pad_to_max:  # only now: the untouched model is measured as it is
            encoder.pad_to = encoder.max_tokens = config.batch.max_tokens
        with record.phase("tokenise"):
            data = MirrorData(table, encoder, config.aug, config.batch, config.seed, validation)
        if chief:
            view_check = check_views(data.pairs, encoder, config.aug)
            record["views"] = view_check.plain()
            log.info("%s", view_check)

        curve = _Curve(record)
        with record.phase("train"):
            steps = _fit(config, encoder, data, folder, precision, curve)
        if not chief:
            return encoder
        curve.finish(config)
        record["steps"] = steps

        after: dict[str, Score] = {}
        if sets:
            with record.phase("evaluate"):
                log.info("measuring the tuned encoder …")
                after = evaluate(lambda texts: encoder.encode(texts, progress=config.trainer.progress), sets)
            record.content["scores"]["tuned"] = _plain_scores(after)

        with record.phase("save"):
            encoder.cpu()
            encoder.save(folder / "encoder", model_card(config, table, before, after, steps))

        _print_results(config, before, after, record.content["seconds"])
        log.info("encoder saved in %s", folder / "encoder")
    return encoder


def mirror_tune(
    model: str,
    texts: Sequence[str] | Sequence[Pair],
    overrides: Sequence[str] = (),
    output: str | Path | None = None,
) -> MirrorEncoder:
    """Mirror-tune a model on texts: the whole recipe in one call.

    Args:
        model: hub name or local folder.
        texts: raw texts, or pairs of texts as given positives; all of them are used.
        overrides: settings as on the command line, such as ``["task=word", "loss.temperature=0.1"]``.
        output: run folder for the encoder, the metrics and the log; None leaves nothing behind.

    Raises:
        MirrorError: a setting, the model or the texts are wrong.
    """
    quoted = model.replace("\\", "\\\\").replace("'", "\\'")
    config = compose("train", ["eval=none", "data.size=null", *overrides, f"model.path='{quoted}'"])
    if output is not None:
        folder = Path(output)
        if folder.exists():
            raise MirrorError(f"{folder} exists already: nothing is overwritten, choose another output.")
        folder.mkdir(parents=True)
        return train(config, folder, texts)
    with tempfile.TemporaryDirectory() as scratch:
        return train(config, Path(scratch), texts)


def choose_precision(wanted: Precision, accelerator: str) -> Precision:
    """bfloat16 where the hardware multiplies it natively; elsewhere it is many times slower than float32.

    Raises:
        MirrorError: fp16 on a CPU, where it is no faster and often not finite.
    """
    if wanted is Precision.fp16 and accelerator == "cpu":
        raise MirrorError("trainer.precision=fp16 needs a GPU: use auto, bf16 or fp32.")
    if wanted is not Precision.auto:
        return wanted
    if accelerator == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        known = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        native = bool(known.get("amx_bf16") or known.get("avx512_bf16"))
    return Precision.bf16 if native else Precision.fp32


def _is_chief() -> bool:
    """Whether this process is the first; Lightning reads the rank from the launcher's environment."""
    return bool(getattr(rank_zero_only, "rank", 0) == 0)


def _hardware(config: TrainerConfig) -> tuple[str, Precision]:
    """Device type and precision, checked against what is there."""
    cuda = torch.cuda.is_available()
    if config.accelerator is Accelerator.gpu and not cuda:
        raise MirrorError("trainer.accelerator=gpu finds no GPU: use trainer=cpu, or install torch's CUDA build.")
    accelerator = "cuda" if cuda and config.accelerator is not Accelerator.cpu else "cpu"
    if accelerator == "cuda" and config.devices > torch.cuda.device_count():
        raise MirrorError(f"trainer.devices={config.devices}, but there are {torch.cuda.device_count()} GPUs.")
    return accelerator, choose_precision(config.precision, accelerator)


def _accelerator_name(accelerator: str) -> str:
    return torch.cuda.get_device_name() if accelerator == "cuda" else f"cpu ({torch.get_num_threads()} threads)"


def _report_texts(table: TextTable, config: TrainConfig) -> None:
    if config.data.size is not None and len(table.pairs) < config.data.size:
        log.warning("Fewer texts than data.size=%d, all are used: %s", config.data.size, table)
    else:
        log.info("texts: %s", table)


def _prepare(encoder: MirrorEncoder, config: TrainConfig) -> None:
    """Set the encoder up for training: dropout, drophead, packing.

    Raises:
        MirrorError: the model cannot follow a setting.
    """
    if config.aug.span_k and encoder.tokenizer.mask_token is None and not config.aug.literal_mask:
        raise MirrorError(
            f"aug.span_k={config.aug.span_k}: the tokenizer of {encoder.name} has no mask token; set aug=none."
        )
    if config.batch.max_tokens > encoder.max_tokens:
        raise MirrorError(
            f"batch.max_tokens={config.batch.max_tokens} is more than the {encoder.max_tokens} that {encoder.name} "
            "takes: lower it."
        )
    set_dropout(encoder.backbone, config.aug.dropout)
    if config.aug.drophead:
        encoder.drophead = DropHead(encoder.backbone, config.aug.drophead)
    encoder.packing = config.batch.pack


def _sets(config: TrainConfig, *, needed: bool) -> tuple[list[PairSet], PairSet | None]:
    """The test sets and the validation set. Without a folder or a hub the run goes on unmeasured, and says so."""
    validation = None
    if config.select is Select.best:
        (validation,) = load_sets([config.eval.validation], config.eval.data_dir)
    if not needed:
        return [], validation
    try:
        return load_sets(config.eval.sets, config.eval.data_dir), validation
    except UnavailableError as error:
        log.warning("NOT MEASURED before and after: %s", error)
        return [], validation


def _raw_scores(encoder: MirrorEncoder, sets: list[PairSet], config: TrainConfig) -> dict[str, dict[str, Score]]:
    """The untouched model under each pooling of ``eval.raw``; one pass through it serves them all."""
    poolings = list(dict.fromkeys(config.eval.raw))
    if not poolings:
        return {}
    log.info("measuring the model as it is …")
    texts = texts_of(sets)
    vectors = encoder.encode_by(texts, poolings, progress=config.trainer.progress)
    return {
        f"raw {pooling.value}": score_vectors(dict(zip(texts, vectors[pooling], strict=True)), sets)
        for pooling in poolings
    }


def _plain_scores(scores: dict[str, Score]) -> dict[str, dict[str, float]]:
    return {name: {**score.protocols, "pairs": score.pairs} for name, score in scores.items()}


class _Curve(Callback):
    """Keeps the losses of the run and the moment of the first step."""

    def __init__(self, record: RunRecord) -> None:
        self.record, self.losses = record, list[float]()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        module: pl.LightningModule,
        outputs: Any,
        batch: MirroredBatch,
        batch_idx: int,
    ) -> None:
        if not self.losses:
            self.record.content["seconds"]["to first step"] = round(time.time() - self.record.started, 3)
        self.losses.append(float(outputs["loss"]))

    def finish(self, config: TrainConfig) -> None:
        """Store the ends of the curve; warn where it is flat."""
        tenth = max(1, len(self.losses) // 10)
        first, last = (sum(part) / tenth for part in (self.losses[:tenth], self.losses[-tenth:]))
        self.record["loss"] = {"first": first, "last": last}
        if len(self.losses) >= 10 and last > first * (1 - HARDLY_MOVED):
            log.warning(
                "The loss hardly moved (%.4f to %.4f): optim.lr=%g may not suit this model; small ones want "
                "3e-4 to 1e-3.",
                first,
                last,
                config.optim.lr,
            )


class _Bar(TQDMProgressBar):
    """Lightning's bar without the logger's version."""

    def get_metrics(self, trainer: pl.Trainer, module: pl.LightningModule) -> dict[str, Any]:
        metrics: dict[str, Any] = super().get_metrics(trainer, module)
        metrics.pop("v_num", None)
        return metrics


def _fit(
    config: TrainConfig,
    encoder: MirrorEncoder,
    data: MirrorData,
    folder: Path,
    precision: Precision,
    curve: _Curve,
) -> int:
    """Train; returns the number of steps."""
    callbacks: list[Callback] = [curve]
    if config.trainer.progress:
        callbacks.append(_Bar())
    best = None
    if config.select is Select.best:
        monitor = f"val/{config.eval.validation}"
        best = ModelCheckpoint(folder / "best", monitor=monitor, mode="max", save_weights_only=True)
        callbacks.append(best)
    world = config.trainer.devices * config.trainer.nodes
    log.info(
        "training on %s in %s, batches of %d texts%s",
        _accelerator_name(
            "cuda" if torch.cuda.is_available() and config.trainer.accelerator is not Accelerator.cpu else "cpu"
        ),
        precision.value,
        config.batch.size,
        f", {config.batch.size // world} on each of {world} devices" if world > 1 else "",
    )
    module = MirrorModule(encoder, config.loss, config.optim)
    steps = config.trainer.max_steps or config.trainer.max_epochs * data.pairs.steps
    if config.trainer.strategy is Strategy.ddp:
        _freeze_unused(encoder, data.pairs)
    trainer = pl.Trainer(
        accelerator=config.trainer.accelerator.value,
        devices=config.trainer.devices,
        num_nodes=config.trainer.nodes,
        strategy=config.trainer.strategy.value,
        precision=LIGHTNING_PRECISION[precision],  # type: ignore[arg-type]
        max_epochs=config.trainer.max_epochs,
        max_steps=config.trainer.max_steps or -1,
        gradient_clip_val=config.trainer.gradient_clip,
        logger=build_trackers(config.logger, folder, plain(config)) if _is_chief() else False,
        callbacks=callbacks,
        enable_checkpointing=best is not None,
        enable_progress_bar=config.trainer.progress,
        enable_model_summary=False,
        log_every_n_steps=1,
        val_check_interval=min(config.eval.every, steps) if best else None,
        check_val_every_n_epoch=None if best else 1,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
    pl.seed_everything(config.seed, workers=True, verbose=False)  # measuring before must not change the training
    encoder.train()
    try:
        trainer.fit(module, data)
    except torch.OutOfMemoryError as error:
        raise MirrorError("The device has too little memory: lower batch.size or batch.max_tokens.") from error
    finally:
        close_trackers()
    if not all(weights.isfinite().all() for weights in encoder.parameters()):
        raise MirrorError("The weights are not finite after training: lower optim.lr.")
    if best is not None and _is_chief():
        state = torch.load(best.best_model_path, weights_only=True, map_location="cpu")["state_dict"]
        module.load_state_dict(state)
        log.info("kept the best weights: %s", Path(best.best_model_path).name)
        shutil.rmtree(folder / "best", ignore_errors=True)
    if encoder.drophead is not None:
        encoder.drophead.remove()
        encoder.drophead = None
    encoder.eval()
    return trainer.global_step


def _freeze_unused(encoder: MirrorEncoder, pairs: MirroredPairs) -> None:
    """Freeze weights that no vector depends on, such as XLNet's mask embedding: DDP waits for their gradients."""
    batch = pairs[BatchKey(epoch=0, step=0)]
    blocks = [block.to(encoder.device) for block in batch.blocks[:1]]
    encoder(blocks).sum().backward()
    for weights in encoder.parameters():
        if weights.grad is None:
            weights.requires_grad_(False)
    encoder.zero_grad()


def _print_results(
    config: TrainConfig,
    before: dict[str, dict[str, Score]],
    after: dict[str, Score],
    seconds: dict[str, float],
) -> None:
    if after:
        tuned = f"tuned {config.model.pooling.value}"
        title = "Spearman × 100, before and after (protocol: all)"
        log.info("\n%s", score_table({**before, tuned: after}, title))
        if any(len(score.protocols) > 1 for score in after.values()):
            log.info("\n%s", protocol_table(after, f"{tuned} by protocol"))
    log.info("time: %s", time_line(seconds))


def _quieten(chief: bool) -> None:
    """Keep what Lightning prints beside the point out of the terminal, and what every process would repeat."""
    if not chief:
        logging.getLogger("mirror").setLevel(logging.ERROR)
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for noise in (".*does not have many workers.*", ".*Total length of `list`.*", ".*LeafSpec.*"):
        warnings.filterwarnings("ignore", noise)
