"""Rewritten Python: that it parses and does the same, what each step changes, and a run to its end."""

import ast
import bisect
import colorsys
import heapq
import inspect
import textwrap
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from mirror.config import BatchConfig
from mirror.config.compose import compose
from mirror.config.parts import check_part
from mirror.data.batches import BatchKey, MirroredPairs
from mirror.data.rows import Pair
from mirror.data.sources.python import functions
from mirror.data.views import Code, rewrite
from mirror.encoder.encoder import MirrorEncoder
from mirror.errors import MirrorError
from mirror.runs.record import by_step
from mirror.training.run import train
from tests.architectures import build
from tests.conftest import ROOT, SENTENCES
from tests.helpers import stop_and_resume

OFF = dict.fromkeys(("rename", "insert", "remove", "fold", "docstrings", "reformat", "comments", "lines"), 0.0)
EVERY = {**OFF, **dict.fromkeys(("rename", "insert", "remove", "fold", "docstrings"), 1.0)}
OWN = [text for text, _ in functions(str(ROOT / "mirror")).fetch(range(400))]


def only(**steps: float) -> Callable[[str], str]:
    views = Code(**{**OFF, **steps})
    return lambda text: views.rewritten(textwrap.dedent(text).strip(), Random(0))


def test_every_version_parses() -> None:
    """But for the sampling of lines; and some version of nearly every function differs."""
    views, rng = Code(lines=0), Random(0)
    changed = 0
    for text in OWN:
        versions = [views.rewritten(text, rng) for _ in range(4)]
        assert all(rewrite.parsed(version) is not None for version in versions)
        changed += any(version != text for version in versions)
    assert changed > 390


CALLS: dict[Any, Callable[[dict[str, Any]], list[Any]]] = {
    colorsys: lambda names: [
        names[name](red / 7, 0.3, 0.8)
        for red in range(8)
        for name in ("rgb_to_yiq", "yiq_to_rgb", "rgb_to_hls", "hls_to_rgb", "rgb_to_hsv", "hsv_to_rgb")
    ],
    bisect: lambda names: [
        names[name]([1, 3, 3, 5, 9], x, 0, 4) for x in range(11) for name in ("bisect_left", "bisect_right")
    ],
    heapq: lambda names: [
        names["nsmallest"](5, [9, 4, 7, 1, 8, 2, 6], lambda x: -x),
        names["nlargest"](3, [9, 4, 7, 1, 8, 2, 6]),
        list(names["merge"]([1, 4, 9], [2, 3, 10], [0])),
        _sorted(names, [5, 2, 8, 1, 9, 3]),
    ],
}


def _sorted(names: dict[str, Any], heap: list[int]) -> list[int]:
    names["heapify"](heap)
    names["heappush"](heap, 4)
    names["heapreplace"](heap, 7)
    return [names["heappop"](heap) for _ in range(len(heap))]


@pytest.mark.parametrize("module", CALLS, ids=lambda module: module.__name__)
@pytest.mark.parametrize("seed", range(3))
def test_rewritten_code_does_the_same(module: Any, seed: int) -> None:
    # Without the import of the version in C at its end.
    source = inspect.getsource(module).partition("\ntry:\n    from _")[0].partition("\n# Overwrite above")[0]
    rewritten = Code(**EVERY).rewritten(source, Random(seed))
    assert rewritten != source
    found = []
    for text in (source, rewritten):
        names: dict[str, Any] = {"__name__": "module"}
        exec(compile(text, module.__name__, "exec"), names)
        found.append(CALLS[module](names))
    assert found[0] == found[1]


def test_renaming_leaves_alone_what_others_see() -> None:
    source = """
    def total(items, start=id, *rest, **more):
        global seen
        import os.path as place
        seen = items
        result = start
        for item in items:
            result = result + item.value(step=result)
        squares = [kept * kept for kept in rest]
        def inner(own): return own + result
        try: pass
        except ValueError as error: raise error from None
        return inner(more), squares, place, self, total
    """
    new = only(rename=1)(source)
    renamed = {"items", "start", "rest", "more", "result", "item", "squares"}
    names = {node.id for node in ast.walk(ast.parse(new)) if isinstance(node, ast.Name)}
    assert not names & renamed
    assert {"id", "seen", "kept", "inner", "own", "place", "self", "total", "error"} <= names
    assert "import os.path as place" in new
    assert ".value(step=" in new
    assert "=id, *" in new
    before, after = (ast.dump(ast.parse(text)) for text in (textwrap.dedent(source).strip(), new))
    assert len(ast.parse(new).body[0].body) == 9  # type: ignore[attr-defined]
    assert before.count("Name(") == after.count("Name(")
    assert only(rename=1)("def f(x):\n    return eval('x')") == "def f(x):\n    return eval('x')"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def f():\n    return 60 * 60 + 0.5", "def f():\n    return 3600.5"),
        ("def f(x):\n    return (1 - 3) ** x", "def f(x):\n    return (-2) ** x"),
        ("def f(x):\n    return 'a' + 'b' + x", "def f(x):\n    return 'ab' + x"),
        ("def f():\n    return 1 / 0", "def f():\n    return 1 / 0"),
        ("def f():\n    return 2 ** 64 * 2 ** 9", "def f():\n    return 2 ** 64 * 2 ** 9"),
        ("def f():\n    return True + 1, '%s' % 1, 'a' * 9", "def f():\n    return (True + 1, '%s' % 1, 'a' * 9)"),
    ],
)
def test_constants_are_folded(source: str, expected: str) -> None:
    assert only(fold=1)(source) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def f():\n    return 1\n    print(2)", "def f():\n    return 1"),
        ("def f():\n    'Doc.'\n    pass", 'def f():\n    """Doc."""'),
        ("def f():\n    pass", "def f():\n    pass"),
        ("def f():\n    if False:\n        a()\n    else:\n        b()", "def f():\n    b()"),
        (
            "def f():\n    while x:\n        break\n        g()\n    else:\n        pass",
            "def f():\n    while x:\n        break",
        ),
        ("def f():\n    return\n    yield", "def f():\n    return\n    yield"),
        ("def f():\n    if 0:\n        x = 1\n    return x", "def f():\n    if 0:\n        x = 1\n    return x"),
    ],
)
def test_dead_code_goes(source: str, expected: str) -> None:
    assert only(remove=1)(source) == expected


def test_other_steps() -> None:
    source = 'def f(a):  # one\n    """Doc."""\n    # two\n    b = "# three"\n\n    return (a ,b)'
    assert only(comments=1)(source) == 'def f(a):\n    """Doc."""\n    b = "# three"\n\n    return (a ,b)'
    assert only(reformat=1)(source) == 'def f(a):\n    """Doc."""\n    b = \'# three\'\n    return (a, b)'
    assert only(docstrings=1)(source) == "def f(a):\n    b = '# three'\n    return (a, b)"
    assert only(docstrings=1)('def f():\n    "Doc."') == "def f():\n    pass"
    inserted = only(insert=1)(source).split("\n")
    assert len(inserted) == 5
    assert inserted[:2] == ["def f(a):", '    """Doc."""']
    lines = [f"line {i}" for i in range(9)]
    views = Code(**{**OFF, "lines": 1.0})
    kept = [views.rewritten("\n".join(lines), Random(seed)).split("\n") for seed in range(300)]
    assert all(text[0] == lines[0] and text[-1] == lines[-1] and text == sorted(text) for text in kept)
    assert 5.3 < sum(map(len, kept)) / 300 < 5.7  # two, and half of seven
    assert views.rewritten("a\nb\nc\nd", Random(0)) == "a\nb\nc\nd"
    assert only()(source) == source


@pytest.mark.parametrize("name", ["bert", "roberta", "xlnet"])
def test_batches_follow_from_the_seed(name: str, tmp_path: Path) -> None:
    layout = MirrorEncoder.load(build(name, tmp_path / name)).layout
    pairs: list[Pair] = [(text, text) for text in OWN[:80]]
    made = [MirroredPairs(pairs, layout, Code(), BatchConfig(size=40), seed) for seed in (0, 0, 1)]
    first, again, other = (one[BatchKey(1, 1)] for one in made)
    assert first.strings == again.strings != other.strings
    assert first.changed > 50
    assert first.text_ids[0].equal(first.text_ids[1])


def test_bad_input(tiny_bert: Path, caplog: pytest.LogCaptureFixture) -> None:
    layout = MirrorEncoder.load(tiny_bert).layout
    lines: list[Pair] = [(text, text) for text in SENTENCES[:20]]
    with pytest.raises(MirrorError, match=r"aug=code rewrites Python source, and none of the 20 texts is any: give"):
        MirroredPairs(lines, layout, Code(), BatchConfig(), 0)
    MirroredPairs([*lines, (OWN[0], OWN[0])], layout, Code(), BatchConfig(), 0)
    assert "20 of 21 texts are no Python source and stay whole." in caplog.text
    assert Code(**EVERY)(lines[0], Random(0)) == lines[0]
    for setting, value in (("rename", 1.5), ("lines", -0.1), ("keep", 0.0)):
        with pytest.raises(MirrorError, match=rf"aug.{setting}={value} is out of range"):
            check_part({"_target_": "mirror.data.views.Code", setting: value}, "aug")


def test_a_run_to_its_end_and_resumed(tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for i, text in enumerate(OWN[:100]):
        (source / f"f{i}.py").write_text(text)
    config = compose("train", [
        "experiment=contracode", f"data.path='{source}'", f"model.path='{tiny_bert}'", "data.size=44",
        "batch.size=16", "batch.max_tokens=64", "loss.size=32", "trainer.max_epochs=2", "trainer.precision=fp32",
        "trainer.accelerator=cpu", "trainer.progress=false", "checkpoint_every=2",
    ])  # fmt: skip
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    whole.mkdir()
    stopped.mkdir()
    train(config, whole)
    stop_and_resume(config, stopped, monkeypatch)
    assert len(by_step(whole)) == 6
    assert by_step(stopped) == by_step(whole)
    card = (whole / "encoder" / "README.md").read_text()
    assert (
        "| augmentation | Python source rewritten (rename 0.5, insert 0.25, remove 0.125, fold 0.25, docstrings" in card
    )
