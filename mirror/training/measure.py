"""What a run measures: the model as it is and the encoder of each seed, on the same sets."""

import logging
from pathlib import Path

from mirror.config import Pooling, Select, Strategy, TrainConfig
from mirror.data.texts import TextTable
from mirror.encoder.encoder import MirrorEncoder
from mirror.errors import MirrorError, UnavailableError
from mirror.evaluation.contamination import audit
from mirror.evaluation.results import Results, plain_scores
from mirror.evaluation.sets import Score, TestSet, load_sets
from mirror.report.details import audit_table
from mirror.report.errors import show_errors
from mirror.report.outcome import print_scores
from mirror.report.pictures import GEOMETRY_PICTURE, draw_geometry
from mirror.runs.record import TUNED, RunRecord
from mirror.runs.sharing import fingerprint, shared
from mirror.training.hardware import is_rank_zero
from mirror.training.parts import pooling_name
from mirror.training.resume import repeatable
from mirror.training.watch import PAIRS as WATCHED
from mirror.training.watch import GeometryWatch

log = logging.getLogger(__name__)

MANY = 200_000
"""Texts that take minutes to audit."""


class Measurements:
    """The scores of a run and what is said about them. Only the first process has any."""

    def __init__(self, config: TrainConfig, record: RunRecord) -> None:
        self.config, self.record = config, record
        self.results: Results
        self.validation: TestSet | None = None
        """Scored while the encoder learns, where ``select=best`` or ``eval.curve`` asks for it."""
        self.before: dict[str, dict[str, Score]] = {}
        """By column and set, of the model as it is."""
        self.after: dict[str, Score] = {}
        """By set, of the encoder of the last seed."""

    def read_sets(self) -> list[TestSet]:
        """The test sets. Without a folder or a hub the run goes on unmeasured, and says so; but it stops where their
        texts are to be excluded."""
        config = self.config
        needed = is_rank_zero() or config.data.exclude_tests
        if name := config.validated:
            asked = "set select=last" if config.select is Select.best else "leave out eval.curve"
            setting = "eval.validation" if config.select is Select.best else "eval.curve"
            try:
                (self.validation,) = load_sets([name], config.eval.data_dir, kinds=config.eval.kinds, setting=setting)
            except UnavailableError as error:
                raise MirrorError(f"{setting}={name} cannot be had: give eval.data_dir=…, or {asked}.") from error
        if not needed:
            return []
        try:
            names, data_dir, dictionary = config.eval.measured, config.eval.data_dir, config.eval.dictionary
            key = (*names, data_dir, dictionary, *config.eval.kinds)
            return shared("sets", key, lambda: load_sets(names, data_dir, dictionary, config.eval.kinds))
        except UnavailableError as error:
            if config.data.exclude_tests:
                raise
            log.warning("NOT MEASURED before and after: %s", error)
            return []

    def audit(self, table: TextTable) -> None:
        """Look for the sets' texts among the training texts."""
        results = self.results
        if not results.sets or not self.config.eval.audit:
            return
        if len(table.pairs) > MANY:
            log.info("looking for test texts among %d texts; eval.audit=false does without", len(table.pairs))
        with self.record.phase("audit"):
            both = (table.fingerprint, fingerprint(results.texts))
            progress = self.config.trainer.progress
            found = shared("audit", both, lambda: audit(table.pairs, results.sets, progress=progress))
        results.overlaps[TUNED] = found
        log.info("\n%s", audit_table(found, "Test texts among the training texts"))

    def untouched(self, encoder: MirrorEncoder) -> None:
        """Score the untouched model under each pooling of ``eval.raw`` and under that of the tuned encoder, so that
        like is compared with like; one pass through it serves them all."""
        results, config = self.results, self.config
        if not results.sets:
            return
        own = pooling_name(config)
        # A part may have weights, and padding no width of its own: neither says anything of an untouched model.
        known = isinstance(config.model.pooling, str) and own != Pooling.mean_padded.value
        names = dict.fromkeys([*config.eval.raw, *([own] if known and config.eval.raw else [])])
        poolings = [encoder.make_pooling(name) for name in names]
        with self.record.phase("evaluate"):
            if poolings:
                log.info("measuring the model as it is …")
                texts = results.texts
                which = (encoder.name, str(config.model.keep_layers), encoder.max_tokens, encoder.device.type)
                key = (*which, *names, fingerprint(texts))
                progress = config.trainer.progress
                vectors = shared("vectors", key, lambda: encoder.encode_by(texts, poolings, progress=progress))
                for pooling, found in zip(poolings, vectors, strict=True):
                    results.add(f"raw {pooling.name}", found)
            self.record.content.update(results.plain())
        self.before = results.scores

    def watch(self, encoder: MirrorEncoder) -> list[GeometryWatch]:
        """What looks on while the encoder learns: where there are pairs, and one device has all weights."""
        every, pairs = self.config.eval.geometry_every, self.results.sample[:WATCHED]
        whole = self.config.trainer.strategy is not Strategy.fsdp
        return [GeometryWatch(encoder, pairs, every, self.record)] if every and pairs and whole else []

    def tuned(self, encoder: MirrorEncoder, seed: int) -> None:
        """Score the encoder as it will be saved."""
        results, content = self.results, self.record.content
        self.after = {}
        if results.sets:
            with self.record.phase("evaluate"):
                log.info("measuring the tuned encoder …")
                progress = self.config.trainer.progress
                self.after = results.add(TUNED, encoder.encode(results.texts, progress=progress))
                content.update(results.plain())
        if self.config.seeds > 1:
            one = {"steps": content["steps"], "loss": content["loss"], "scores": plain_scores(self.after)}
            content.setdefault("seeds", {})[str(seed)] = one
            self.record.write()

    def raw_column(self) -> str | None:
        """The untouched model pooled as the encoder is, if that was measured, else by the last pooling."""
        raw = [column for column in self.results.seeds if column != TUNED]
        same = f"raw {pooling_name(self.config)}"
        return same if same in raw else raw[-1] if raw else None

    def report(self, folder: Path) -> None:
        """Store the comparisons, draw the course, and print what was found."""
        record, results = self.record, self.results
        if "geometry_curve" in record.content:
            with record.phase("save"), repeatable(folder):
                draw_geometry(record.content["geometry_curve"], folder / GEOMETRY_PICTURE)
        if TUNED in results.seeds:
            with record.phase("evaluate"):
                comparisons = results.comparisons(TUNED)
                intervals = results.intervals(TUNED)
            record["comparisons"] = [comparison.plain() for comparison in comparisons]
            print_scores(results, comparisons, intervals, pooling_name(self.config))
            show_errors(results, [*filter(None, [self.raw_column()]), TUNED], folder)
