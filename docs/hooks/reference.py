"""The reference pages, made from the code and from ``conf/`` each time the documentation is built.

A setting's type, default and meaning are read from its dataclass or its part's signature, its range from the check that
holds it to that range. So no page repeats what stands in the code.
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

import griffe
import yaml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from mirror.config.checks import Rule
from mirror.config.compose import CONF, SCHEMAS
from mirror.config.parts import TARGET, located

WORKER = Path(__file__).with_name("worker.js")
RATE_MEANINGS = {
    "dropout": "Share of the network's units that are 0 in a training step.",
    "drophead": "Share of the attention heads that are 0 in a training step.",
    "layer_decay": "The rate of each layer over that of the layer above it; 1 is the same rate for all.",
    "scale_with_batch": "Batch that the rate is meant for: with another `batch.size` it grows in proportion.",
    "warmup_steps": "Steps in which the rate rises from 0.",
}
"""Settings that several files share, and no signature describes."""


class Setting(NamedTuple):
    """A row of a table."""

    name: str
    kind: str
    default: str
    range: str
    meaning: str


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages; called by mkdocs."""
    for name, content in pages().items():
        files.append(File.generated(config, f"reference/{name}.md", content=content))
    return files


def on_post_build(config: MkDocsConfig) -> None:
    """Put a script of our own in the place of the one that the theme would fetch from elsewhere; called by mkdocs.

    It serves the search in pages opened from the disk.
    """
    shim = WORKER.read_text(encoding="utf-8")
    for path in Path(config.site_dir).rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        written = re.sub(r'<script src="https://[^"]*"></script>', lambda _: f"<script>{shim}</script>", text)
        path.write_text(written, encoding="utf-8")


def pages() -> dict[str, str]:
    """The text of each page, by its name."""
    return {"settings": settings_page(), "options": options_page(), "recipes": recipes_page()}


def settings_page() -> str:
    """Every setting of every command."""
    parts = [
        "# Settings\n\nWritten as `section.name=value` behind a command. `null` is no value. Lists are written "
        "`[a,b]`. A setting without a section stands first.\n"
    ]
    for command, schema in SCHEMAS.items():
        parts.append(f"## `scripts/{command}.py`\n\n{prose(schema.__doc__)}\n")
        plain = [setting for setting in settings_of(schema) if setting is not None]
        parts.append(table(plain))
        for item in fields(schema):
            section = schema_of(schema, item)
            if section is not None:
                own = [Setting(f"{item.name}.{s.name}", *s[1:]) for s in settings_of(section)]
                parts.append(
                    f"### `{item.name}` {{#{command}-{item.name}}}\n\n{prose(section.__doc__)}\n\n{table(own)}"
                )
    return "\n".join(parts)


def settings_of(schema: type) -> list[Setting]:
    """The settings of a dataclass, without its sections."""
    meanings, ranges = comments(schema), checks(schema)
    hints = get_type_hints(schema)
    return [
        Setting(
            item.name,
            f"[part](options.md#{item.name})"
            if hints[item.name] is Any and item.name in groups()
            else shown_type(hints[item.name]),
            shown_default(item),
            ranges.get(item.name, ""),
            explained(meanings.get(item.name), hints[item.name]),
        )
        for item in fields(schema)
        if schema_of(schema, item) is None
    ]


def schema_of(schema: type, item: "Field[Any]") -> type | None:
    """The dataclass of a section, or None where the field is a setting."""
    hint = get_type_hints(schema)[item.name]
    return hint if is_dataclass(hint) and isinstance(hint, type) else None


def comments(schema: type) -> dict[str, str]:
    """The string under each field of a dataclass."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(schema))).body
    assert isinstance(tree, ast.ClassDef)
    return {
        field.target.id: inspect.cleandoc(text.value.value)
        for field, text in zip(tree.body, tree.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }


def checks(schema: type) -> dict[str, str]:
    """The range of each field that ``__post_init__`` holds to one."""
    check = schema.__dict__.get("__post_init__")
    if check is None:
        return {}
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(check))).body
    assert isinstance(tree, ast.FunctionDef)
    found = {}
    for name, words in _checked(tree.body, vars(inspect.getmodule(schema))):
        found[name.rpartition(".")[2]] = words
    return found


def _checked(body: list[ast.stmt], names: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Setting and range of each call of ``check``, ``limit`` and ``rate``, with loops over constants unrolled."""
    for statement in body:
        if isinstance(statement, ast.For):
            try:
                values = list(_value(statement.iter, names))
            except NameError:  # a loop over what the user typed
                continue
            for value in values:
                targets = statement.target.elts if isinstance(statement.target, ast.Tuple) else [statement.target]
                bound = value if isinstance(statement.target, ast.Tuple) else (value,)
                inner = {
                    target.id: one for target, one in zip(targets, bound, strict=True) if isinstance(target, ast.Name)
                }
                yield from _checked(statement.body, names | inner)
        for call in ast.walk(statement) if not isinstance(statement, ast.For) else ():
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name):
                if call.func.id == "check":
                    yield _value(call.args[1], names), _value(call.args[3], names)
                elif call.func.id == "limit":
                    yield _value(call.args[0], names), "at least 3, or null"
                elif call.func.id == "rate":
                    yield _value(call.args[0], names), "at least 0 and below 1"


def _value(node: ast.expr, names: dict[str, Any]) -> Any:
    return eval(compile(ast.Expression(node), "check", "eval"), names)


def shown_type(hint: Any) -> str:
    """A type as a reader of YAML writes it."""
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    if isinstance(hint, type) and issubclass(hint, Enum):
        return "choice"
    if hint is Any:
        return "part"
    arguments = list(get_args(hint))
    if arguments and get_origin(hint) in (list, tuple, Sequence):
        return f"list of {shown_type(arguments[0])}"
    if arguments and get_origin(hint) is dict:
        return f"{shown_type(arguments[0])}: {shown_type(arguments[1])}"
    if arguments:
        return " or ".join("null" if one is type(None) else shown_type(one) for one in arguments)
    return getattr(hint, "__name__", str(hint))


def explained(meaning: str | None, hint: Any) -> str:
    """What is said of a setting, and the values of an enumeration."""
    for kind in (hint, *get_args(hint)):
        if isinstance(kind, type) and issubclass(kind, Enum):
            values = ", ".join(f"`{member.value}`" for member in kind)
            return f"{meaning or inspect.cleandoc(kind.__doc__ or '')} One of {values}."
    return meaning or ""


def shown_default(item: "Field[Any]") -> str:
    """The default of a field, as YAML has it."""
    if item.default_factory is not MISSING:
        return shown(item.default_factory())
    return "(to be given)" if item.default == "???" else shown(item.default)


def shown(value: Any) -> str:
    """A value as YAML has it; nothing of an empty section."""
    if value in ({}, ""):
        return ""
    if isinstance(value, list | tuple):
        return f"`[{', '.join(shown(one).strip('`') for one in value)}]`"
    if isinstance(value, bool) or value is None:
        return f"`{'null' if value is None else str(value).lower()}`"
    return f"`{value.value if isinstance(value, Enum) else value}`"


def table(settings: list[Setting]) -> str:
    """The rows as Markdown."""
    if not settings:
        return ""
    head = "| setting | meaning | default | range | type |\n|---|---|---|---|---|\n"
    return head + "".join(
        f"| `{s.name}` | {cell(prose(s.meaning))} | {cell(s.default)} | {cell(s.range)} | {cell(s.kind)} |\n"
        for s in settings
    )


def cell(text: str) -> str:
    """Without what would end a cell."""
    return " ".join(text.split()).replace("|", "\\|")


def prose(text: str | None) -> str:
    """A docstring as Markdown: double backticks become single ones."""
    return inspect.cleandoc(text or "").replace("``", "`")


def options_page() -> str:
    """Every file of every group, and the settings of the parts among them."""
    parts = [
        "# Groups and their options\n\nA group chooses a file: `loss=queue`. What the file sets can be set alone: "
        "`loss.size=1000`. Files of your own join a group by `--config-dir` ([how](../howto/own-parts.md)).\n"
    ]
    for group in groups():
        parts.append(f"## `{group}`\n")
        for file in sorted((CONF / group).glob("*.yaml")):
            values = contents(file)
            parts.append(f"### `{group}={file.stem}` {{#{group.replace('/', '-')}-{file.stem}}}\n\n{heading(file)}\n")
            section = values.get("source", values) if group == "data" else values
            if isinstance(section, dict) and isinstance(section.get(TARGET), str):
                parts.append(table(part_settings(section, group)))
    return "\n".join(parts)


def groups() -> list[str]:
    """The groups, as they are typed."""
    found = [path for path in sorted(CONF.rglob("*")) if path.is_dir() and any(path.glob("*.yaml"))]
    names = [str(path.relative_to(CONF)) for path in found]
    return [name for name in names if name != "experiment"]


def contents(file: Path) -> dict[str, Any]:
    """The values of a file, on top of those that it takes over from others of its group."""
    own = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    taken = [name for name in own.pop("defaults", []) if isinstance(name, str) and name != "_self_"]
    return {key: value for name in taken for key, value in contents(file.with_name(f"{name}.yaml")).items()} | own


def heading(file: Path) -> str:
    """What the comments at the top of a file say, or else what it sets."""
    lines = file.read_text(encoding="utf-8").splitlines()
    told = [line.removeprefix("#").strip() for line in lines if line.startswith("#") and "@package" not in line]
    if told:
        return " ".join(told).replace("|", "\\|").replace("<", "&lt;")
    return "\n".join(["```yaml", *(line for line in lines if not line.startswith("#")), "```"])


def part_settings(section: dict[str, Any], group: str) -> list[Setting]:
    """The settings of a part, with the values of its file."""
    target = located(section, group)
    hints = get_type_hints(target.__init__ if inspect.isclass(target) else target, include_extras=True)
    meanings = arguments(target)
    rows = []
    for name, value in section.items():
        if name != TARGET:
            hint = hints.get(name, Any)
            words = [extra.words for extra in get_args(hint)[1:] if isinstance(extra, Rule)]
            plain = get_args(hint)[0] if get_origin(hint) is Annotated else hint
            meaning = explained(meanings.get(name) or RATE_MEANINGS.get(name), plain)
            setting = f"{group.rpartition('/')[2]}.{name}" if group != "model/pooling" else f"model.pooling.{name}"
            if group == "data":
                setting = f"data.source.{name}"
            rows.append(Setting(setting, shown_type(hint), shown(value), "".join(words), meaning))
    return rows


def arguments(target: Any) -> dict[str, str]:
    """What the docstrings of a class or function say of its arguments."""
    found: dict[str, str] = {}
    for source in (target, target.__init__) if inspect.isclass(target) else (target,):
        for section in griffe.Docstring(inspect.getdoc(source) or "").parse("google", warnings=False):
            if section.kind is griffe.DocstringSectionKind.parameters:
                found |= {item.name: item.description for item in section.value}
    return found


def recipes_page() -> str:
    """Each published recipe, with what it sets and where it differs from its source."""
    parts = [
        "# Recipes\n\n`experiment=NAME` sets what a paper sets; anything may be changed behind it. Each file names its "
        "source, and where it deviates.\n"
    ]
    for file in sorted((CONF / "experiment").glob("*.yaml")):
        lines = file.read_text(encoding="utf-8").splitlines()
        body = [line for line in lines if not line.startswith("#")]
        code = "\n".join(["```yaml", *body, "```"])
        parts.append(f"## `experiment={file.stem}` {{#{file.stem}}}\n\n{heading(file)}\n\n{code}\n")
    return "\n".join(parts)
