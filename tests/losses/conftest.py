"""A small model that scores pairs."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def cross_encoder(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cross-encoder with random weights, as sentence-transformers saves it."""
    import torch

    cross = pytest.importorskip("sentence_transformers.cross_encoder")
    folder = tmp_path_factory.mktemp("cross") / "encoder"
    torch.manual_seed(0)
    cross.CrossEncoder(str(tiny_bert), num_labels=1, device="cpu").save_pretrained(str(folder))
    return folder
