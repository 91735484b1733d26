"""What Hydra and OmegaConf say, in mirror's words."""

import difflib
import re
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from mirror.config.checks import needed
from mirror.config.suited import CONF


def reworded(text: str, key: str | None, overrides: Sequence[str]) -> str:
    """What Hydra says of a value, a choice or its grammar, in mirror's words; anything else as it is."""
    if wanted := needed(text):
        merged, file = (re.search(found, text) for found in (r"Error merging override (.*?): ", r"In '([^']+)'"))
        what = merged[1] if merged else key or "A value"
        return f"{what}{f' in {file[1]}.yaml' if file else ''} does not fit: it must be {wanted}."
    for override in overrides:
        group, _, value = override.partition("=")
        if "Config group override must be" in text and (value in ("null", "") or not group):
            return f"{override} is no option: choose {group or 'GROUP'}={', '.join(options(group) or ['NAME'])}."
        if override.startswith("~") and override in text:
            return f"{override} takes away what every run has: give it another value instead."
    if several := re.search(r"(?:Ambiguous value for argument|Sweep parameters) '(\S+?)'", text):
        return (
            f"{several[1]} has several values: add -m to run with each of them, or write the value in brackets for a "
            "list, or in quotes within quotes for a text."
        )
    if lost := re.search(r"Interpolation key '(.*?)' not found|Unsupported interpolation type (\w+)", text):
        return (
            f"{key or 'A value'}: ${{{lost[1] or f'{lost[2]}:…'}}} names no setting: give a value, or a setting's name."
        )
    if missing := re.search(r"Cannot find primary config '(.*?)'|Additional config directory '(.*?)' not found", text):
        return f"There is no {missing[1] or missing[2]}: give a file of conf, or of the folder of --config-dir."
    if "Unable to configure" in text:
        return "hydra.job_logging or hydra.hydra_logging cannot be used: levels are DEBUG, INFO, WARNING and ERROR."
    if choice := re.search(r"Could not find '(.+)/([^/']*)'.*Available options in '.*?': *(.*)", text):
        close = difflib.get_close_matches(choice[2], choice[3].split(), n=1)
        meant = f"; did you mean {choice[1]}={close[0]}? Else" if close else ":"
        return f"{choice[1]}={choice[2]} is no option{meant} choose {choice[1]}={', '.join(choice[3].split())}."
    if "hydra.cc/docs" in text and (wrong := _unreadable(overrides)):
        return (
            f"{wrong} cannot be read: write NAME=VALUE, and put a value that holds other signs than letters, digits "
            "and those of paths in quotes within quotes, as in \"data.path='my texts.txt'\"."
        )
    return text


def options(group: str) -> list[str]:
    """The files of a group."""
    return sorted(file.stem for file in (CONF / group).glob("*.yaml")) if group else []


def _unreadable(overrides: Sequence[str]) -> str | None:
    """The first argument that is against Hydra's grammar."""
    parser = OverridesParser.create()
    for override in overrides:
        try:
            parser.parse_override(override)
        except HydraException:
            return override
    return None
