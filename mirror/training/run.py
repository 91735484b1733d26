"""A training run from texts to a measured, saved encoder."""

import copy
import dataclasses
import logging
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytorch_lightning as pl

from mirror.config import Select, Strategy, TrainConfig, plain
from mirror.config.compose import CONF, compose, quoted
from mirror.config.parts import TARGET, build, check_part, located
from mirror.data.batches import MirrorData
from mirror.data.rows import Pair, in_memory
from mirror.data.texts import TextTable, choose, read_texts
from mirror.data.view_check import check_views
from mirror.data.views import Views
from mirror.encoder.encoder import MirrorEncoder
from mirror.errors import MirrorError, UnavailableError
from mirror.evaluation.certainty import Comparison, Interval
from mirror.evaluation.contamination import AUDIT, audit, dump_audit, known_texts
from mirror.evaluation.cosines import Histograms
from mirror.evaluation.results import Results, plain_scores
from mirror.evaluation.sets import Score, TestSet, load_sets, texts_of
from mirror.report.card import model_card
from mirror.report.errors import check_plotly, show_errors
from mirror.report.pictures import GEOMETRY_PICTURE, PICTURE, draw_cosines, draw_geometry
from mirror.report.terminal import audit_table, geometry_table, protocol_table, score_table, time_line
from mirror.runs.record import TUNED, RunRecord
from mirror.runs.sharing import fingerprint, shared
from mirror.training.fit import fit, perturbations
from mirror.training.hardware import Hardware, choose_hardware, is_chief
from mirror.training.resume import CHECKPOINTS, earlier, note_texts
from mirror.training.trackers import log_results, tracking
from mirror.training.trainer import quieten, remove_checkpoints
from mirror.training.watch import PAIRS as WATCHED
from mirror.training.watch import GeometryWatch

log = logging.getLogger(__name__)

MANY = 200_000
"""Texts that take minutes to audit."""


def train(
    config: TrainConfig,
    folder: Path,
    texts: Sequence[str] | Sequence[Pair] | None = None,
    started: float | None = None,
) -> MirrorEncoder:
    """Read texts, tune the encoder, measure it before and after, save it under ``folder/encoder``.

    With ``seeds=N`` the texts, the untouched model and its scores serve all N trainings; the further seeds leave their
    encoders and curves in ``folder/seed-<seed>``.

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
    check_parts(config)
    hardware = choose_hardware(config.trainer)
    interrupted = earlier(folder) if config.resume else None
    with RunRecord(folder if chief else None, plain(config), started) as record, tracking():
        if started is not None:
            record.content["seconds"]["import"] = round(time.time() - started, 3)
        if config.eval.errors:
            check_plotly()
        record["hardware"] = {"device": hardware.name, "precision": hardware.precision.value}
        if interrupted:
            interrupted.note(record)

        table, sets, validation = _read(config, texts, record)
        note_texts(record, table.fingerprint, config.data.path, interrupted)
        results = Results(sets if chief else [], config.eval)
        _audit(table, results, record, config)
        encoder, views = _load(config, hardware, record)
        _measure_raw(encoder, results, record, config)
        data = _mirror(table, encoder, views, validation, record, config)

        before = results.scores
        untouched = copy.deepcopy(encoder.state_dict()) if config.seeds > 1 else None
        # The run's own seed comes last: its encoder is the one that is returned.
        for number, seed in enumerate(reversed(range(config.seed, config.seed + config.seeds))):
            trial = config.trial if config.seeds == 1 else None  # a trial has one score at a step
            seeded = dataclasses.replace(config, seed=seed, seeds=1, trial=trial)
            place = folder if seed == config.seed else folder / f"seed-{seed}"
            if config.seeds > 1:
                log.info("seed %d (%d of %d)", seed, number + 1, config.seeds)
            if number > 0 and untouched is not None:
                encoder.load_state_dict(untouched)
            data.pairs.reseed(seed)
            with record.phase("train"):
                watch = _watch(encoder, results, record, config)
                steps, loss = fit(seeded, encoder, data, place, hardware, record, interrupted, watch)
            if not chief:
                return encoder
            record["steps"] = steps
            after = _measure_tuned(encoder, results, record, config)
            own = {**record.content["scores"], TUNED: plain_scores(after)}
            if config.seeds > 1:
                one = {"steps": steps, "loss": record.content["loss"], "scores": own[TUNED]}
                record.content.setdefault("seeds", {})[str(seed)] = one
                record.write()
            with record.phase("save"):
                overlaps = results.overlaps.get(TUNED, {})
                card = model_card(seeded, table, before, after, steps, views.describe(), loss.describe(), overlaps)
                encoder.cpu().save(place / "encoder", {"README.md": card, AUDIT: dump_audit(overlaps)})
                _draw(results.cosines, seeded, place)
                remove_checkpoints(place / CHECKPOINTS)
            log_results({**record.content, "scores": own}, place / PICTURE)

        _report(config, results, record, folder)
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
        model: hub name or local folder, or a file of the group ``model`` with all that suits it, such as ``"mini"``.
        texts: raw texts, or pairs of texts as given positives; all of them are used.
        overrides: settings as on the command line, such as ``["task=word", "loss.temperature=0.1"]``.
        output: run folder for the encoder, the metrics and the log; None leaves nothing behind.

    Raises:
        MirrorError: a setting, the model or the texts are wrong.
    """
    known = (CONF / "model" / f"{model}.yaml").is_file() and not Path(model).exists()
    chosen = f"model={model}" if known else f"model.path={quoted(model)}"
    config = compose("train", ["eval=none", "data.size=null", *overrides, chosen])
    if output is not None:
        folder = Path(output)
        if folder.exists():
            raise MirrorError(f"{folder} exists already: nothing is overwritten, choose another output.")
        folder.mkdir(parents=True)
        return train(config, folder, texts)
    with tempfile.TemporaryDirectory() as scratch:
        return train(config, Path(scratch), texts)


def _read(
    config: TrainConfig, given: Sequence[str] | Sequence[Pair] | None, record: RunRecord
) -> tuple[TextTable, list[TestSet], TestSet | None]:
    """The texts to train on, the sets to measure on, and the one to watch."""
    with record.phase("read"):
        sets, validation = _sets(config, needed=is_chief() or config.data.exclude_tests)
        excluded = known_texts(sets) if config.data.exclude_tests else None
        if given is None:
            key = (repr(config.data), config.seed, excluded and fingerprint(texts_of(sets)))
            table = shared("texts", key, lambda: read_texts(config.data, config.seed, excluded))
        else:
            source = "texts given to mirror_tune"
            table = choose(in_memory(given), config.data, config.seed, source, excluded)
    record["data"] = table.counts()
    if config.data.size is not None and len(table.pairs) < config.data.size:
        log.warning("Fewer texts than data.size=%d, all are used: %s", config.data.size, table)
    else:
        log.info("texts: %s", table)
    return table, sets, validation


def _audit(table: TextTable, results: Results, record: RunRecord, config: TrainConfig) -> None:
    """Look for the sets' texts among the training texts."""
    if not results.sets or not config.eval.audit:
        return
    if len(table.pairs) > MANY:
        log.info("looking for test texts among %d texts; eval.audit=false does without", len(table.pairs))
    with record.phase("audit"):
        both = (table.fingerprint, fingerprint(results.texts))
        found = shared("audit", both, lambda: audit(table.pairs, results.sets, progress=config.trainer.progress))
    results.overlaps[TUNED] = found
    log.info("\n%s", audit_table(found, "Test texts among the training texts"))


def check_parts(config: TrainConfig) -> None:
    """Check every part against its signature before anything is read.

    Raises:
        MirrorError: a part cannot be imported, or does not take its settings.
    """
    check_part(config.views, "aug", "layout")
    check_part(config.loss, "loss", "embedder")
    check_part(config.optim, "optim", "params")
    check_part(config.schedule, "schedule", "optimizer", "steps")
    if config.head:
        check_part(config.head, "head", "dimension")
    if config.perturb:
        check_part(config.perturb, "perturb")
    if isinstance(config.model.pooling, Mapping):
        check_part(config.model.pooling, "model.pooling", "hidden", "layers")
    if config.data.source:
        check_part(config.data.source, "data.source", "language", "size")


def _load(config: TrainConfig, hardware: Hardware, record: RunRecord) -> tuple[MirrorEncoder, Views]:
    """The untouched model, and what makes the views of its texts.

    Raises:
        MirrorError: the model cannot follow a setting.
    """
    with record.phase("load"):
        pl.seed_everything(config.seed, workers=True, verbose=False)
        encoder = MirrorEncoder.load(
            config.model.path, config.model.pooling, max_tokens=config.model.max_tokens, setting="model.path"
        )
        if config.batch.max_tokens > encoder.max_tokens:
            raise MirrorError(
                f"batch.max_tokens={config.batch.max_tokens} is more than the {encoder.max_tokens} that {encoder.name} "
                "takes: lower it."
            )
        encoder.layout.packing = config.batch.pack
        views = build(config.views, "aug", Views, layout=encoder.layout)
        with encoder.perturbed(perturbations(config)):
            pass  # what the model does not take is told now, not after it has been measured
        return encoder.to(hardware.device) if is_chief() else encoder, views


def pooling_name(config: TrainConfig) -> str:
    """What the tuned encoder's pooling is called in tables."""
    choice = config.model.pooling
    return str(choice[TARGET]).rpartition(".")[2] if isinstance(choice, Mapping) else choice


def _sets(config: TrainConfig, *, needed: bool) -> tuple[list[TestSet], TestSet | None]:
    """The test sets and the validation set. Without a folder or a hub the run goes on unmeasured, and says so; but it
    stops where their texts are to be excluded."""
    validation = None
    if config.select is Select.best:
        (validation,) = load_sets([config.eval.validation], config.eval.data_dir)
    if not needed:
        return [], validation
    try:
        names, data_dir, dictionary = config.eval.measured, config.eval.data_dir, config.eval.dictionary
        key = (*names, data_dir, dictionary)
        return shared("sets", key, lambda: load_sets(names, data_dir, dictionary)), validation
    except UnavailableError as error:
        if config.data.exclude_tests:
            raise
        log.warning("NOT MEASURED before and after: %s", error)
        return [], validation


def _measure_raw(encoder: MirrorEncoder, results: Results, record: RunRecord, config: TrainConfig) -> None:
    """Score the untouched model under each pooling of ``eval.raw``; one pass through it serves them all."""
    if not results.sets:
        return
    poolings = [encoder.make_pooling(name) for name in dict.fromkeys(config.eval.raw)]
    with record.phase("evaluate"):
        if poolings:
            log.info("measuring the model as it is …")
            texts = results.texts
            key = (encoder.name, encoder.max_tokens, tuple(config.eval.raw), encoder.device.type, fingerprint(texts))
            vectors = shared(
                "vectors", key, lambda: encoder.encode_by(texts, poolings, progress=config.trainer.progress)
            )
            for pooling, found in zip(poolings, vectors, strict=True):
                results.add(f"raw {pooling.name}", found)
        record.content.update(results.plain())


def _measure_tuned(
    encoder: MirrorEncoder, results: Results, record: RunRecord, config: TrainConfig
) -> dict[str, Score]:
    """Score the encoder as it will be saved."""
    if not results.sets:
        return {}
    with record.phase("evaluate"):
        log.info("measuring the tuned encoder …")
        scores = results.add(TUNED, encoder.encode(results.texts, progress=config.trainer.progress))
        record.content.update(results.plain())
    return scores


def _mirror(
    table: TextTable,
    encoder: MirrorEncoder,
    views: Views,
    validation: TestSet | None,
    record: RunRecord,
    config: TrainConfig,
) -> MirrorData:
    """The texts as mirrored batches, and a look at them."""
    if config.batch.pad_to_max:  # only now: the untouched model is measured as it is
        encoder.layout.fix_width(config.batch.max_tokens)
    with record.phase("tokenise"):
        data = MirrorData(
            table,
            encoder.layout,
            views,
            config.batch,
            config.seed,
            validation,
            apart=getattr(located(config.loss, "loss"), "sides_apart", False),
            pin_memory=encoder.device.type == "cuda",
        )
    if is_chief():
        view_check = check_views(data.pairs, encoder, perturbations(config))
        record["views"] = view_check.plain()
        log.info("%s", view_check)
    return data


def _watch(encoder: MirrorEncoder, results: Results, record: RunRecord, config: TrainConfig) -> list[GeometryWatch]:
    """What looks on while the encoder learns: where there are pairs to look at, and one device has all weights."""
    every, pairs = config.eval.geometry_every, results.sample[:WATCHED]
    whole = config.trainer.strategy is not Strategy.fsdp
    return [GeometryWatch(encoder, pairs, every, record)] if every and pairs and whole else []


def _draw(cosines: dict[str, Histograms], config: TrainConfig, folder: Path) -> None:
    """The picture of before and after; before is the model pooled as the encoder is, if that was measured."""
    raw = [name for name in cosines if name != TUNED]
    if not raw or TUNED not in cosines:
        return
    same = f"raw {pooling_name(config)}"
    before = same if same in raw else raw[-1]
    draw_cosines((before, cosines[before]), (TUNED, cosines[TUNED]), folder / PICTURE)


def _report(config: TrainConfig, results: Results, record: RunRecord, folder: Path) -> None:
    """Store the comparisons, draw the course, and print what was found."""
    if "geometry_curve" in record.content:
        with record.phase("save"):
            draw_geometry(record.content["geometry_curve"], folder / GEOMETRY_PICTURE)
    if TUNED in results.seeds:
        with record.phase("evaluate"):
            comparisons = results.comparisons(TUNED)
            intervals = results.intervals(TUNED)
        record["comparisons"] = [comparison.plain() for comparison in comparisons]
        _print_scores(config, results, comparisons, intervals)
        same = f"raw {pooling_name(config)}"
        others = [column for column in results.seeds if column != TUNED]
        before = [same] if same in others else others[-1:]
        show_errors(results, [*before, TUNED], folder)
    log.info("time: %s", time_line(record.content["seconds"]))


def _print_scores(
    config: TrainConfig,
    results: Results,
    comparisons: Sequence[Comparison],
    intervals: Mapping[str, Interval | None],
) -> None:
    """The tables, and what to try where tuning did harm."""
    scores = results.scores
    tuned = f"tuned {pooling_name(config)}"
    columns = {(tuned if column == TUNED else column): found for column, found in scores.items()}
    named = [dataclasses.replace(comparison, encoder=tuned) for comparison in comparisons]
    overlap = results.overlaps.get(TUNED, {})
    mean = f"mean of {config.seeds} seeds" if config.seeds > 1 else ""
    title = "Before and after, × 100 (Spearman, all pairs of a set ranked together, unless named)"
    if mean:
        title += f"; {mean.replace('mean', 'mean ± sd')}"
    log.info("\n%s", score_table(columns, title, comparisons=named, overlaps={tuned: overlap}))
    after = scores[TUNED]
    raw = [found for column, found in scores.items() if column != TUNED]
    worse = [name for name, score in after.items() if any(score.value < found[name].value for found in raw)]
    if worse:
        log.warning(
            "Lower than the untouched model on %s: try another optim.lr, loss.temperature or model.pooling.",
            ", ".join(worse),
        )
    title = ", ".join(filter(None, [f"{tuned} by protocol, × 100 (Spearman, unless named)", mean]))
    log.info("\n%s", protocol_table(after, title, intervals, overlap))
    if results.geometry:
        log.info("\n%s", geometry_table(results.geometry, "Geometry of the space" + ", last seed" * bool(mean)))
