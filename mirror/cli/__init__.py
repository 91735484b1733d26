"""The commands. Nothing heavy is imported before one really runs."""

from mirror.runs import stop

with stop.at_once():
    import logging
    import sys
    import time
    from pathlib import Path

    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from mirror.cli import agent
    from mirror.cli.arguments import with_folders, with_parts, with_query
    from mirror.cli.folder import own_folder
    from mirror.cli.start import importing, start
    from mirror.config import (
        EncodeConfig,
        EvaluateConfig,
        ExportConfig,
        PretrainConfig,
        ReportConfig,
        SearchConfig,
        SoupConfig,
        TrainConfig,
    )
    from mirror.runs.registry import hold_lock, read_run
    from mirror.runs.sharing import start_sharing, stop_sharing

log = logging.getLogger(__name__)


def train() -> None:
    """``scripts/train.py``: texts to a measured encoder."""
    started = time.time()

    def run(config: TrainConfig) -> None:
        with importing():
            from mirror.training.run import train

        hydra_config = HydraConfig.get()
        folder = Path(hydra_config.runtime.output_dir)
        chosen = {str(group): str(option) for group, option in hydra_config.runtime.choices.items() if option}
        config.logger.choices = config.logger.choices or {
            group: option for group, option in chosen.items() if not group.startswith("hydra/")
        }
        if hydra_config.mode is not RunMode.MULTIRUN:
            config.logger.name = config.logger.name or agent.run_name(hydra_config.overrides.task)
            train(config, folder, started=started)
            return
        config.logger.group = config.logger.group or Path(hydra_config.sweep.dir).name
        start_sharing()
        with hold_lock(folder) as ours:
            # What a launcher started goes on when its sweep is killed, and may meet what the next start has begun.
            if ours and (read_run(folder) or {}).get("status") != "finished":
                train(config, folder)  # its seconds are its own, not those of the sweep
            else:
                log.warning("%s is left to the process that runs it, or has run it, since another start", folder)

    try:
        start("train", run)
    finally:
        stop_sharing()


def evaluate() -> None:
    """``scripts/evaluate.py``: an encoder to scores."""

    def run(config: EvaluateConfig) -> None:
        with importing():
            from mirror.apply import evaluate

        with own_folder() as folder:
            evaluate(config, folder)

    start("evaluate", run)


def encode() -> None:
    """``scripts/encode.py``: texts to vectors."""

    def run(config: EncodeConfig) -> None:
        with importing():
            from mirror.apply import encode

        encode(config)

    start("encode", run, leaves_record=False)


def pretrain() -> None:
    """``scripts/pretrain.py``: texts to a masked language model."""

    def run(config: PretrainConfig) -> None:
        with importing():
            from mirror.pretraining.run import pretrain

        with own_folder() as folder:
            pretrain(config, folder)

    start("pretrain", run)


def search() -> None:
    """``scripts/search.py``: a query to the texts nearest in meaning."""

    def run(config: SearchConfig) -> None:
        with importing():
            from mirror.search.search import search

        search(config)

    sys.argv[1:] = with_query(sys.argv[1:])
    start("search", run, leaves_record=False)


def export() -> None:
    """``scripts/export.py``: an encoder to a smaller one."""

    def run(config: ExportConfig) -> None:
        with importing():
            from mirror.compress.run import export

        with own_folder() as folder:
            export(config, folder)

    start("export", run)


def soup() -> None:
    """``scripts/soup.py``: several encoders to one."""

    def run(config: SoupConfig) -> None:
        with importing():
            from mirror.soup import soup

        with own_folder() as folder:
            soup(config, folder)

    sys.argv[1:] = with_parts(sys.argv[1:])
    start("soup", run)


def report() -> None:
    """``scripts/report.py``: runs to tables, pictures and a page."""

    def run(config: ReportConfig) -> None:
        with importing():
            from mirror.report import report

        report(config)

    sys.argv[1:] = with_folders(sys.argv[1:])
    start("report", run, leaves_record=False)
