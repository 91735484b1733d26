"""Put a saved encoder on the Hugging Face hub."""

from pathlib import Path

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils._validators import validate_repo_id

from mirror.errors import MirrorError, UnavailableError
from mirror.report.console import hushed


def check_push(name: str) -> None:
    """Refuse what cannot be pushed before any work is done.

    Raises:
        MirrorError: the name is no repository's, or there is no token of the hub.
    """
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise MirrorError(f"push={name} is no name on the hub ({error}): write push=your-name/your-encoder.") from None
    if "/" not in name:
        raise MirrorError(f"push={name} does not say whose it is: write push=your-name/{name}.")
    if get_token() is None:
        raise MirrorError(f"push={name} needs a token of the hub: run hf auth login, or set HF_TOKEN.")


def push(folder: Path, name: str, *, private: bool) -> str:
    """Commit every file of ``folder`` to a repository, which is made where there is none; earlier commits stay.

    Returns:
        Its address.

    Raises:
        MirrorError: the hub refuses.
        UnavailableError: it does not answer.
    """
    api = HfApi()
    try:
        with hushed("httpx", "httpx2"):
            address = api.create_repo(name, private=private, exist_ok=True)
            api.upload_folder(repo_id=name, folder_path=folder, commit_message="Encoder saved by mirror")
    except HfHubHTTPError as error:
        reason = " ".join(str(error.server_message or error).split())[:200]
        raise MirrorError(
            f"push={name}: the hub refuses ({reason}): see whether the token may write there; {folder} is kept."
        ) from error
    except Exception as error:  # its client for HTTP raises errors of its own
        reason = " ".join(str(error).split())[:200]
        raise UnavailableError(
            f"push={name}: the hub does not answer ({reason}): try again; {folder} is kept."
        ) from error
    return str(address)
