import json
from pathlib import Path

import numpy as np
import pytest

from mirror import MirrorEncoder, MirrorError
from mirror.cli.arguments import with_query
from mirror.config.compose import compose, quoted
from mirror.data.sources import pydocs
from mirror.encoder.post import whitening
from mirror.search.search import STORE, documented, newest_encoder, raw_model, search
from tests.conftest import SENTENCES

HARD = [
    "how do I sort a dictionary by value", "it's", "a, b", "{x}", "${oc.env:HOME} $HOME", "back\\slash", "end\\",
    "quote\\'x", "[1,2]", "a=b c", "\\\\'", "é 水 ~ | `", '"quoted"', "null", "true", "3", " padded ",
]  # fmt: skip


@pytest.mark.parametrize("text", HARD)
def test_a_question_survives_the_command_line(text: str) -> None:
    assert compose("search", [f"query={quoted(text)}"]).query == text


@pytest.mark.parametrize(
    ("typed", "seen"),
    [
        (["how do I", "sort,"], ["query='how do I sort,'"]),
        (["what is a=b?", "top=3"], ["top=3", "query='what is a=b?'"]),
        (["--cfg", "job", "hello"], ["--cfg", "job", "query='hello'"]),
        (["-5 degrees", "-3"], ["query='-5 degrees -3'"]),
        (["--help"], ["--help"]),
        (["query=x", "++top=1", "hydra/help=default"], ["query=x", "++top=1", "hydra/help=default"]),
        ([""], ["query=''"]),
    ],
)
def test_what_is_no_option_is_the_question(typed: list[str], seen: list[str]) -> None:
    assert with_query(typed) == seen


def finished_run(folder: Path, model: Path, task: str = "sentence", status: str = "finished") -> Path:
    MirrorEncoder.load(model, "mean").save(folder / "encoder")
    content = {"status": status, "config": {"task": task, "model": {"path": str(model)}}}
    (folder / "metrics.json").write_text(json.dumps(content), encoding="utf-8")
    return folder / "encoder"


def test_newest_encoder_is_of_a_finished_sentence_run(tiny_bert: Path, tmp_path: Path) -> None:
    with pytest.raises(MirrorError, match=r"no finished sentence encoder .* experiment=demo"):
        newest_encoder(tmp_path)
    older = finished_run(tmp_path / "train" / "1", tiny_bert)
    finished_run(tmp_path / "train" / "2", tiny_bert, task="word")
    finished_run(tmp_path / "train" / "3", tiny_bert, status="failed")
    (tmp_path / "train" / "4").mkdir()
    (tmp_path / "train" / "4" / "metrics.json").write_text("{", encoding="utf-8")
    assert newest_encoder(tmp_path) == older


def test_raw_model_is_pooled_as_the_encoder(tiny_bert: Path, tmp_path: Path) -> None:
    folder = finished_run(tmp_path / "run", tiny_bert)
    raw = raw_model(folder, MirrorEncoder.load(folder))
    assert raw is not None
    assert (raw.name, raw.pooling.name) == (str(tiny_bert), "mean")
    (tmp_path / "run" / "metrics.json").unlink()
    assert raw_model(folder, MirrorEncoder.load(folder)) is None


def test_raw_model_is_not_whitened(tiny_bert: Path, tmp_path: Path) -> None:
    folder = finished_run(tmp_path / "run", tiny_bert)
    tuned, plain = MirrorEncoder.load(folder), MirrorEncoder.load(folder)
    tuned.pooling = tuned.pooling.followed_by(whitening(tuned.encode(SENTENCES), 8), "whitening")
    metrics = tmp_path / "run" / "metrics.json"
    content = json.loads(metrics.read_text(encoding="utf-8"))
    content["config"]["post"] = {"_target_": "mirror.encoder.post.whitening"}
    metrics.write_text(json.dumps(content), encoding="utf-8")
    raw = raw_model(folder, tuned)
    assert raw is not None
    assert raw.pooling.name == "mean"
    assert np.array_equal(raw.encode(SENTENCES[:5]), plain.encode(SENTENCES[:5]))


def test_search_in_a_file(
    tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = finished_run(tmp_path / "outputs" / "run", tiny_bert)
    notes = tmp_path / "notes.txt"
    notes.write_text("\n".join(["", "", "[red] herring", *SENTENCES[:30], SENTENCES[0]]), encoding="utf-8")
    search(
        compose("search", [f"query={quoted(SENTENCES[4])}", f"input={notes}", f"outputs={tmp_path}/outputs", "top=2"])
    )
    printed = " ".join(capsys.readouterr().out.split())
    assert "among 31 texts" in printed
    assert "raw mean" in printed
    assert "tuned" in printed
    # The text itself comes first in both columns, however they wrap.
    first = printed.partition(" 1 ")[2].partition(" 2 ")[0]
    assert sorted(first.split()) == sorted(f"{SENTENCES[4]} 1.00".split() * 2)
    store = tmp_path / "outputs" / STORE
    kept = sorted(path.name for path in store.iterdir())
    assert [name[:6] for name in kept] == [".lock", "notes-", "notes-"]
    monkeypatch.chdir(tmp_path)
    asked = [f"query={quoted('[/foo] herring')}", f"input={notes}", f"encoder={folder}", "top=31"]
    answers = set()
    for how in ("keep=false", "keep=true", "keep=true"):
        search(compose("search", [*asked, how]))
        answers.add(capsys.readouterr().out)
    assert len(answers) == 1
    answer = answers.pop()
    assert "[red] herring" in answer  # no markup
    assert "[/foo] herring" in answer
    for vectors in (tmp_path / "outputs" / STORE).rglob("*.npy"):
        vectors.write_bytes(b"")
    with pytest.raises(MirrorError, match=r"cannot be used \(.*\): remove it, or set keep=false"):
        search(compose("search", [*asked, "keep=true"]))


def test_search_in_the_documentation(tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = finished_run(tmp_path / "run", tiny_bert)
    query = "Return a new list containing all items from the iterable in ascending order."
    search(compose("search", [f"query={quoted(query)}", f"encoder={folder}", "top=1"]))
    assert capsys.readouterr().out.count("sorted") == 2


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be read"),
        (b"", "is empty"),
        (b"\n \n", "nothing but empty lines"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"a\0b\0\n\0", "not a text file"),
    ],
)
def test_refuses(content: bytes | None, reason: str, tiny_bert: Path, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "notes.txt").write_bytes(content)
    with pytest.raises(MirrorError, match=reason):
        search(compose("search", ["query=x", f"input={tmp_path / 'notes.txt'}", f"encoder={tiny_bert}"]))


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("query=''", "query is empty"),
        ("top=0", "top=0 is out of range"),
    ],
)
def test_settings_out_of_range(override: str, reason: str) -> None:
    with pytest.raises(MirrorError, match=reason):
        compose("search", ["query=x", *override.split()])


def test_the_documentation_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tmp_path / "vectors"
    found = documented(store)
    assert found == {function.name: function.summary for function in pydocs.functions()}
    with monkeypatch.context() as reading:
        reading.setattr(pydocs, "functions", lambda: pytest.fail("read again"))
        assert documented(store) == found
    (kept,) = store.glob("pydocs-*.json")
    kept.write_text(kept.read_text(encoding="utf-8")[:100], encoding="utf-8")
    assert documented(store) == found
    kept.unlink()
    with monkeypatch.context() as other:
        other.setattr(pydocs, "origin", lambda: "Python 4")
        assert documented(store) == found
    (again,) = store.glob("pydocs-*.json")
    assert again.name != kept.name
    nowhere = tmp_path / "file"
    nowhere.write_text("", encoding="utf-8")
    assert documented(nowhere) == found
