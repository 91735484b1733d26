"""Parts: what a researcher chooses or replaces, named by ``_target_`` in a YAML file, such as a loss or a pooling.

A part is a class or a function. Its settings are the arguments of its signature, with their types; the YAML file gives
their values. What a run itself knows (the encoder, the number of steps) is handed in by name where the signature asks
for it. Mirror's own parts and a user's are built here in the same way:

    # conf/loss/mine.yaml, used as: --config-dir=conf loss=mine loss.margin=0.2
    _target_: my_package.MyLoss
    margin: 0.1
"""

import difflib
import inspect
from collections.abc import Callable, Container, Mapping
from dataclasses import field, make_dataclass
from importlib import import_module
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mirror.config.checks import Rule, check, needed
from mirror.errors import MirrorError

TARGET = "_target_"


T = TypeVar("T")


def build(section: Mapping[str, Any], setting: str, contract: type[T], **given: Any) -> T:
    """Build the part that a section of the settings describes.

    Args:
        section: ``_target_`` and the part's settings.
        setting: the name of the section, such as ``loss``, for error messages.
        contract: the class that the part must be of; ``object`` is any.
        given: arguments from the run; only those that the signature names are passed on.

    Raises:
        MirrorError: the target cannot be imported, its signature does not take the settings, or it makes something
            else.
    """
    target, arguments = _checked(section, setting, given)

    if isinstance(target, type) and not issubclass(target, contract):  # before any of its code runs
        raise _unfit(section, setting, target, contract)
    parameters = inspect.signature(target).parameters
    part = target(**arguments, **{name: value for name, value in given.items() if name in parameters})
    if not isinstance(part, contract):
        raise _unfit(section, setting, type(part), contract)
    return part


def _unfit(section: Mapping[str, Any], setting: str, kind: type, contract: type) -> MirrorError:
    return MirrorError(
        f"{setting}.{TARGET}={section[TARGET]} makes a {kind.__name__}, not a "
        f"{contract.__module__}.{contract.__qualname__}: derive its class from that."
    )


def check_part(section: Mapping[str, Any], setting: str, *given: str) -> None:
    """Check a section, and the parts within it, against their signatures without building them; ``given`` names the
    run's own arguments.

    Raises:
        MirrorError: the target cannot be imported, or its signature does not take the settings.
    """
    _, arguments = _checked(section, setting, given)
    for argument, value in arguments.items():
        for name, inner in value.items() if isinstance(value, Mapping) else ():
            if isinstance(inner, Mapping) and TARGET in inner:
                check_part(inner, f"{setting}.{argument}.{name}", *given)


def located(section: Any, setting: str) -> Callable[..., Any]:
    """Import what ``_target_`` names.

    Raises:
        MirrorError: it is missing, or cannot be imported.
    """
    path = section.get(TARGET) if isinstance(section, Mapping) else None
    if not isinstance(path, str) or "." not in path:
        raise MirrorError(
            f"{setting} names no part: choose a file of the group, as in {setting}=NAME, or give {setting}.{TARGET}=…, "
            "the full name of a class or function."
        )
    module, _, name = path.rpartition(".")
    try:
        target: Callable[..., Any] = getattr(import_module(module), name)
    except AttributeError as error:
        raise MirrorError(
            f"{setting}.{TARGET}={path} cannot be imported ({error}): look at how it is spelt in {module}."
        ) from error
    except ImportError as error:
        raise MirrorError(
            f"{setting}.{TARGET}={path} cannot be imported ({error}): install its package, or start the command in the "
            "folder that holds it."
        ) from error
    if not callable(target):
        raise MirrorError(f"{setting}.{TARGET}={path} is neither a class nor a function.")
    return target


def described(section: Mapping[str, Any] | None) -> str:
    """A part in a line: its name and its settings."""
    if not section:
        return "none"
    settings = ", ".join(f"{name} {_shown(value)}" for name, value in section.items() if name != TARGET)
    return f"{part_name(section)} ({settings})" if settings else part_name(section)


def part_name(section: Mapping[str, Any]) -> str:
    """What a part is called in tables: its class or function."""
    return str(section.get(TARGET)).rpartition(".")[2]


def _shown(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def _checked(section: Any, setting: str, given: Container[str]) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The target, and the section's settings as its signature has them; ``given`` are the names that the run hands
    in."""
    target = located(section, setting)
    try:
        parameters = inspect.signature(target).parameters.values()
    except ValueError as error:  # written in C
        raise MirrorError(f"{setting}.{TARGET}={section[TARGET]} has no signature to check: wrap it.") from error
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    known = {p.name: p for p in parameters if p.kind not in several and p.name not in given}
    settings = {name: value for name, value in section.items() if name != TARGET}
    unknown = [name for name in settings if name not in known]
    if unknown and not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
        close = difflib.get_close_matches(unknown[0], known, n=1)
        advice = f"did you mean {setting}.{close[0]}?" if close else f"it has {', '.join(known) or 'none'}."
        raise MirrorError(f"{setting}.{unknown[0]} is no setting of {section[TARGET]}; {advice}")
    missing = [name for name, p in known.items() if p.default is inspect.Parameter.empty and name not in settings]
    if missing:
        raise MirrorError(
            f"{setting}.{missing[0]} is not set: {section[TARGET]} needs it, add {setting}.{missing[0]}=…."
        )
    hints = _hints(target)
    return target, {
        name: _converted(value, hints.get(name, Any), f"{setting}.{name}") for name, value in settings.items()
    }


def _hints(target: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(target.__init__ if inspect.isclass(target) else target, include_extras=True)
    except (NameError, TypeError):  # names that exist for type checkers alone
        return {}


def _converted(value: Any, hint: Any, setting: str) -> Any:
    """A value converted to its type hint by OmegaConf's rules, like mirror's other settings; ``Rule``s are checked.

    Raises:
        MirrorError: it does not fit.
    """
    hint, *extras = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    try:
        schema = OmegaConf.structured(make_dataclass("Argument", [("value", hint, field(default="???"))]))
    except (OmegaConfBaseException, ValueError, TypeError):  # a type that OmegaConf does not know
        converted = value
    else:
        try:
            argument: Any = OmegaConf.to_object(OmegaConf.merge(schema, {"value": value}))
        except OmegaConfBaseException as error:
            reason = str(error).splitlines()[0]
            told = f"it must be {words}." if (words := needed(reason)) else reason
            raise MirrorError(f"{setting}={value} does not fit: {told}") from error
        converted = argument.value
    for rule in extras:
        if isinstance(rule, Rule) and converted is not None:
            check(rule.holds(converted), setting, converted, rule.words)
    return converted
