"""MLflow as a tracker: a database beside the runs, or a server."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pytorch_lightning.loggers import Logger

from mirror.config import LoggerConfig
from mirror.errors import MirrorError

TIMEOUT = 10
"""Seconds to wait for the server before the run gives up, which it does before it trains."""


def mlflow_logger(config: LoggerConfig, folder: Path) -> Logger:
    """MLflow's logger of a run, which appears there at once.

    Raises:
        MirrorError: MLflow cannot be used.
    """
    # One database beside the runs, so that a sweep is together; a server where the environment names one.
    beside = folder.resolve().parent
    address = os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{beside / 'mlflow.db'}")
    with mlflow_at(address):
        from pytorch_lightning.loggers import MLFlowLogger

        logger = MLFlowLogger(
            experiment_name=config.project,
            run_name=config.name or folder.name,
            tracking_uri=address,
            artifact_location=None if "MLFLOW_TRACKING_URI" in os.environ else str(beside / "mlflow"),
            tags={"group": config.group or "", "job_type": config.job_type, **dict.fromkeys(config.tags, "true")},
        )
        _ = logger.experiment  # makes the run there
    return logger


@contextmanager
def mlflow_at(address: str | None) -> Iterator[None]:
    """What MLflow refuses becomes one sentence, at the first attempt."""
    try:
        with _at_once():
            yield
    except ModuleNotFoundError:
        raise MirrorError("logger=mlflow needs the package mlflow: pip install 'mirror-encoders[mlflow]'.") from None
    except Exception as error:  # of a server or a database, whose libraries name it in many ways
        silent = "Max retries exceeded" in str(error)
        reason = f"{address} does not answer" if silent else " ".join(f"{address}: {error}".split())
        reason = re.sub("//[^/@ ]+@", "//", reason)  # without a password
        raise MirrorError(
            f"MLflow cannot be used ({reason[:200]}): correct or unset MLFLOW_TRACKING_URI, or start its server."
        ) from error


@contextmanager
def _at_once() -> Iterator[None]:
    """MLflow does not try again for minutes inside, as it may later, when an answer is only late."""
    limits = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": str(TIMEOUT)}
    before = {name: os.environ.get(name) for name in limits}
    os.environ.update(limits)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
