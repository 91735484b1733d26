"""Loggers of settings, curves and results: CSV always, the others on request. No login is ever asked for."""

import logging
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import CSVLogger, Logger

from mirror.config import LoggerConfig, Tracker, WandbMode, flat
from mirror.errors import MirrorError, PrunedError
from mirror.runs import stop
from mirror.runs.login import has_key
from mirror.runs.record import CURVE, TUNED
from mirror.training.mlflow import mlflow_at, mlflow_logger

log = logging.getLogger(__name__)

WANDB_TIMEOUT = 30.0
"""Seconds to wait for W&B before the run gives up, which it does before it trains."""
STOPPED = 255
"""The code that W&B's own hooks give a run that was stopped, to tell it from one that failed."""
RUN_ID = "WANDB_RUN_ID"
"""The variable that names the run of W&B."""
STEP = "trainer/global_step"
"""Under which Lightning hands the step to W&B."""
_open: list[Logger] = []
"""Of the run that runs, beside the CSV curve."""


def check_trackers(config: LoggerConfig, *, several: bool = False) -> None:
    """Tell before anything is read what ``build_trackers`` would tell only before the first step.

    Args:
        config: of the run.
        several: whether this command makes more than one run of W&B.

    Raises:
        MirrorError: a package is not installed, W&B refuses its settings, or MLflow cannot be used.
    """
    for tracker in dict.fromkeys(config.trackers):
        if tracker is Tracker.wandb:
            if several and RUN_ID in os.environ:
                raise MirrorError(
                    f"{RUN_ID}, which W&B's agent sets, names one run, and this command makes several, which would "
                    "all be written into it: leave out seeds and -m, and make seed one of the sweep's parameters."
                )
            with _settings_of_wandb():
                import wandb

                wandb.Settings().update_from_env_vars(dict(os.environ))
        elif tracker is Tracker.tensorboard:
            _tensorboard(Path())
        elif tracker is Tracker.mlflow:
            with mlflow_at(address := os.environ.get("MLFLOW_TRACKING_URI")):
                import mlflow

                if address:
                    mlflow.MlflowClient(address).search_experiments(max_results=1)


def build_trackers(config: LoggerConfig, folder: Path, settings: dict[str, Any]) -> list[Logger]:
    """The loggers of a run, with its settings handed to each.

    Raises:
        MirrorError: the package of a tracker is not installed.
    """
    close_trackers()  # of another seed in the same run
    loggers: list[Logger] = [CSVLogger(folder, name="", version=CURVE, flush_logs_every_n_steps=10)]
    for tracker in dict.fromkeys(config.trackers):
        if tracker is Tracker.wandb:
            loggers.append(_wandb(config, folder))
        elif tracker is Tracker.tensorboard:
            loggers.append(_tensorboard(folder))
        elif tracker is Tracker.mlflow:
            loggers.append(mlflow_logger(config, folder))
    _open[:] = loggers[1:]
    for logger in _open:
        # W&B warns of every setting that its agent has given already.
        given = logger.experiment.config if type(logger).__name__ == "WandbLogger" else {}  # type: ignore[attr-defined]
        told = {key: value for key, value in flat(settings) if key not in given or given[key] != value}
        logger.log_hyperparams(told)
    return loggers


def log_results(record: Mapping[str, Any], picture: Path, against: str | None = None) -> None:
    """Hand what a run found to its loggers: scores, gains, augmented pairs, and the picture where there is one.

    Args:
        record: what goes into ``metrics.json``.
        picture: file of the cosine histograms; need not exist.
        against: the column that the gains are measured from, such as ``raw mean``.
    """
    figures = {
        f"{column}/{name}/{protocol}": value
        for column, sets in record["scores"].items()
        for name, protocols in sets.items()
        for protocol, value in protocols.items()
        if protocol != "pairs"
    }
    before = {name: value for name, value in figures.items() if against and name.startswith(f"{against}/")}
    for name, value in before.items():
        tested = name.removeprefix(f"{against}/")
        figures[f"gain/{tested}"] = figures[f"{TUNED}/{tested}"] - value
    # Under the names of the curves, which end with fewer pairs: the summary says what the printed table says.
    figures |= {f"geometry/{name}": value for name, value in record.get("geometry", {}).get(TUNED, {}).items()}
    figures |= {f"seconds/{phase}": value for phase, value in record["seconds"].items()}
    pairs = [list(pair) for pair in record.get("views", {}).get("examples", [])]
    text = "\n".join(["| view | other view |", "|---|---|", *(f"| {a} | {b} |" for a, b in pairs)])
    for logger in _open:
        kind = type(logger).__name__
        experiment = logger.experiment  # type: ignore[attr-defined]
        if kind == "WandbLogger":
            import wandb

            experiment.summary.update(figures)
            rows = [[*name.rsplit("/", 2), value] for name, value in figures.items() if name.count("/") == 2]
            tables = {"augmented pairs": wandb.Table(["view", "other view"], pairs)}
            tables["scores"] = wandb.Table(["encoder", "set", "protocol", "score"], rows)
            last = {STEP: record["steps"]}
            experiment.log({**last, **tables, **({"cosines": wandb.Image(str(picture))} if picture.exists() else {})})
            continue
        logger.log_metrics(figures, step=record["steps"])
        if kind == "TensorBoardLogger":  # the page HParams shows the runs that end with figures
            headlines = {
                f"score/{name}": record["scores"][TUNED][name][protocol]
                for name, protocol in record.get("headlines", {}).items()
                if name in record["scores"].get(TUNED, {})
            }
            logger.log_hyperparams(logger.hparams, headlines, step=record["steps"])  # type: ignore[attr-defined]
        if kind == "MLFlowLogger":
            experiment.log_text(logger.run_id, text, "augmented-pairs.md")  # type: ignore[attr-defined]
            if picture.exists():
                experiment.log_artifact(logger.run_id, str(picture))  # type: ignore[attr-defined]
        else:
            experiment.add_text("augmented pairs", text)
            if picture.exists():
                from matplotlib.image import imread

                experiment.add_image("cosines", imread(picture)[..., :3], dataformats="HWC")
            experiment.flush()


def log_seeds(
    config: LoggerConfig, folder: Path, settings: dict[str, Any], record: Mapping[str, Any], against: str | None
) -> None:
    """One more run, beside those of the seeds and in their group: the means over the seeds, and their deviations.

    Args:
        config: of the whole run.
        folder: of the whole run; the trackers write into ``seed-mean`` there.
        settings: handed to the trackers.
        record: what goes into ``metrics.json``.
        against: as in ``log_results``.
    """
    place, name = folder / "seed-mean", config.name or folder.name
    if not set(config.trackers) - {Tracker.csv}:
        return
    place.mkdir(exist_ok=True)
    build_trackers(replace(config, name=f"{name} mean", group=config.group or name), place, settings)
    log_results(record, place / "none", against)
    deviations = {
        f"sd/{column}/{test}": found["sd"]
        for column, sets in record["certainty"].items()
        for test, found in sets.items()
        if "sd" in found
    }
    for logger in _open:
        if type(logger).__name__ == "WandbLogger":
            logger.experiment.summary.update(deviations)  # type: ignore[attr-defined]
        else:
            logger.log_metrics(deviations, step=record["steps"])


@contextmanager
def _settings_of_wandb() -> Iterator[None]:
    """What W&B cannot be begun with becomes one sentence."""
    try:
        yield
    except ImportError:
        raise MirrorError("logger=wandb needs the package wandb: pip install 'mirror-encoders[wandb]'.") from None
    except ValueError as error:  # of its settings, which it also reads from the environment
        reason = " ".join(str(error).partition(" [type=")[0].split())
        reason = re.sub(r"^\d+ validation errors? for Settings (\w+)", r"\1:", reason)
        raise MirrorError(
            f"W&B refuses its settings ({reason[:160]}): correct or unset WANDB_MODE and the like."
        ) from error


def _wandb(config: LoggerConfig, folder: Path) -> Logger:
    with _settings_of_wandb():
        import wandb
        from pytorch_lightning.loggers import WandbLogger

        mode = config.mode.value
        earlier = sorted((folder / "wandb").glob("*run-*-*"))
        if config.mode is WandbMode.auto:
            mode = os.environ.get("WANDB_MODE", "online" if has_key() else "offline")
        try:
            run = wandb.init(
                project=config.project,
                dir=folder,
                id=earlier[-1].name.rpartition("-")[2] if earlier else None,  # a run that goes on
                resume="allow" if earlier and mode == "online" else None,
                group=config.group,
                job_type=config.job_type,
                tags=config.tags,
                name=config.name or folder.name,
                mode=mode,  # type: ignore[arg-type]
                settings=wandb.Settings(silent=True, init_timeout=WANDB_TIMEOUT),
            )
        except wandb.Error as error:
            reason = " ".join(str(error).split())[:200]
            raise MirrorError(f"W&B does not answer ({reason}): set logger.mode=offline and sync later.") from error
    # As Lightning does for a run that it begins itself: the axis of every chart is the step of the training.
    run.define_metric(STEP)
    run.define_metric("*", step_metric=STEP, step_sync=True)
    log.info("W&B: %s", f"kept offline; wandb sync {Path(run.dir).parent} sends it" if run.offline else run.url)
    return WandbLogger(experiment=run)


def _tensorboard(folder: Path) -> Logger:
    from pytorch_lightning.loggers import TensorBoardLogger

    try:
        with warnings.catch_warnings(action="ignore"):
            return TensorBoardLogger(folder, name="", version="tensorboard", default_hp_metric=False)
    except ModuleNotFoundError:
        raise MirrorError(
            "logger=tensorboard needs the package tensorboard: pip install 'mirror-encoders[tensorboard]'."
        ) from None


@contextmanager
def tracking() -> Iterator[None]:
    """Ends with the loggers closed, however it ends."""
    exit_code = 0
    try:
        yield
    except BaseException as error:
        stopped = stop.received() or isinstance(error, KeyboardInterrupt)
        exit_code = 0 if isinstance(error, PrunedError) else STOPPED if stopped else 1
        raise
    finally:
        close_trackers(exit_code)


def close_trackers(exit_code: int = 0) -> None:
    """End an open W&B run, so that the next run of a sweep gets its own; other codes than 0 mark it as failed."""
    import sys

    _open.clear()
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        wandb.finish(exit_code)
