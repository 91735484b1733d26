"""The documentation: its tutorials run as they stand, its commands compose, its reference leaves nothing out."""

import os
import re
import shlex
import subprocess
import sys
from dataclasses import fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

import pytest

from mirror.config.compose import CONF, SCHEMAS
from tests.commands import Command
from tests.conftest import ROOT, SENTENCES

DOCS = ROOT / "docs"
TUTORIALS = [
    path for path in sorted((DOCS / "tutorials").glob("*.md")) if "```bash" in path.read_text(encoding="utf-8")
]
FENCED = re.compile(r"^```(bash|python|sh)\n(.*?)^```", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"(?:python scripts/|mirror-)(\w+)(?:\.py)?")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that looks like the project's own, and is empty of outputs."""
    for entry in ("scripts", "mirror", "hydra_plugins", "conf"):
        (tmp_path / entry).symlink_to(ROOT / entry)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MIRROR_DATA", raising=False)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("tutorial", TUTORIALS, ids=lambda path: path.stem)
def test_tutorial(tutorial: Path, here: Path) -> None:
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(here), os.environ.get("PYTHONPATH", "")]),
    }
    for language, code in FENCED.findall(tutorial.read_text(encoding="utf-8")):
        if language != "sh":  # sh is shown: it needs the hub, or texts of the reader
            shell = ["bash", "-euc", code] if language == "bash" else [sys.executable, "-c", code]
            result = subprocess.run(shell, cwd=here, env=environment, capture_output=True, text=True, timeout=600)
            assert result.returncode == 0, f"{code}\n{result.stdout[-2000:]}\n{result.stderr[-3000:]}"
            assert "Traceback" not in result.stderr


def shown_commands() -> list[str]:
    """Each training command that a page shows."""
    found = []
    for page in sorted(DOCS.rglob("*.md")):
        for _, code in FENCED.findall(page.read_text(encoding="utf-8")):
            found += [line for line in code.replace("\\\n", " ").splitlines() if "scripts/train.py" in line]
    return list(dict.fromkeys(found))


@pytest.mark.parametrize("command", [line for line in shown_commands() if "--config-dir" not in line])
def test_shown_command_composes(command: str) -> None:
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    from mirror.config.compose import register_schemas, settings
    from mirror.training.parts import check_parts

    words = shlex.split(command.partition("scripts/train.py")[2], comments=True)
    # Several values of an axis, and ranges of a search, are a sweep's: each command composes with the first of them.
    typed = [word for word in words if "=" in word and not word.startswith(("hydra", "+hydra", "sweep=", "resume="))]
    single = [re.sub(r"=(?!\[)([^,(]*),.*", r"=\1", word) for word in typed if "interval(" not in word]
    register_schemas()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        check_parts(settings(compose("train", overrides=single)))


def other_commands() -> list[str]:
    """Each command that a page shows of those that use encoders."""
    pages = [page.read_text(encoding="utf-8") for page in sorted(DOCS.rglob("*.md"))]
    lines = [line for page in pages for _, code in FENCED.findall(page) for line in code.splitlines()]
    shown = re.compile(r"scripts/(evaluate|encode|search|export|soup)\.py")
    return list(dict.fromkeys(line for line in lines if shown.search(line)))


@pytest.mark.parametrize("line", other_commands())
def test_other_shown_command_composes(line: str) -> None:
    from mirror.cli.arguments import with_parts, with_query
    from mirror.config.compose import compose

    words = shlex.split(line.replace("…", "RUN").removesuffix("\\"), comments=True)
    name = Path(words[1]).stem
    unnamed = {"search": with_query, "soup": with_parts}.get(name, list)
    compose(name, unnamed(words[2:]))


PRETRAINING = [
    line
    for _, code in FENCED.findall((DOCS / "howto" / "pretraining.md").read_text(encoding="utf-8"))
    for line in code.splitlines()
]
SHORT = [
    "model.hidden=64", "model.intermediate=128", "model.layers=4", "model.heads=8", "tokenizer.vocab_size=150",
    "batch.tokens=300", "batch.max_tokens=32", "trainer.max_steps=3", "held_out.texts=10", "trainer.accelerator=cpu",
    "hydra.run.dir=run",
]  # fmt: skip
"""What makes a run of pre-training short; a BERT of half these sizes can be grown to them."""


@pytest.mark.parametrize("line", PRETRAINING)
def test_shown_pretraining_runs(line: str, command: Command, tiny_bert: Path, tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text("\n".join(SENTENCES), encoding="utf-8")
    pairs = "".join(f"{left}||{right}\n" for left, right in pairwise(SENTENCES))
    (tmp_path / "pairs.txt").write_text(pairs, encoding="utf-8")
    words = shlex.split(line.replace("outputs/pretrain/small/model", str(tiny_bert)))
    assert words[:2] == ["python", "scripts/pretrain.py"]
    result = command("pretrain", *words[2:], *SHORT)
    assert result.code == 0, result.err
    assert (tmp_path / "run" / "model" / "model.safetensors").exists()


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    """The module that makes the reference pages."""
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("reference", DOCS / "hooks" / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_reference_has_every_setting(reference: ModuleType) -> None:
    rows = [line.split(" | ") for line in reference.settings_page().splitlines() if line.startswith("| `")]
    named = {row[0].strip("| `") for row in rows}
    for schema in SCHEMAS.values():
        hints = get_type_hints(schema)
        for item in fields(schema):
            inner = hints[item.name]
            if is_dataclass(inner):
                assert {f"{item.name}.{one.name}" for one in fields(inner)} <= named
            else:
                assert item.name in named
    assert [row[0] for row in rows if not row[1].strip()] == [], "settings that nothing is said about"


def test_reference_gives_the_ranges(reference: ModuleType) -> None:
    page = reference.settings_page()
    assert re.search(r"`model\.temperature` \| .* \| `0\.04` \| above 0 and at most 100 \| float \|", page)
    assert re.search(r"`model\.layers` \| .* \| `4` \| from 1 to 1000 \| int \|", page)  # held in a loop
    assert re.search(r"`eval\.data_dir` .*MIRROR_DATA", page)


def test_reference_has_every_option(reference: ModuleType) -> None:
    page = reference.options_page() + reference.recipes_page()
    for path in CONF.rglob("*.yaml"):
        if path.parent != CONF:
            assert f"`{path.parent.relative_to(CONF)}={path.stem}`" in page
    assert re.search(r"`loss\.margin` \| is subtracted .* \| `0\.0` \| from 0 to 2 \| float", page)
    empty = [line for line in page.splitlines() if line.startswith("| `") and not line.split(" | ")[1].strip()]
    assert empty == []


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built pages. ``strict`` in mkdocs.yml makes a warning, such as a dead link, an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(folder)]
    result = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    )
    assert result.returncode == 0, result.stderr
    return folder


@pytest.mark.slow
def test_pages_fetch_nothing(site: Path) -> None:
    page = (site / "howto" / "own-parts.html").read_text(encoding="utf-8")
    words = re.sub(r"<[^>]*>", "", page)
    for name in re.findall(r"^(?:class|def) \w+|^import \w+", (ROOT / "tests/own/parts.py").read_text(), re.MULTILINE):
        assert name in words
    for path in site.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"--8\W", text), path
        assert re.findall(r'<(?:script|link|img|iframe)[^>]*(?:src|href)="?https?://[^>]*', text) == [], path


@pytest.mark.slow
@pytest.mark.parametrize("name", ["index.html", "howto/measure.html"])
def test_search_in_pages_opened_from_the_disk(name: str, site: Path, browser: Any) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: said.append(request.url) if request.url.startswith("http") else None)
    page.goto((site / name).as_uri())
    # Letter by letter: the first ones may come before the page listens.
    page.locator("input.md-search__input").press_sequentially("temperature", delay=300)
    first = page.locator(".md-search-result__link").first
    first.wait_for(timeout=60_000)
    first.click()
    page.wait_for_url("**/reference/**")
    assert said == []


def test_examples_in_docstrings() -> None:
    import doctest

    from mirror.training import tune

    found = doctest.testmod(tune, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.attempted >= 5
    assert found.failed == 0


def test_readme_is_short_and_its_links_lead_somewhere() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    links = re.findall(r"\]\(([^)#]+)\)", text)
    assert [link for link in links if not link.startswith("http") and not (ROOT / link).exists()] == []
