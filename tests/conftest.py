"""Where the tests find real data and models, and small stand-ins built on the spot."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("MIRROR_DATA", ROOT / ".." / "shared" / "data")).resolve()
MODELS = Path(os.environ.get("MIRROR_MODELS", ROOT / ".." / "shared" / "models")).resolve()

# The tests never ask the hub: nothing they need is there, and a retry costs half a minute.
os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Real test sets and corpora."""
    if not (DATA / "sts").is_dir():
        pytest.skip(f"no test data in {DATA}: set MIRROR_DATA to a folder with sts/, word/ and corpora/")
    return DATA


@pytest.fixture(scope="session")
def draft_model() -> Path:
    """A small real masked language model."""
    folder = MODELS / "wiki-mini-draft"
    if not folder.is_dir():
        pytest.skip(f"no model in {folder}: set MIRROR_MODELS to a folder that holds wiki-mini-draft")
    return folder
