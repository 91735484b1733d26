"""Names of local folders, of models in this package and of models or data on the Hugging Face hub."""

import os
from http.client import HTTPException
from pathlib import Path
from ssl import SSLError
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import huggingface_hub.constants as hub_constants

from mirror.errors import MirrorError, UnavailableError

BUNDLED = "bundled:"
"""Prefix of the models in this package; no hub name has a colon."""
MODELS = Path(__file__).parents[1] / "models"

REACH_TIMEOUT = 4.0
"""Seconds to wait for the hub: its own client retries for half a minute before it gives up."""


def source_of(name: str, setting: str) -> str:
    """What transformers should load for a name: the folder of a bundled model, a local folder, or a name on the hub.

    Raises:
        MirrorError: there is no such bundled model; ``setting`` gave it.
    """
    if not name.startswith(BUNDLED):
        return str(local_path(name)) if looks_local(name) else name
    folder = MODELS / name.removeprefix(BUNDLED)
    if not (folder / "config.json").is_file():
        there = ", ".join(f"{BUNDLED}{path.parent.name}" for path in sorted(MODELS.glob("*/config.json")))
        raise MirrorError(f"{setting}={name} is not in this package, which holds {there}.")
    return str(folder)


def local_path(name: str) -> Path:
    """The path of a name: the name itself if it exists, else with ``~`` expanded."""
    return Path(name if os.path.exists(name) else os.path.expanduser(name))


def looks_local(name: str) -> bool:
    """Whether a name can only be a path: it exists, or no hub name looks like it."""
    return os.path.exists(name) or name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name


def go_offline_unless_reachable() -> bool:
    """Let the Hugging Face libraries use only their cache if the hub does not answer.

    Returns:
        Whether the hub is reachable.
    """
    if hub_constants.HF_HUB_OFFLINE:
        return False
    try:
        # A whole request, through a proxy where one is set: a firewall may accept the connection and never answer.
        urlopen(Request(hub_constants.ENDPOINT, method="HEAD"), timeout=REACH_TIMEOUT).close()
    except HTTPError as answer:
        reachable = answer.code not in (407, 502, 503, 504)  # these come from a proxy
    except (OSError, ValueError, HTTPException) as error:
        # The libraries bring certificates of their own: let them judge.
        reachable = isinstance(getattr(error, "reason", None), SSLError)
    else:
        reachable = True
    hub_constants.HF_HUB_OFFLINE = not reachable
    return reachable


def load_dataset(path: str, config: str | None, split: str, what: str, remedy: str) -> Any:
    """One split of a data set on the hub.

    Args:
        path: its name on the hub.
        config: its configuration, where it has several.
        split: of the data set.
        what: the subject of the sentences below.
        remedy: what to do without the hub.

    Raises:
        UnavailableError: the hub cannot be reached.
        MirrorError: there is no such data set, or it cannot be read.
    """
    import datasets

    reachable = go_offline_unless_reachable()
    try:
        return datasets.load_dataset(path, config, split=split)
    except Exception as error:
        if not reachable:
            raise UnavailableError(f"{what} is not here, and the hub cannot be reached: {remedy}.") from error
        raise MirrorError(f"{what} cannot be loaded: {' '.join(str(error).split())[:300]}") from error
