"""Using an encoder: scores of any model, vectors of any text file."""

import logging
from pathlib import Path

import numpy as np

from mirror.config import EncodeConfig, EvaluateConfig, plain
from mirror.data.files import read_lines
from mirror.encoder.device import place
from mirror.encoder.digest import digest
from mirror.encoder.encoder import MirrorEncoder
from mirror.encoder.pooling import TextPooling
from mirror.errors import MirrorError
from mirror.evaluation.certainty import Comparison
from mirror.evaluation.contamination import read_audit
from mirror.evaluation.mteb_tasks import load_tasks, run_tasks
from mirror.evaluation.results import Results
from mirror.evaluation.sets import load_sets
from mirror.report.details import geometry_table, mteb_table
from mirror.report.errors import check_plotly, show_errors
from mirror.report.terminal import difference_table, part_table, protocol_table, score_table
from mirror.runs.atomic import reason_of, written_whole
from mirror.runs.record import RunRecord

log = logging.getLogger(__name__)


def evaluate(config: EvaluateConfig, folder: Path) -> Results:
    """Score encoders on the sets of ``eval=`` and print them: one by protocol, several side by side.

    Raises:
        MirrorError: an encoder or a set cannot be loaded.
    """
    with RunRecord(folder, plain(config)) as record:
        if config.eval.errors:
            check_plotly()
        if not config.eval.measured and not config.eval.mteb:
            raise MirrorError("eval=none measures nothing: choose eval=stsb, eval=sts, eval=words or eval=demo.")
        with record.phase("load"):
            sets = load_sets(config.eval.measured, config.eval.data_dir, config.eval.dictionary, config.eval.kinds)
            results = Results(sets, config.eval)
            tasks = load_tasks(config.eval.mteb) if config.eval.mteb else []
        paths: dict[str, str] = {}
        mteb: dict[str, dict[str, float]] = {}
        for path in config.encoders:
            with record.phase("load"):
                encoder = _load(path, config)
                overlaps = read_audit(Path(path), sets)
            with record.phase("evaluate"):
                poolings = _poolings(encoder, config)
                vectors = encoder.encode_by(results.texts, poolings, progress=True)
                for pooling, found in zip(poolings, vectors, strict=True):
                    column = pooling.name if len(config.encoders) == 1 else f"{_short(path, config)} {pooling.name}"
                    paths[column] = path
                    results.overlaps[column] = overlaps
                    if sets:
                        results.add(column, found)
                    if tasks:
                        encoder.pooling = pooling
                        kept = Path(config.mteb_results).expanduser() if config.mteb_results else None
                        mteb[column] = run_tasks(tasks, encoder.encode, path, kept, digest(encoder))
            record["columns"] = paths
            record.content.update(results.plain())
            record.write()
        if sets:
            with record.phase("evaluate"):
                comparisons = results.comparisons(next(iter(paths)))
            record["comparisons"] = [comparison.plain() for comparison in comparisons]
            _report(results, paths, comparisons)
            columns = list(results.scores)
            show_errors(results, columns[:1] + columns[1:][-1:], folder)
        if mteb:
            record["mteb"] = mteb
            log.info("\n%s", mteb_table(mteb, "MTEB, main scores × 100"))
            if config.mteb_results:
                log.info("MTEB's results are kept in %s", config.mteb_results)
        return results


def _poolings(encoder: MirrorEncoder, config: EvaluateConfig) -> list[TextPooling]:
    """How to pool an encoder: as it was saved, whatever the settings say; a model without a pooling as they say."""
    if encoder.saved_pooling is not None or config.pooling is not None:
        return [encoder.pooling]
    poolings = [encoder.make_pooling(name) for name in dict.fromkeys(config.eval.raw)] or [encoder.pooling]
    log.warning(
        "%s does not say how it is pooled, and the scores depend on it: shown by %s; choose with pooling=.",
        encoder.name,
        " and ".join(pooling.name for pooling in poolings),
    )
    return poolings


def _short(path: str, config: EvaluateConfig) -> str:
    """A name for tables: the part of the path in which the encoders differ, or all of it."""
    names = [[part for part in Path(other).parts if part != "encoder"][-1:] for other in config.encoders]
    own = [part for part in Path(path).parts if part != "encoder"][-1:]
    return own[0] if own and names.count(own) == 1 else path


def _report(results: Results, paths: dict[str, str], comparisons: list[Comparison]) -> None:
    scores = results.scores
    unit = "× 100 (Spearman, all pairs of a set ranked together, unless named)"
    if len(scores) > 1:
        first = next(iter(scores))
        title = f"Side by side, {unit}; marks: against {first}"
        log.info("\n%s", score_table(scores, title, gain=False, comparisons=comparisons, overlaps=results.overlaps))
        if comparisons:
            log.info("\n%s", difference_table(comparisons, f"Differences from {first}", results.overlaps))
    for column, found in scores.items():
        pooling = f", {column} pooling" if len(set(paths.values())) == 1 else ""
        title = f"{paths[column] if pooling else column}{pooling}, × 100 (Spearman, unless named)"
        log.info("\n%s", protocol_table(found, title, results.intervals(column), results.overlaps.get(column)))
    if parts := part_table(scores, "By part, × 100 (by the headline protocol of each set)", results.overlaps):
        log.info("\n%s", parts)
    if results.geometry:
        log.info("\n%s", geometry_table(results.geometry, "Geometry of the space"))
    for column in scores:
        unknown = [test.name for test in results.sets if test.name not in results.overlaps[column]]
        if unknown:
            log.info("%s: not known whether it was trained on texts of %s", column, ", ".join(unknown))


def encode(config: EncodeConfig) -> None:
    """Write one vector for each line of a text file, as a NumPy array (lines, dimension), float32.

    Raises:
        MirrorError: the input cannot be read, or the output exists or cannot be written.
    """
    target = Path(config.output).expanduser()
    if target.exists():
        raise MirrorError(f"output={target} exists already: nothing is overwritten, choose another name.")
    if not target.parent.is_dir():
        raise MirrorError(f"output={target}: the folder {target.parent} does not exist, make it first.")
    lines = read_lines(config.input, "input")
    encoder = _load(config.encoder, config)
    if encoder.saved_pooling is None and config.pooling is None:
        log.warning(
            "%s does not say how it is pooled, and the vectors depend on it: pooled by %s; choose with pooling=.",
            encoder.name,
            encoder.pooling.name,
        )
    vectors = encoder.encode(lines, progress=True)
    try:
        with written_whole(target) as partial, partial.open("wb") as file:
            np.save(file, vectors)
    except OSError as error:
        raise MirrorError(f"output={target} cannot be written ({reason_of(error)}): choose another place.") from error
    log.info("%d vectors of %d dimensions in %s", *vectors.shape, target)


def _load(name: str, config: EvaluateConfig | EncodeConfig) -> MirrorEncoder:
    """Load an encoder; one that was saved with its pooling keeps it."""
    encoder = MirrorEncoder.load(name, max_tokens=config.max_tokens, setting="encoder")
    if encoder.saved_pooling is None and config.pooling is not None:
        encoder.pooling = encoder.make_pooling(config.pooling)
    elif config.pooling is not None and config.pooling.value != encoder.saved_pooling:
        log.warning("%s was saved with %s pooling and keeps it.", name, encoder.pooling.name)
    place(encoder, config.accelerator, config.precision)
    return encoder
