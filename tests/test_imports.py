"""The shape of the package: who may import whom, and what a light command must not import."""

import ast
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGE = ROOT / "mirror"
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
FACADE = "mirror"
"""``mirror/__init__.py`` hands out the names of users, each imported when it is asked for; its place is above all."""
ALLOWED = {
    "pytorch_lightning": {
        "mirror.batches",
        "mirror.fit",
        "mirror.hardware",
        "mirror.module",
        "mirror.pretraining.corpus",
        "mirror.pretraining.module",
        "mirror.pretraining.run",
        "mirror.pruning",
        "mirror.resume",
        "mirror.run",
        "mirror.trackers",
        "mirror.trainer",
        "mirror.watch",
    },
    "lightning": set(),
    "hydra": {"mirror.compose", "mirror.cli"},
    "omegaconf": {"mirror.config", "mirror.compose", "mirror.cli"},
    "wandb": {"mirror.trackers"},
}
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


@pytest.mark.parametrize("library", ALLOWED)
def test_library_is_imported_only_where_it_belongs(library: str) -> None:
    users = {module for module in FILES if any(name.split(".")[0] == library for name in imports(module))}
    assert users <= ALLOWED[library]


def test_imports_point_one_way() -> None:
    """No module reaches itself, imports inside functions included."""

    def reached(module: str, seen: set[str]) -> set[str]:
        for name in (imports(module) & FILES.keys()) - {FACADE} - seen:
            seen |= {name}
            reached(name, seen)
        return seen

    assert [module for module in FILES if module != FACADE and module in reached(module, set())] == []


def test_layers() -> None:
    """config <- parts <- module <- run <- cli."""
    assert imports("mirror.config") & FILES.keys() == {"mirror.errors"}
    top = ["mirror.module", "mirror.fit", "mirror.run", "mirror.apply", "mirror.pretraining.run", "mirror.cli"]
    parts = FILES.keys() - {FACADE, *top}
    assert [(part, name) for part in parts for name in imports(part) if name in top] == []
    assert not imports("mirror.module") & {"mirror.run", "mirror.apply", "mirror.cli"}
    assert "mirror.cli" not in imports("mirror.run") | imports("mirror.apply")


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
        ("train.py", "--help", "aug: drophead, mirror"),
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


def test_tab_completion() -> None:
    line = "train.py temperature="
    completion = ("--shell-completion", "query=bash")
    printed, heavy = light("train.py", *completion, COMP_LINE=line, COMP_POINT=str(len(line)), COMP_CWORD="1")
    assert set(printed.split()) == {"temperature=phrase", "temperature=sentence", "temperature=word"}
    assert heavy == []


def test_package_hands_out_its_names() -> None:
    import mirror
    from mirror.encoder import MirrorEncoder
    from mirror.run import mirror_tune

    assert (mirror.MirrorEncoder, mirror.mirror_tune) == (MirrorEncoder, mirror_tune)


def test_unknown_name_of_the_package() -> None:
    import mirror

    with pytest.raises(AttributeError, match="nonsense"):
        _ = mirror.nonsense


def test_files_are_found() -> None:
    assert Path(FILES["mirror.evaluation"]).name == "__init__.py"
    assert {"mirror.run", "mirror.evaluation.sts"} <= FILES.keys()


def test_no_garbage_is_looked_for_among_what_was_imported() -> None:
    """That takes seconds at the start and at the exit; afterwards garbage is collected again."""
    code = (
        "import gc; from mirror.cli import _importing\n"
        "with _importing(): inside = gc.isenabled()\n"
        "print(inside, gc.isenabled(), gc.get_freeze_count() > 0)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["False", "True", "True"]
