"""Names that may stand for a local folder or for something on the Hugging Face hub."""

import socket
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import getproxies

import huggingface_hub.constants as hub_constants

REACH_TIMEOUT = 4.0
"""Seconds to wait for the hub: its own client retries for half a minute before it gives up."""


def looks_local(name: str) -> bool:
    """Whether a name can only be a path: it exists, or no hub name looks like it."""
    return Path(name).exists() or name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name


def go_offline_unless_reachable() -> bool:
    """Tell the Hugging Face libraries to use their cache alone if the hub does not answer.

    Returns:
        Whether the hub is reachable. Behind a proxy the question is left to the libraries.
    """
    if hub_constants.HF_HUB_OFFLINE:
        return False
    if getproxies():
        return True
    host = urlparse(hub_constants.ENDPOINT)
    try:
        port = host.port or (80 if host.scheme == "http" else 443)
        socket.create_connection((host.hostname or "", port), timeout=REACH_TIMEOUT).close()
    except OSError:
        hub_constants.HF_HUB_OFFLINE = True
        return False
    return True
