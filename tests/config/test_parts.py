"""A part's file lists every setting of its signature, with the signature's own default."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from mirror.config.compose import CONF
from mirror.config.parts import TARGET, build, located
from mirror.errors import MirrorError
from mirror.losses.base import Loss

FILES = sorted(CONF.glob("*/**/*.yaml"))
HANDED_IN = {
    "aug": {"layout", "max_tokens", "template"}, "loss": {"embedder"}, "auxiliary": {"embedder"},
    "pooling": {"hidden", "layers", "mask_id"}, "post": {"vectors"}, "head": {"dimension"},
    "optim": {"params", "hidden"}, "adapt": {"seed", "epoch_steps"},
    "schedule": {"optimizer", "steps"}, "data": {"language", "size", "path"},
    "objective": {"model", "encoder", "dropout"},
}  # fmt: skip
"""By group, what a run knows itself."""
MORE = {"aug": {"dropout", "drophead"}, "optim": {"layer_decay", "scale_with_batch"}}
"""By group, settings beside those of the part."""


def parts(file: Path) -> dict[str, Any]:
    content = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    assert isinstance(content, dict)
    section: Any = content.get("source", content) if file.parent.name == "data" else content
    return section if str(section.get(TARGET)).startswith("mirror.") else {}


@pytest.mark.parametrize("file", [file for file in FILES if parts(file)], ids=lambda file: file.stem)
def test_a_parts_file_lists_its_settings_with_their_defaults(file: Path) -> None:
    group, section = file.parent.name, parts(file)
    parameters = inspect.signature(located(section, group)).parameters
    settings = section.keys() - {TARGET} - MORE.get(group, set())
    assert settings == parameters.keys() - HANDED_IN.get(group, set())
    for name in settings:
        default = parameters[name].default
        if default is inspect.Parameter.empty or str(section[name]).startswith("${"):
            continue  # the signature leaves it to the file, or the file to another setting
        default = getattr(default, "value", default)
        assert section[name] == (list(default) if isinstance(default, tuple) else default), name


def test_a_class_of_another_kind_is_not_even_called(tmp_path: Path) -> None:
    marker = tmp_path / "written"
    with pytest.raises(MirrorError, match=r"makes a FileHandler, not a mirror\.losses\.base\.Loss"):
        build({TARGET: "logging.FileHandler", "filename": str(marker)}, "loss", Loss)
    assert not marker.exists()


def test_a_function_that_makes_another_kind() -> None:
    with pytest.raises(MirrorError, match=r"makes a Tensor, not a mirror\.losses\.base\.Loss"):
        build({TARGET: f"{__name__}.nothing_of_the_kind"}, "loss", Loss)


def nothing_of_the_kind() -> Any:
    return torch.ones(())
