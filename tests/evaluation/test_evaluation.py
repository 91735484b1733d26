"""Sets by name, from files and as they are published; each scored by its texts' vectors."""

from pathlib import Path

import numpy as np
import pytest

from mirror import MirrorEncoder, MirrorError
from mirror.config import Pooling
from mirror.evaluation.sets import KINDS, load_sets, score_vectors, texts_of
from mirror.evaluation.sets.lexicon import LexiconSet
from mirror.evaluation.sets.linking import LinkingSet
from mirror.evaluation.sets.pairs import PairSet
from mirror.evaluation.sets.ranking import RankingSet
from mirror.evaluation.sets.retrieval import RetrievalSet
from mirror.evaluation.sets.sts import sts_average
from mirror.evaluation.sets.words import LANGUAGES
from tests.evaluation.sets.made_up import pair_sets


def test_shared_texts_are_listed_once_and_each_set_is_scored() -> None:
    first = PairSet("one", ["a", "bb", "a"], ["bb", "ccc", "ccc"], np.arange(3.0), ["x"] * 3)
    second = PairSet("two", ["ccc", "a"], ["dddd", "eeeee"], np.arange(2.0), ["x"] * 2)
    texts = texts_of([first, second])
    assert sorted(texts) == ["a", "bb", "ccc", "dddd", "eeeee"]
    vectors = {text: np.array([len(text), ord(text[0])], dtype=np.float32) for text in texts}
    scores = score_vectors(vectors, [first, second])
    assert list(scores) == ["one", "two"]
    assert scores["one"].protocols == first.score_vectors(vectors).protocols
    assert scores["two"].protocols == second.score_vectors(vectors).protocols


def test_unknown_set(tmp_path: Path) -> None:
    with pytest.raises(MirrorError, match="'sts17', which is no set; choose among sts12, "):
        load_sets(["sts17"], str(tmp_path))


@pytest.mark.parametrize("name", ["nothing", "file"])
def test_data_dir_that_is_no_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MirrorError, match="is no folder: give the one that holds sts/ and word/"):
        load_sets(["sts12"], str(tmp_path / name))


FILES = {
    "sts/own": "score\tsentence1\tsentence2\n1\ta\tb\n2\tc\td\n",
    "word/own": "word1\tword2\tscore\tpos\n" + "".join(f"w{i}\tv{i}\t{i}\t{'NV'[i % 2]}\n" for i in range(6)),
    "ranking/own": "sentence1\tsentence2\tlabel\na\tb\t1\nc\td\t0\n",
    "bli/own": "source\ttarget\ndog\tHund\ncat\tKatze\ncat\tKater\n",
    "linking/own": "mention\tconcept_id\nflu\tD1|D2\ncold\tD3+D4\n",
    "linking/concepts": "concept_ids\tnames\nD1|D9\tinfluenza|grippe\nD4\tcommon cold\n",
    "retrieval/own": "query\tdocument\nq\td\nr\te\n",
}


KIND = {
    "sts/own": PairSet, "word/own": PairSet, "ranking/own": RankingSet, "bli/own": LexiconSet,
    "linking/own": LinkingSet, "retrieval/own": RetrievalSet,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        path = tmp_path / f"{name}.tsv"
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("name", KIND)
def test_columns_say_what_a_file_is(folder: Path, name: str) -> None:
    (inside,) = load_sets([name], str(folder))
    (by_path,) = load_sets([str(folder / f"{name}.tsv")], None)
    assert type(inside) is type(by_path) is KIND[name]
    assert inside.name == name
    assert inside.pairs() == by_path.pairs()


def test_what_is_read(folder: Path) -> None:
    linked, words, lexicon = load_sets(["linking/own", "word/own", "bli/own"], str(folder))
    assert isinstance(linked, LinkingSet)
    assert linked.concepts == [{"D1", "D2"}, {"D3", "D4"}]
    assert linked.dictionary == {"influenza": {"D1", "D9"}, "grippe": {"D1", "D9"}, "common cold": {"D4"}}
    assert linked.pairs() == [("flu", "influenza"), ("flu", "grippe"), ("cold", "common cold")]
    assert isinstance(words, PairSet)
    assert {*words.parts} == {"N", "V"}
    assert lexicon.pairs() == [("dog", "Hund"), ("cat", "Katze"), ("cat", "Kater")]


def test_file_of_a_spreadsheet(tmp_path: Path) -> None:
    """Such programs write a mark before the header."""
    (tmp_path / "own.tsv").write_text(FILES["sts/own"], encoding="utf-8-sig")
    (test,) = load_sets([str(tmp_path / "own.tsv")], None)
    assert test.pairs() == [("a", "b"), ("c", "d")]


def test_dictionary_of_the_users(folder: Path) -> None:
    (folder / "mine.tsv").write_text("concept_ids\tnames\nD3\tchill\n", encoding="utf-8")
    (linked,) = load_sets(["linking/own"], str(folder), str(folder / "mine.tsv"))
    assert linked.pairs() == [("cold", "chill")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("sts/x", "a\tb\n1\t2\n", "has the columns a, b, which make no set; it needs score, sentence1, sentence2;"),
        ("sts/x", "", "is empty: its first line must name its columns"),
        ("sts/x", "score\tsentence1\tsentence2\n1\ta\tb\n2\tc\td\te\n", "line 3 has more cells than the header"),
        ("ranking/x", "sentence1\tsentence2\tlabel\na\tb\t2\nc\td\t0\n", "label that is neither 0 nor 1"),
        ("ranking/x", "sentence1\tsentence2\tlabel\na\tb\t1\nc\td\t1\n", "with the label 0"),
        ("ranking/x", "sentence1\tsentence2\tlabel\na\tb\tyes\n", "line 2: label is 'yes', not a number"),
        ("bli/x", "source\ttarget\na\tb\n", "at least two different target words"),
        ("bli/x", "source\ttarget\na\t\n", "line 2: target is empty"),
        ("linking/x", "mention\tconcept_id\na\tD77\n", "no mention has a concept that the dictionary names"),
        ("other/x", "mention\tconcept_id\na\tD1\n", "0 dictionaries beside it: give eval.dictionary="),
        ("retrieval/x", "query\tdocument\na\tb\na\tc\n", "a query twice"),
        ("word/x", "word1\tword2\tscore\na\tb\t1\n", "has 1 pairs"),
    ],
)
def test_file_that_is_wrong(folder: Path, name: str, content: str, message: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / f"{name}.tsv").write_text(content, encoding="utf-8")
    with pytest.raises(MirrorError, match=message):
        load_sets([name], str(folder))


def test_file_that_is_missing(folder: Path) -> None:
    notes = folder / "notes.md"
    notes.write_text("# notes")
    with pytest.raises(MirrorError, match=r"notes\.md is no test set: a test set is a table that ends with \.tsv"):
        load_sets([str(notes)], str(folder))
    with pytest.raises(MirrorError, match=r"eval.data_dir lacks bli/en-xx.tsv"):
        load_sets(["bli/en-xx"], str(folder))
    with pytest.raises(MirrorError, match=r"nothing.tsv, which cannot be read"):
        load_sets(["nothing.tsv"], None)
    with pytest.raises(MirrorError, match=r"bli/en-de is read from a folder: give eval\.data_dir"):
        load_sets(["bli/en-de"], None)


def test_every_kind_has_its_own_columns() -> None:
    """No file is two kinds of set."""
    assert not [(a, b) for a in KINDS for b in KINDS if a is not b and {*a.COLUMNS} <= {*b.COLUMNS}]


def test_the_real_files(data_dir: Path) -> None:
    names = ["bli/en-de", "bli/en-fr", "bli/en-it", "bli/en-ru", "linking/ncbi-disease-test", "sts/msrvid-ru"]
    sets = load_sets(names, str(data_dir))
    assert [len(test.pairs()) for test in sets[:4]] == [2000] * 4
    linked = sets[4]
    assert isinstance(linked, LinkingSet)
    assert (len(linked.mentions), len(linked.dictionary)) == (960, 76_052)
    assert len(sets[5].pairs()) == 750


COUNTS = {
    "sts12": 3108, "sts13": 1500, "sts14": 3750, "sts15": 3000, "sts16": 1186,
    "stsb-dev": 1500, "stsb-test": 1379, "sickr-test": 4906, "simlex999": 999, "wordsim353": 353,
    **{f"multisimlex-{language}": 1888 for language in LANGUAGES}, "multisimlex-est": 1887,
}  # fmt: skip


def test_every_set_is_whole(data_dir: Path) -> None:
    sets = {pairs.name: pairs for pairs in pair_sets(list(COUNTS), str(data_dir))}
    assert {name: len(pairs) for name, pairs in sets.items()} == COUNTS
    parts = {name: len(set(pairs.subsets)) for name, pairs in sets.items()}
    assert [parts[name] for name in ("sts12", "sts13", "sts14", "sts15", "sts16")] == [5, 3, 6, 5, 5]
    assert parts["stsb-test"] == parts["sickr-test"] == 1
    assert parts["multisimlex-eng"] > 1


PUBLISHED = {
    "sts12": 72.37, "sts13": 80.60, "sts14": 75.60, "sts15": 85.39, "sts16": 78.99,
    "stsb-test": 82.03, "sickr-test": 77.15,
}  # fmt: skip
"""all-MiniLM-L6-v2, protocol "all"."""


@pytest.mark.slow
def test_the_ruler(data_dir: Path, ruler: Path) -> None:
    """A known encoder gets its published figures: the sets, the protocol and the encoding are the field's."""
    encoder = MirrorEncoder.load(ruler, Pooling.mean)
    scores = {test.name: test.score(encoder.encode) for test in load_sets(list(PUBLISHED), str(data_dir))}
    values = {name: score.value for name, score in scores.items()}
    print({name: round(value, 2) for name, value in values.items()}, sts_average(values))
    assert values == pytest.approx(PUBLISHED, abs=0.05)
    assert sts_average(values) == pytest.approx(78.88, abs=0.05)
