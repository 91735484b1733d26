"""Tab completion by Hydra, which knows one value of each setting, and the groups of all commands."""

from typing import Any

from hydra.plugins.completion_plugin import CompletionPlugin
from omegaconf import BooleanNode, DictConfig, EnumNode, OmegaConf

from mirror.config.compose import COMPOSITION_ERRORS, groups

FLAGS = {"-sc", "--shell-completion"}


def complete_own(name: str) -> None:
    """Let Hydra offer every value that a setting of a few words takes, and the groups of the command ``name`` alone;
    nothing behind what it cannot read."""
    plugin: Any = CompletionPlugin
    ask, ask_groups, matches = plugin._query, plugin._query_config_groups, plugin._get_matches
    own = {"hydra"}.union(*(_parents(group) for group in groups(name)))

    def of_command(self: Any, word: str, *arguments: Any, **named: Any) -> tuple[list[str], bool]:
        found, exact = ask_groups(self, word, *arguments, **named)
        return [match for match in found if match.lstrip("+~").partition("=")[0].rstrip("/") in own], exact

    def with_values(config: Any, word: str) -> list[str]:
        key, given, begun = word.partition("=")
        values = _values(config, key) if given else []
        return [f"{key}={value}" for value in values if value.startswith(begun)] or matches(config, word)

    def quietly(self: Any, *arguments: Any, **named: Any) -> list[str]:
        try:
            found: list[str] = ask(self, *arguments, **named)
        except COMPOSITION_ERRORS:
            return []
        return found

    plugin._query, plugin._query_config_groups, plugin._get_matches = quietly, of_command, staticmethod(with_values)


def _parents(group: str) -> set[str]:
    parts = group.split("/")
    return {"/".join(parts[: i + 1]) for i in range(len(parts))}


def _values(config: Any, key: str) -> list[str]:
    """The values of a setting that is one of a few words, or a switch."""
    parent, _, last = key.rpartition(".")
    section = OmegaConf.select(config, parent) if parent else config
    node = section._get_node(last) if isinstance(section, DictConfig) else None
    if isinstance(node, EnumNode):
        return [member.name for member in node.enum_type]
    return ["true", "false"] if isinstance(node, BooleanNode) else []
