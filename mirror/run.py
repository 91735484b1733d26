"""A training run from texts to a measured, saved encoder."""

import logging
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytorch_lightning as pl

from mirror.augment import DropHead, set_dropout
from mirror.batches import MirrorData
from mirror.card import model_card
from mirror.compose import compose, quoted
from mirror.config import Pooling, Select, TrainConfig, plain
from mirror.encoder import MirrorEncoder
from mirror.errors import MirrorError, UnavailableError
from mirror.evaluation import Score, TestSet, load_sets, score_vectors, texts_of
from mirror.evaluation.cosines import EDGES, histograms
from mirror.evaluation.score import Vectors
from mirror.fit import fit
from mirror.hardware import choose_hardware, is_chief
from mirror.picture import PICTURE, Histograms, draw_cosines
from mirror.record import RunRecord
from mirror.resume import CHECKPOINTS, earlier, note_texts
from mirror.selfcheck import check_views
from mirror.sharing import fingerprint, shared
from mirror.summary import protocol_table, score_table, time_line
from mirror.texts import Pair, TextTable, choose, in_memory, read_texts
from mirror.trackers import log_results, tracking
from mirror.trainer import quieten

log = logging.getLogger(__name__)


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
    chief = is_chief()  # under DDP every process runs this; one measures, prints and saves
    quieten(chief)
    hardware = choose_hardware(config.trainer)
    interrupted = earlier(folder) if config.resume else None
    with RunRecord(folder if chief else None, plain(config), started) as record, tracking():
        record["hardware"] = {"device": hardware.name, "precision": hardware.precision.value}
        if interrupted:
            interrupted.note(record)

        with record.phase("read"):
            if texts is None:
                key = (repr(config.data), config.seed)
                table = shared("texts", key, lambda: read_texts(config.data, config.seed))
            else:
                table = choose(in_memory(texts), config.data, config.seed, "texts given to mirror_tune")
        note_texts(record, table.fingerprint, config.data.path, interrupted)
        record["data"] = table.counts()
        _report_texts(table, config)

        with record.phase("load"):
            pl.seed_everything(config.seed, workers=True, verbose=False)
            encoder = MirrorEncoder.load(
                config.model.path, config.model.pooling, max_tokens=config.model.max_tokens, setting="model.path"
            )
            _prepare(encoder, config)
            if chief:
                encoder.to(hardware.device)
            sets, validation = _sets(config, needed=chief)

        before: dict[str, dict[str, Score]] = {}
        cosines: dict[str, Histograms] = {}
        if chief and sets:
            with record.phase("evaluate"):
                for pooling, vectors in _raw_vectors(encoder, sets, config).items():
                    before[f"raw {pooling.value}"] = score_vectors(vectors, sets)
                    cosines[f"raw {pooling.value}"] = histograms(vectors, sets)
            record["scores"] = {name: _plain_scores(scores) for name, scores in before.items()}

        if config.batch.pad_to_max:  # only now: the untouched model is measured as it is
            encoder.pad_to = encoder.max_tokens = config.batch.max_tokens
        with record.phase("tokenise"):
            data = MirrorData(table, encoder, config.aug, config.batch, config.seed, validation)
        if chief:
            view_check = check_views(data.pairs, encoder, config.aug)
            record["views"] = view_check.plain()
            log.info("%s", view_check)

        with record.phase("train"):
            steps = fit(config, encoder, data, folder, hardware, record, interrupted)
        if not chief:
            return encoder
        record["steps"] = steps

        after: dict[str, Score] = {}
        if sets:
            with record.phase("evaluate"):
                log.info("measuring the tuned encoder …")
                texts_to_encode = texts_of(sets)
                tuned = encoder.encode(texts_to_encode, progress=config.trainer.progress)
                tuned_vectors = dict(zip(texts_to_encode, tuned, strict=True))
                after = score_vectors(tuned_vectors, sets)
                cosines["tuned"] = histograms(tuned_vectors, sets)
            record.content["scores"]["tuned"] = _plain_scores(after)
            record["cosines"] = {"edges": EDGES.round(4).tolist(), **cosines}

        with record.phase("save"):
            _draw(cosines, config, folder)
            encoder.cpu()
            encoder.save(folder / "encoder", model_card(config, table, before, after, steps))
            shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)

        log_results(record.content, folder / PICTURE)
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
    config = compose("train", ["eval=none", "data.size=null", *overrides, f"model.path={quoted(model)}"])
    if output is not None:
        folder = Path(output)
        if folder.exists():
            raise MirrorError(f"{folder} exists already: nothing is overwritten, choose another output.")
        folder.mkdir(parents=True)
        return train(config, folder, texts)
    with tempfile.TemporaryDirectory() as scratch:
        return train(config, Path(scratch), texts)


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


def _sets(config: TrainConfig, *, needed: bool) -> tuple[list[TestSet], TestSet | None]:
    """The test sets and the validation set. Without a folder or a hub the run goes on unmeasured, and says so."""
    validation = None
    if config.select is Select.best:
        (validation,) = load_sets([config.eval.validation], config.eval.data_dir)
    if not needed:
        return [], validation
    try:
        names, data_dir = config.eval.measured, config.eval.data_dir
        return shared("sets", (*names, data_dir), lambda: load_sets(names, data_dir)), validation
    except UnavailableError as error:
        log.warning("NOT MEASURED before and after: %s", error)
        return [], validation


def _raw_vectors(encoder: MirrorEncoder, sets: list[TestSet], config: TrainConfig) -> dict[Pooling, dict[str, Vectors]]:
    """Vectors of the untouched model under each pooling of ``eval.raw``; one pass through it serves them all."""
    poolings = list(dict.fromkeys(config.eval.raw))
    if not poolings:
        return {}
    log.info("measuring the model as it is …")
    texts = texts_of(sets)
    key = (encoder.name, encoder.max_tokens, tuple(poolings), encoder.device.type, fingerprint(texts))
    vectors = shared("vectors", key, lambda: encoder.encode_by(texts, poolings, progress=config.trainer.progress))
    return {pooling: dict(zip(texts, vectors[pooling], strict=True)) for pooling in poolings}


def _draw(cosines: dict[str, Histograms], config: TrainConfig, folder: Path) -> None:
    """The picture of before and after; before is the model pooled as the encoder is, if that was measured."""
    raw = [name for name in cosines if name != "tuned"]
    if not raw or "tuned" not in cosines:
        return
    same = f"raw {config.model.pooling.value}"
    before = same if same in raw else raw[-1]
    draw_cosines((before, cosines[before]), ("tuned", cosines["tuned"]), folder / PICTURE)


def _plain_scores(scores: dict[str, Score]) -> dict[str, dict[str, float]]:
    return {name: {**score.protocols, "pairs": score.pairs} for name, score in scores.items()}


def _print_results(
    config: TrainConfig,
    before: dict[str, dict[str, Score]],
    after: dict[str, Score],
    seconds: dict[str, float],
) -> None:
    if after:
        tuned = f"tuned {config.model.pooling.value}"
        title = "Before and after, × 100 (Spearman, all pairs of a set ranked together, unless named)"
        log.info("\n%s", score_table({**before, tuned: after}, title))
        worse = [name for name, score in after.items() if any(score.value < raw[name].value for raw in before.values())]
        if worse:
            log.warning(
                "Lower than the untouched model on %s: try another optim.lr, loss.temperature or model.pooling.",
                ", ".join(worse),
            )
        if any(len(score.protocols) > 1 for score in after.values()):
            log.info("\n%s", protocol_table(after, f"{tuned} by protocol"))
    log.info("time: %s", time_line(seconds))
