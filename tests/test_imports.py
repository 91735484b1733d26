"""The shape of the package: who may import whom, and what a light command must not import."""

import ast
import json
import os
import subprocess
import sys
import tomllib
from functools import cache

import pytest

from tests.conftest import ROOT

PACKAGE = ROOT / "mirror"
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
ROOMS = (
    "errors", "version", "runs", "config", "encoder", "adapt", "data", "losses", "evaluation", "report", "training",
    "pretraining", "search", "sweeps", "apply", "compress", "soup", "cli", "__main__",
)  # fmt: skip
"""The rooms in order: each may import from those before it, and none from those behind it."""
AT_HOME = {
    "pytorch_lightning": {"data", "training", "pretraining"},
    "lightning": set(),
    "hydra": {"config", "sweeps", "cli"},
    "omegaconf": {"config", "sweeps", "cli"},
    "wandb": {"training", "report", "runs"},
}
"""The rooms in which a library is imported."""
HEAVY = ("torch", "transformers", "pytorch_lightning", "datasets", "wandb")


@cache
def imports(module: str) -> frozenset[str]:
    """Everything a module imports, at its top or inside its functions, as full names."""
    found = set()
    for node in ast.walk(ast.parse(FILES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            assert node.module
            submodules = {f"{node.module}.{alias.name}" for alias in node.names} & FILES.keys()
            found |= submodules or {node.module}
    return frozenset(found)


def room(module: str) -> str:
    """The first part of a module's name within the package; the package itself is its own, above all."""
    return module.split(".")[1] if "." in module else module


@pytest.mark.parametrize("library", AT_HOME)
def test_library_is_imported_only_where_it_belongs(library: str) -> None:
    users = {room(module) for module in FILES if any(name.split(".")[0] == library for name in imports(module))}
    assert users <= AT_HOME[library]


def test_rooms_import_one_way() -> None:
    """A new file needs no entry here, a new room does."""
    assert {room(module) for module in FILES} - {"mirror"} == set(ROOMS)
    ranks = {name: rank for rank, name in enumerate(ROOMS)} | {"mirror": len(ROOMS)}
    against = [
        f"{module} imports {name}"
        for module in FILES
        for name in imports(module) & FILES.keys()
        if ranks[room(name)] > ranks[room(module)] and name != "mirror"
    ]
    assert against == []


def test_no_module_reaches_itself() -> None:
    """Imports inside functions included; ``mirror/__init__.py`` hands out the names of users only when asked."""

    def reached(module: str, seen: set[str]) -> set[str]:
        for name in (imports(module) & FILES.keys()) - {"mirror"} - seen:
            seen |= {name}
            reached(name, seen)
        return seen

    assert [module for module in FILES if module != "mirror" and module in reached(module, set())] == []


def test_no_test_imports_from_another_test() -> None:
    """What several need is in ``tests/helpers.py`` or beside them, and fixtures are in ``tests/conftest.py``."""
    found = [
        f"{path.relative_to(ROOT)}: {node.module}"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom)
        for name in (node.module or "", *(alias.name for alias in node.names))
        if name.split(".")[-1].startswith("test_")
    ]
    assert found == []


@pytest.mark.parametrize("module", FILES)
def test_module_says_what_it_is_for(module: str) -> None:
    assert ast.get_docstring(ast.parse(FILES[module].read_text(encoding="utf-8")))


def light(script: str, *arguments: str, **environment: str) -> tuple[str, list[str]]:
    """What a script prints, and the heavy libraries that it imported."""
    code = (
        "import json, runpy, sys\n"
        f"sys.argv = {[script, *arguments]!r}\n"
        f"try: runpy.run_path({str(ROOT / 'scripts' / script)!r}, run_name='__main__')\n"
        "except SystemExit: pass\n"
        f"print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stderr == ""
    printed, _, last = result.stdout.rstrip().rpartition("\n")
    return printed, json.loads(last)


@pytest.mark.parametrize(
    ("script", "argument", "expected"),
    [
        ("train.py", "--help", "deletion, drophead, mirror"),
        ("evaluate.py", "--cfg=job", "stsb-dev"),
        ("encode.py", "--help", "input: ???"),
        ("pretrain.py", "--help", "size: base, medium, mini"),
        ("search.py", "--cfg=job", "top: 5"),
    ],
)
def test_light_command_imports_nothing_heavy(script: str, argument: str, expected: str) -> None:
    printed, heavy = light(script, argument)
    assert expected in printed
    assert heavy == []


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("train.py temperature=", {"temperature=phrase", "temperature=sentence", "temperature=word"}),
        ("train.py select=", {"select=best", "select=last"}),
        ("train.py eval=none trainer.precision=b", {"trainer.precision=bf16"}),
        ("train.py batch.pack=", {"batch.pack=false", "batch.pack=true"}),
        ("train.py size", set()),  # a group of pretrain.py
        ("pretrain.py size", {"size="}),
        ("train.py [[=", set()),
        ("search.py two words top", set()),
    ],
)
def test_tab_completion(line: str, offered: set[str]) -> None:
    completion = ("--shell-completion", "query=bash")
    word = str(len(line.split()) - 1)
    printed, heavy = light(line.split()[0], *completion, COMP_LINE=line, COMP_POINT=str(len(line)), COMP_CWORD=word)
    assert set(printed.split()) == offered
    assert heavy == []


def test_package_hands_out_its_names() -> None:
    import mirror
    from mirror.encoder.encoder import MirrorEncoder
    from mirror.training.tune import mirror_tune

    assert (mirror.MirrorEncoder, mirror.mirror_tune) == (MirrorEncoder, mirror_tune)


def test_unknown_name_of_the_package() -> None:
    import mirror

    with pytest.raises(AttributeError, match="nonsense"):
        _ = mirror.nonsense


def test_files_are_found() -> None:
    assert FILES["mirror.evaluation"].name == "__init__.py"
    assert {"mirror.training.run", "mirror.evaluation.sets.sts"} <= FILES.keys()


def test_no_garbage_is_looked_for_among_what_was_imported() -> None:
    """That takes seconds at the start and at the exit; afterwards garbage is collected again."""
    code = (
        "import gc; from mirror.cli.start import importing\n"
        "with importing(): inside = gc.isenabled()\n"
        "print(inside, gc.isenabled(), gc.get_freeze_count() > 0)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["False", "True", "True"]


def test_the_package_itself_lists_the_commands_that_are_installed() -> None:
    installed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    shown = subprocess.run([sys.executable, "-m", "mirror"], capture_output=True, text=True, check=True).stdout
    assert {word for word in shown.split() if word.startswith("mirror-")} == installed.keys()
