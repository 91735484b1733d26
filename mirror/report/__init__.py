"""One report over all runs of a sweep: tables, pictures, a page. It reads only the files of the runs."""

import logging
import time
from importlib.util import find_spec
from pathlib import Path

from mirror.config import ReportConfig
from mirror.errors import MirrorError
from mirror.report.files import latex, markdown, runs_csv, table_csv
from mirror.report.page import how_they_ended, page
from mirror.report.papers import draw
from mirror.report.runs import collect
from mirror.report.study import study_figures
from mirror.report.summary import summary_table
from mirror.report.table import compare
from mirror.report.workspace import save, workspace
from mirror.runs.atomic import written_whole

log = logging.getLogger(__name__)

PAGE, TABLES, FIGURES = "report.html", ("runs.csv", "table.csv", "table.md", "table.tex"), "figures"
GENERATOR = '<meta name="generator" content="mirror">'
"""Mark in the page's head, so that a report only ever replaces a report."""


def report(config: ReportConfig) -> Path:
    """Write ``report.html``, ``table.csv``, ``table.md``, ``table.tex`` and ``runs.csv``; earlier ones are replaced.

    The figures for a paper come on request, into ``figures/``.

    With ``watch`` it writes them again and again, until it is stopped; runs and the baseline may come later.

    Returns:
        The page.

    Raises:
        MirrorError: there is no run, the baseline is no row, a package is missing, the folder cannot be written, or W&B
            does not take the workspace.
    """
    folders = [Path(folder).expanduser() for folder in config.runs]
    for folder in folders:
        if not folder.is_dir():
            raise MirrorError(f"runs={folder} is no folder: give one that holds runs, such as outputs/train-sweep.")
    target = Path(config.output).expanduser() if config.output else folders[0] / "report"
    if not config.watch:
        return _write(config, folders, target, every=None)
    try:
        while True:
            _write(config, folders, target, every=config.every)
            time.sleep(config.every)
    except KeyboardInterrupt:
        return _write(config, folders, target, every=None)  # the final page does not reload


def _write(config: ReportConfig, folders: list[Path], target: Path, every: int | None) -> Path:
    found = collect(folders)
    if not found.runs and every is None:
        left_out = f" ({found.problems[0].removesuffix('.')})" if found.problems else ""
        raise MirrorError(f"runs={', '.join(map(str, folders))} holds no training run{left_out}: give a run's folder.")
    try:
        comparisons = compare(found.runs, config.baseline)
    except MirrorError as error:
        if every is None:
            raise
        log.warning("%s", error)  # it may not have finished yet
        comparisons = compare(found.runs)
    title = config.title or ", ".join(folder.resolve().name for folder in folders)
    if others := _not_ours(target):
        raise MirrorError(
            f"output={target} holds {others[0]}, which no report made: nothing is overwritten, choose another folder."
        )
    searches = study_figures(folders) if find_spec("plotly") else []
    labels = {name: label for name, _, label in (text.partition("=") for text in config.labels)}
    texts = {
        # First, since it marks the folder.
        PAGE: page(found, comparisons, title, target, every, searches=searches, others=config.published),
        "runs.csv": runs_csv(found.runs),
        "table.csv": table_csv(comparisons),
        "table.md": markdown(comparisons),
        "table.tex": latex(comparisons, labels),
    }
    made = workspace(found.runs, comparisons, config.wandb, title) if config.wandb else None
    try:
        target.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            with written_whole(target / name) as partial:
                partial.write_text(text, encoding="utf-8")
        if config.figures:
            draw(comparisons, config.figures, target / FIGURES, labels)
    except OSError as error:
        raise MirrorError(f"output={target} cannot be written ({error.strerror}): choose another folder.") from error
    for problem in found.problems:
        log.warning("%s", problem)
    if table := summary_table(found.runs):
        log.info("%s", table)
    log.info("%s Report in %s", how_they_ended(found.runs), target / PAGE)
    if made is not None:
        log.info("workspace %s", save(made))
    return target / PAGE


def _not_ours(target: Path) -> list[str]:
    """Files in the way that no report made; a report's folder is recognised by its page."""
    try:
        if GENERATOR in (target / PAGE).read_text(encoding="utf-8", errors="replace"):
            return []
    except OSError:  # there is none
        pass
    return [name for name in (PAGE, *TABLES, FIGURES) if (target / name).exists()]
