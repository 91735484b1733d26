"""The YAML files of the view makers list every setting, with the default of the signature."""

import inspect

import pytest
from omegaconf import OmegaConf

from mirror.config.compose import CONF
from mirror.config.parts import TARGET, located
from mirror.config.sections import RATES


@pytest.mark.parametrize(
    "name", ["mirror", "repetition", "deletion", "shuffle", "crop", "cutoff", "spans", "prompt", "code"]
)
def test_yaml_lists_the_signature(name: str) -> None:
    section = OmegaConf.to_container(OmegaConf.load(CONF / "aug" / f"{name}.yaml"))
    assert isinstance(section, dict)
    assert {key: section.pop(key) for key in RATES} == RATES
    maker = located(section, "aug")
    assert isinstance(maker, type)
    parameters = inspect.signature(maker).parameters if "__init__" in vars(maker) else {}
    defaults = {
        key: getattr(p.default, "value", p.default)
        for key, p in parameters.items()
        if key not in ("layout", "max_tokens", "template")
    }
    assert {str(key): value for key, value in section.items() if key != TARGET} == defaults
