"""A training run from texts to a measured, saved encoder."""

import copy
import dataclasses
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytorch_lightning as pl

from mirror.adapt import adapted
from mirror.config import TrainConfig, plain
from mirror.config.parts import build, located, part_name
from mirror.config.suited import TUNING
from mirror.data.module import MirrorData
from mirror.data.rows import Pair, in_memory
from mirror.data.texts import TextTable, choose, read_texts
from mirror.data.view_check import check_views
from mirror.data.views import Views
from mirror.encoder.encoder import MirrorEncoder
from mirror.encoder.graph import refuse_graph
from mirror.errors import MirrorError
from mirror.evaluation.contamination import AUDIT, dump_audit, known_texts
from mirror.evaluation.results import Results, plain_scores
from mirror.evaluation.sets import texts_of
from mirror.losses.base import Loss
from mirror.report.card import model_card
from mirror.report.console import time_line
from mirror.report.errors import check_plotly
from mirror.report.pictures import PICTURE, draw_cosines
from mirror.runs.record import CHECKPOINTS, ENCODER, TUNED, RunRecord
from mirror.runs.sharing import fingerprint, shared, sharing
from mirror.runs.stop import held
from mirror.training.checks import check_adaptation, check_loss, check_model
from mirror.training.fit import BEST, fit
from mirror.training.hardware import Hardware, choose_hardware, is_rank_zero
from mirror.training.measure import Measurements
from mirror.training.parts import build_adaptation, build_module, build_post, check_parts, perturbations
from mirror.training.resume import InterruptedRun, interrupted_run, note_texts, repeatable
from mirror.training.suited import note_suited, tuning_file
from mirror.training.trackers import check_trackers, log_results, log_seeds, tracking
from mirror.training.trainer import quieten, remove_checkpoints

log = logging.getLogger(__name__)


def train(
    config: TrainConfig,
    folder: Path,
    texts: Sequence[str] | Sequence[Pair] | None = None,
    started: float | None = None,
) -> MirrorEncoder:
    """Read texts, tune the encoder, measure it before and after, save it under ``folder/encoder``.

    With ``seeds=N`` the texts, the untouched model and its scores serve all N trainings; the further seeds leave their
    encoders and curves in ``folder/seed-<seed>``. A run that was stopped at any moment goes on where it was: the last
    checkpoint holds the end of the training, and each phase after it can be repeated.

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
    rank_zero = is_rank_zero()  # under DDP every process runs this; one measures, prints and saves
    quieten(rank_zero)
    check_parts(config)
    if not config.resume and (folder / ENCODER).exists():
        raise MirrorError(f"{folder / ENCODER} exists already: nothing is overwritten, choose another folder.")
    hardware = choose_hardware(config.trainer)
    interrupted = interrupted_run(folder) if config.resume else None
    with ExitStack() as end, RunRecord(folder if rank_zero else None, plain(config), started) as record, tracking():
        if started is not None:
            record.content["seconds"]["import"] = round(time.time() - started, 3)
        if config.eval.errors:
            check_plotly()
        if rank_zero:
            check_trackers(config.logger, several=config.seeds > 1 or sharing())
        record["hardware"] = {"device": hardware.name, "precision": hardware.precision.value}
        if interrupted:
            interrupted.note(record)
        run = Run(config, folder, record, hardware, interrupted)
        run.read(texts)
        run.measured.audit(run.table)
        run.load()
        run.measured.untouched(run.encoder)
        run.make_batches()
        # The run's own seed comes last: its encoder is the one that is returned.
        for seed in reversed(range(config.seed, config.seed + config.seeds)):
            run.tune(seed)
            if rank_zero:
                run.post_process()
                run.measured.tuned(run.encoder, seed)
                run.save(seed)
        if rank_zero:
            run.measured.report(folder)
            if config.seeds > 1:
                log_seeds(config.logger, folder, plain(config), record.content, run.measured.raw_column())
            log.info("time: %s", time_line(record.content["seconds"]))
            log.info("encoder saved in %s", folder / ENCODER)
            end.enter_context(held())  # without checkpoints the run cannot go on, only be finished
            for place in map(run.place, range(config.seed, config.seed + config.seeds)):
                remove_checkpoints(place / CHECKPOINTS)
                remove_checkpoints(place / BEST)
    return run.encoder


class Run:
    """What the phases of a run share; they are called in the order in which they stand here."""

    def __init__(
        self,
        config: TrainConfig,
        folder: Path,
        record: RunRecord,
        hardware: Hardware,
        interrupted: InterruptedRun | None,
    ) -> None:
        self.config, self.folder, self.record = config, folder, record
        self.hardware, self.interrupted = hardware, interrupted
        self.table: TextTable
        self.measured = Measurements(config, record)
        self.encoder: MirrorEncoder
        self.views: Views
        self.data: MirrorData
        self.loss: Loss

    def place(self, seed: int) -> Path:
        """Where one seed's encoder and curves go."""
        return self.folder if seed == self.config.seed else self.folder / f"seed-{seed}"

    def seeded(self, seed: int) -> TrainConfig:
        """The settings of the run of one seed: one run in the trackers, in one group with those of the others."""
        if self.config.seeds == 1:
            return self.config
        logger = self.config.logger
        name = logger.name or self.folder.name
        logger = dataclasses.replace(logger, name=f"{name} seed {seed}", group=logger.group or name, job_type="seed")
        # A trial has one score at a step.
        return dataclasses.replace(self.config, seed=seed, seeds=1, trial=None, logger=logger)

    def read(self, given: Sequence[str] | Sequence[Pair] | None) -> None:
        """The texts to train on, the sets to measure on, and the one to watch."""
        config = self.config
        with self.record.phase("read"):
            sets = self.measured.read_sets()
            excluded = known_texts(sets) if config.data.exclude_tests else None
            if given is None:
                key = (repr(config.data), config.seed, excluded and fingerprint(texts_of(sets)))
                self.table = shared("texts", key, lambda: read_texts(config.data, config.seed, excluded))
            else:
                source = "texts given to mirror_tune"
                self.table = choose(in_memory(given), config.data, config.seed, source, excluded)
        self.record["data"] = self.table.counts()
        if config.data.size is not None and len(self.table.pairs) < config.data.size:
            log.warning("Fewer texts than data.size=%d, all are used: %s", config.data.size, self.table)
        else:
            log.info("texts: %s", self.table)
        note_texts(self.record, self.table.fingerprint, config.data.path, self.interrupted)
        self.measured.results = Results(sets if is_rank_zero() else [], config.eval)

    def load(self) -> None:
        """The untouched model, and what makes the views of its texts.

        Raises:
            MirrorError: the model cannot follow a setting.
        """
        model, batch = self.config.model, self.config.batch
        with self.record.phase("load"):
            # What a checkpoint lacks, such as a pooler that the encoder does not use, is drawn, and saved.
            pl.seed_everything(self.config.seed, workers=True, verbose=False)
            named = None if isinstance(model.pooling, Mapping) else model.pooling
            self.encoder = MirrorEncoder.load(
                model.path, named, max_tokens=model.max_tokens, keep_layers=model.keep_layers, setting="model.path"
            )
            refuse_graph(self.encoder.backbone, "model.path")
            note_suited(self.config, self.encoder.backbone.config.to_dict(), self.record)
            self.encoder.layout.packing = batch.pack
            self._seed_pooling(self.config.seed)
            check_model(self.config, self.encoder, len(self.table.pairs))
            given = {"layout": self.encoder.layout, "template": self.encoder.pooling.template}
            self.views = build(self.config.views, "aug", Views, max_tokens=batch.max_tokens, **given)
            with self.encoder.perturbed(perturbations(self.config, self.views)):
                pass  # what the model does not take is told now, not after it has been measured
            check_adaptation(self.config, self.encoder)
            check_loss(self.config, self.encoder, self.table.pairs)
            if is_rank_zero():
                self.encoder.to(self.hardware.device)
        self._pooling = self.encoder.pooling
        self._untouched = copy.deepcopy(self.encoder.state_dict()) if self.config.seeds > 1 else None

    def _seed_pooling(self, seed: int) -> None:
        """A pooling of the user's own may have weights, which follow the seed."""
        if isinstance(self.config.model.pooling, Mapping):
            pl.seed_everything(seed, workers=True, verbose=False)
            self.encoder.pooling = self.encoder.make_pooling(self.config.model.pooling).to(self.encoder.device)

    def make_batches(self) -> None:
        """The texts as batches, and a look at them."""
        config, encoder = self.config, self.encoder
        loss = located(config.loss, "loss")  # a class, or a function that makes one
        if config.batch.pad_to_max:  # only now: the untouched model is measured as it is
            encoder.layout.fix_width(config.batch.max_tokens)
        with self.record.phase("tokenise"):
            self.data = MirrorData(
                self.table,
                encoder.layout,
                self.views,
                config.batch,
                config.seed,
                template=encoder.pooling.template,
                apart=getattr(loss, "sides_apart", False),
                pin_memory=encoder.device.type == "cuda",
            )
        if is_rank_zero():
            equal = getattr(loss, "equal_views", False)
            view_check = check_views(self.data.batches, encoder, perturbations(config, self.views), equal=equal)
            self.record["views"] = view_check.plain()
            log.info("%s", view_check)

    def tune(self, seed: int) -> None:
        """Train with one seed; the first one that is trained meets the model as it was loaded."""
        if self.config.seeds > 1:
            number = self.config.seed + self.config.seeds - seed
            log.info("seed %d (%d of %d)", seed, number, self.config.seeds)
        if self._untouched is not None:
            self.encoder.pooling = self._pooling  # without what was fitted after the seed before
            self.encoder.load_state_dict(self._untouched)
        if seed != self.config.seed or self._untouched is not None:
            self._seed_pooling(seed)
        if self.config.trainer.max_epochs == 0:  # the model as it is, for what is fitted afterwards
            self.loss, self.record["steps"] = build_module(self.seeded(seed), self.encoder).loss, 0
            return
        self.data.batches.reseed(seed)
        adaptation = build_adaptation(self.seeded(seed), self.data.batches.steps)
        with self.record.phase("train"), adapted(self.encoder, adaptation, seed):
            watch = self.measured.watch(self.encoder)
            steps, self.loss = fit(
                self.seeded(seed), self.encoder, self.data, self.place(seed), self.hardware, self.record,
                self.interrupted, self.measured.validation, watch, adaptation,
            )  # fmt: skip
            for geometry in watch:
                geometry.store()
        self.record["steps"] = steps

    def post_process(self) -> None:
        """Fit what comes after the pooling, such as whitening, on the training texts."""
        if not self.config.post:
            return
        with self.record.phase("post-process"):
            texts = list(dict.fromkeys(text for pair in self.table.pairs for text in pair))
            vectors = self.encoder.encode(texts, progress=self.config.trainer.progress)
            stage = build_post(self.config, vectors).to(self.encoder.device)
            self.encoder.pooling = self.encoder.pooling.followed_by(stage, part_name(self.config.post))

    def save(self, seed: int) -> None:
        """The encoder with its card, and the picture of before and after. What this run has saved already, before it
        was stopped, is saved again."""
        place, config, measured = self.place(seed), self.seeded(seed), self.measured
        with self.record.phase("save"), repeatable(self.folder):
            overlaps = measured.results.overlaps.get(TUNED, {})
            card = model_card(
                config, self.table, measured.before, measured.after, self.record.content["steps"],
                self.views.describe(), self.loss.describe(), overlaps,
            )  # fmt: skip
            beside = {"README.md": card, AUDIT: dump_audit(overlaps), TUNING: tuning_file(config)}
            self.encoder.cpu().save(place / ENCODER, beside, replace=self.interrupted is not None)
            cosines = measured.results.cosines
            if (before := measured.raw_column()) and TUNED in cosines:
                draw_cosines((before, cosines[before]), (TUNED, cosines[TUNED]), place / PICTURE)
        own = {**self.record.content["scores"], TUNED: plain_scores(measured.after)}
        log_results({**self.record.content, "scores": own}, place / PICTURE, measured.raw_column())
