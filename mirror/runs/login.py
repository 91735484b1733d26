"""Whether W&B is set up on this machine: mirror never asks for a login."""

import netrc
import os
from urllib.parse import urlsplit


def has_key() -> bool:
    """Whether wandb could log in without asking."""
    import wandb

    if os.environ.get("WANDB_API_KEY"):
        return True
    server = wandb.setup().settings.base_url
    names = {urlsplit(server).netloc, "api.wandb.ai" if server == wandb.Settings().base_url else ""}
    try:
        return not names.isdisjoint(netrc.netrc(os.environ.get("NETRC")).hosts)
    except (OSError, netrc.NetrcParseError):
        return False
