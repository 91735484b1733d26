"""From the command line and the YAML files under ``conf/`` to settings; Hydra's errors become one sentence."""

import dataclasses
import difflib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_type_hints

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from mirror.config import (
    EncodeConfig,
    EvaluateConfig,
    ExportConfig,
    ModelConfig,
    PretrainConfig,
    ReportConfig,
    SearchConfig,
    SoupConfig,
    TrainConfig,
)
from mirror.config.parts import TARGET
from mirror.config.suited import CONF as CONF
from mirror.config.suited import suited
from mirror.config.wording import options, reworded
from mirror.errors import MirrorError
from mirror.runs.record import METRICS
from mirror.runs.registry import identity

SCHEMAS = {
    "train": TrainConfig,
    "evaluate": EvaluateConfig,
    "encode": EncodeConfig,
    "pretrain": PretrainConfig,
    "search": SearchConfig,
    "report": ReportConfig,
    "soup": SoupConfig,
    "export": ExportConfig,
}
"""The primary configurations, ``conf/<name>.yaml``, and what they become."""
NUMBER_OF = {"temperature": "loss.temperature", "data_size": "data.size"}
"""Groups whose options stand for a number, with the setting that takes any other number."""
MOVED = {
    "optim=linear": "schedule=linear",
    "optim.schedule": "schedule=, as in schedule=linear",
    "optim.warmup_steps": "schedule.warmup_steps=",
    "sweep=search": "sweep=optuna",
    "data.builtin": "data=words or data=pydocs",
}
"""Former spellings, with what to write now."""
PARTS = ("aug", "perturb", "loss", "auxiliary", "head", "post", "adapt", "objective", "optim", "schedule")
"""Sections that are parts; the files of their groups list their settings."""
FREE_ON_RESUME = ("trainer.", "logger.", "checkpoint_every", "resume", "hydra.")
"""Settings that may differ between a run and its continuation."""
# Hydra raises a plain ValueError where a group is given a number.
COMPOSITION_ERRORS = (HydraException, OmegaConfBaseException, ValueError)


def register_schemas() -> None:
    """Make the dataclasses known to Hydra; ``conf/*.yaml`` name them first in their defaults lists."""
    # Hydra copies the store for every group that --help lists. Sharing it is safe: what is loaded from it is a copy.
    setattr(ConfigStore, "__deepcopy__", lambda store, _: store)  # noqa: B010 - mypy knows no such method
    for name, schema in SCHEMAS.items():
        ConfigStore.instance().store(name=f"{name}_schema", node=schema)
    OmegaConf.register_new_resolver("run_folder", lambda resumed, new: resumed or new, replace=True)
    OmegaConf.register_new_resolver("run_id", lambda *, _root_: run_id(_root_), replace=True)
    OmegaConf.register_new_resolver("suited", lambda path, key: getattr(suited(path), key), replace=True)
    OmegaConf.register_new_resolver("own_groups", own_groups, replace=True)
    OmegaConf.register_new_resolver("sweep_name", lambda choice: choice or "unnamed", replace=True)


def run_id(config: DictConfig) -> str:
    """The identity of a composed configuration, by which a sweep recognises its runs; ranges are not checked."""
    # Without the node hydra, which holds the folder that is named after this.
    values: Any = OmegaConf.to_container(
        OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"]), resolve=True, enum_to_str=True
    )
    return identity(values)


def compose(name: str, overrides: Sequence[str]) -> Any:
    """The settings that a command line would give.

    Raises:
        MirrorError: an override does not fit.
    """
    register_schemas()
    running = GlobalHydra.instance().hydra  # a program that calls this may be a Hydra application itself
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            return settings(hydra.compose(name, overrides=list(overrides)))
    except COMPOSITION_ERRORS as error:
        raise MirrorError(one_sentence(error, name, overrides)) from error
    finally:
        GlobalHydra.instance().hydra = running


def quoted(text: str) -> str:
    """A text as a value on the command line, whatever characters it holds."""
    escaped = re.sub(r"\\+(?=\\|'|$)", lambda found: found[0] * 2, text).replace("'", "\\'")
    return "'" + escaped.replace("${", "\\${") + "'"


def settings(config: DictConfig) -> Any:
    """Turn a composed configuration into its dataclass, ranges checked.

    Raises:
        MirrorError: a value is missing, of the wrong type, or out of range.
    """
    if stray := next(_strays(config), None):
        raise MirrorError(
            _unknown(stray, next(name for name in SCHEMAS if SCHEMAS[name] is OmegaConf.get_type(config)))
        )
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise MirrorError(f"{missing[0]} is not set: add {missing[0]}=… to the command.")
    try:
        return OmegaConf.to_object(config)
    except OmegaConfBaseException as error:
        if isinstance(error.__cause__, MirrorError):
            raise error.__cause__ from None
        reason = str(error).splitlines()[0]
        raise MirrorError(f"The configuration does not fit: {reworded(reason, error.full_key, [])}") from error


def _strays(section: DictConfig, prefix: str = "") -> Iterator[str]:
    """Keys that ``+`` added to a section whose settings its dataclass lists; a part checks its own."""
    schema: Any = OmegaConf.get_type(section)
    if not dataclasses.is_dataclass(schema):
        return
    known = {field.name for field in dataclasses.fields(schema)}
    for key in map(str, section):
        if key not in known and not (key == "hydra" and not prefix):
            yield prefix + key
        elif dataclasses.is_dataclass(OmegaConf.get_type(section, key)):
            yield from _strays(section[key], f"{prefix}{key}.")


def named_model(name: str) -> str | None:
    """The model path in a file of the group ``model``, such as ``mini``; None if there is no such file, or if a path of
    that name exists."""
    file = CONF / "model" / f"{name}.yaml"
    if not re.fullmatch(r"\w+", name) or Path(name).exists() or not file.is_file():
        return None
    values: Any = OmegaConf.load(file)
    return str(values.get("path", ModelConfig.path))


def resumed(name: str, folder: Path, overrides: Sequence[str]) -> Any:
    """The settings that the run of ``name`` in ``folder`` began with, and what the new command line adds to them.

    Raises:
        MirrorError: the run left no settings, or the command line changes what a run cannot change in its middle.
    """
    try:
        stored = json.loads((folder / METRICS).read_text(encoding="utf-8"))["config"]
        known = {field.name for field in dataclasses.fields(SCHEMAS[name])}
        others = stored.keys() - known
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise MirrorError(
            f"resume={folder}: {METRICS} is missing or damaged, so its settings are lost: start a new run."
        ) from error
    if others:
        raise MirrorError(f"resume={folder} is no run of scripts/{name}.py: go on with the command that began it.")
    fixed = [override for override in overrides if not override.lstrip("+").startswith(FREE_ON_RESUME)]
    if fixed:
        raise MirrorError(
            f"{fixed[0]} cannot be changed by resume={folder}, which goes on with the settings it began with: leave "
            "it out, or start a new run."
        )
    added = OmegaConf.from_dotlist([override for override in overrides if not override.startswith("hydra.")])
    try:
        merged = OmegaConf.merge(OmegaConf.structured(SCHEMAS[name]), stored, added)
    except OmegaConfBaseException as error:
        reason = reworded(str(error).splitlines()[0], error.full_key, [])
        raise MirrorError(f"resume={folder}: {reason}") from error
    assert isinstance(merged, DictConfig)
    return settings(merged)


def one_sentence(error: BaseException, name: str, overrides: Sequence[str]) -> str:
    """What Hydra found wrong with a command line, in one sentence."""
    cause: BaseException | None = error
    while cause is not None:  # a resolver of ours says it best itself
        if isinstance(cause, MirrorError):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    for override in overrides:
        group, _, value = override.partition("=")
        if now := MOVED.get(override, MOVED.get(group.lstrip("+"))):
            return f"{override} is written {now} now."
        if group and (CONF / group).is_dir() and re.fullmatch(r"[-+.\de]+|true|false", value, re.IGNORECASE):
            number = f"; for a number write {NUMBER_OF[group]}={value}" if group in NUMBER_OF else ""
            return f"{override} is no option: choose {group}={', '.join(options(group))}{number}."
        # Hydra's own advice in these two cases, to add or leave out a +, leads to the next error.
        if group in groups(name) and value.startswith("{"):
            return f"{override} does not fit: choose a file, {group}=NAME, or set one value, as in {group}.NAME=VALUE."
        if (CONF / group).is_dir() and f"Could not override '{group}'" in str(error):
            return f"{group} is a group of another command than scripts/{name}.py: leave it out."
        if f"An item is already at '{group.removeprefix('+')}'" in str(error):
            return f"{override} is set already: write it without the +."
    # What OmegaConf refuses while Hydra composes is the context of Hydra's error, and alone knows the key.
    inner = error if isinstance(error, OmegaConfBaseException) else error.__context__
    key = inner.full_key if isinstance(inner, OmegaConfBaseException) else None
    if key and isinstance(inner, ConfigAttributeError | ConfigKeyError):
        return _unknown(key, name)
    texts: list[str] = []
    for cause in (error, inner) if key else (error,):
        # Hydra appends its search path, OmegaConf the full key and its types.
        text, _, _ = str(cause).partition("Config search path:")[0].partition("\n    full_key:")
        text = " ".join(text.split())
        if not any(text in other for other in texts):
            texts.append(text)
    if key and not any(key in text for text in texts):
        texts.insert(-1, key)
    return reworded(": ".join(texts), key, overrides)


def _unknown(key: str, name: str) -> str:
    """What to say of a key that is neither a setting nor a group of ``conf/<name>.yaml``."""
    if close := difflib.get_close_matches(key, [*_names(SCHEMAS[name]), *_part_names(), *groups(name)], n=1):
        return f"{key} is no setting; did you mean {close[0]}?"
    if name == "search":  # what was typed may be a question
        return f"{key} is no setting; a question with = in it is given as \"query='…'\"."
    return f"{key} is no setting; --cfg job prints them all."


def groups(name: str) -> list[str]:
    """The groups of ``conf/<name>.yaml``."""
    defaults: Any = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    return [group for entry in defaults["defaults"] if isinstance(entry, dict) for group in entry]


def own_groups(name: str) -> str:
    """The groups of a command with their options, a line each, for its help."""
    found = {group: options(group) for group in groups(name)}
    return "\n".join(f"{group}: {', '.join(options)}" for group, options in found.items() if options)


def _part_names() -> Iterator[str]:
    """The settings that the files of mirror's parts list."""
    for section in PARTS:
        for file in sorted((CONF / section).glob("*.yaml")):
            values: Any = OmegaConf.to_container(OmegaConf.load(file))
            yield from (f"{section}.{key}" for key in values if key not in ("defaults", TARGET))


def _names(schema: Any, prefix: str = "") -> Iterator[str]:
    """The full names of all settings."""
    hints = get_type_hints(schema)
    for field in dataclasses.fields(schema):
        if dataclasses.is_dataclass(hints[field.name]):
            yield from _names(hints[field.name], f"{prefix}{field.name}.")
        else:
            yield prefix + field.name
