"""Sets beyond graded pairs, each against a naive loop over its definition; sets from files, good and bad."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mirror import MirrorError
from mirror.evaluation import KINDS, TestSet, load_sets
from mirror.evaluation.lexicon import LexiconSet, csls
from mirror.evaluation.linking import LinkingSet
from mirror.evaluation.pairs import PairSet
from mirror.evaluation.ranking import RankingSet
from mirror.evaluation.resampling import resample
from mirror.evaluation.retrieval import RetrievalSet

Vectors = dict[str, NDArray[np.float32]]


def vectors_of(test: TestSet, seed: int = 0) -> Vectors:
    """Random vectors of a few dimensions, coarse enough for ties."""
    rng = np.random.default_rng(seed)
    return {text: rng.integers(-2, 3, 3).astype(np.float32) + np.float32(0.5) for text in test.texts()}


def cosine(vectors: Vectors, a: str, b: str) -> float:
    x, y = vectors[a].astype(float), vectors[b].astype(float)
    return float(round(x @ y / (np.linalg.norm(x) * np.linalg.norm(y)), 9))


def naive_rank(similarity: dict[str, float], right: set[str]) -> int:
    best = max((similarity[one] for one in right), default=-np.inf)
    return 1 + sum(value >= best for one, value in similarity.items() if one not in right)


TRANSLATIONS = [(f"s{i}", f"t{i}") for i in range(40)] + [("s0", "t7"), ("s3", "t9"), ("s5", "t2")]


def lexicon() -> LexiconSet:
    return LexiconSet("made-up", TRANSLATIONS)


def test_lexicon_by_naive_loops() -> None:
    test = lexicon()
    rng = np.random.default_rng(0)
    vectors = {text: rng.normal(size=6).astype(np.float32) for text in test.texts()}
    for i in range(40):
        vectors[f"t{i}"] += vectors[f"s{i}"]
    sources, targets = [f"s{i}" for i in range(40)], [f"t{i}" for i in range(40)]
    plain, scaled = [], []
    for source in sources:
        right = {b for a, b in TRANSLATIONS if a == source}
        near = {target: cosine(vectors, source, target) for target in targets}
        plain.append(naive_rank(near, right))
        own = np.mean(sorted(near.values())[-10:])
        hub = {b: np.mean(sorted(cosine(vectors, a, b) for a in sources)[-10:]) for b in targets}
        scaled.append(naive_rank({b: float(2 * near[b] - own - hub[b]) for b in targets}, right))
    score = test.score_vectors(vectors)
    expected = {
        "acc@1": np.mean([rank == 1 for rank in plain]), "mrr": np.mean([1 / rank for rank in plain]),
        "csls acc@1": np.mean([rank == 1 for rank in scaled]), "csls mrr": np.mean([1 / rank for rank in scaled]),
    }  # fmt: skip
    assert score.protocols == pytest.approx({name: 100 * value for name, value in expected.items()})
    assert plain != scaled
    assert 0 < score.value < 100
    assert score.pairs == 40
    assert "40 target words" in score.note


def test_csls_takes_hubs_down() -> None:
    """The third target is near to every source."""
    cosines = np.array([[0.8, 0.1, 0.82], [0.1, 0.8, 0.81], [0.0, 0.1, 0.9]])
    assert cosines.argmax(axis=1).tolist() == [2, 2, 2]
    assert csls(cosines).argmax(axis=1).tolist() == [0, 1, 2]


def linking() -> LinkingSet:
    names = {f"name {i}": frozenset({f"C{i % 12}"}) for i in range(30)} | {"both": frozenset({"C1", "C2"})}
    mentions = [f"mention {i % 20}" for i in range(25)] + ["name 3"]
    concepts = [frozenset({f"C{i % 20}"} | ({"C1"} if i % 2 == 0 else set())) for i in range(25)] + [frozenset({"C3"})]
    return LinkingSet("made-up", mentions, concepts, names)


def test_linking_by_naive_loops() -> None:
    test = linking()
    rng = np.random.default_rng(0)
    vectors = {text: rng.normal(size=4).astype(np.float32) for text in test.texts()}
    for i in range(8):
        vectors[f"mention {i}"] += vectors[f"name {i + 12}"]
    vectors["both"] = vectors["name 2"]
    ranks = []
    for mention, concepts in zip(test.mentions, test.concepts, strict=True):
        right = {name for name, ids in test.dictionary.items() if ids & concepts}
        near = {name: cosine(vectors, mention, name) for name in test.dictionary}
        ranks.append(naive_rank(near, right) if right else 10**6)
    score = test.score_vectors(vectors)
    expected = {"acc@1": 100 * np.mean([r <= 1 for r in ranks]), "acc@5": 100 * np.mean([r <= 5 for r in ranks])}
    assert score.protocols == pytest.approx(expected)
    assert 0 < score.value < score.protocols["acc@5"] < 100
    assert any(rank == 10**6 for rank in ranks)  # a concept that the dictionary lacks is an error
    assert ("mention 0", "name 12") in test.pairs()
    assert {*test.texts()} == {*test.mentions, *test.dictionary}


def test_ranking_by_the_definitions() -> None:
    rng = np.random.default_rng(0)
    labels: NDArray[np.float64] = rng.integers(0, 2, 50).astype(np.float64)
    test = RankingSet("made-up", [f"a{i}" for i in range(50)], [f"b{i}" for i in range(50)], labels)
    vectors: Vectors = {text: rng.normal(size=4).astype(np.float32) for text in test.texts()}
    vectors |= {f"{side}{i + 1}": vectors[f"{side}{i}"] for i in range(0, 20, 2) for side in "ab"}  # ties
    near = np.array([cosine(vectors, *pair) for pair in test.pairs()])
    right, wrong = near[test.labels == 1], near[test.labels == 0]
    auc = np.mean([(a > b) + (a == b) / 2 for a in right for b in wrong])
    precision, before = 0.0, 0.0
    for threshold in sorted(set(near), reverse=True):
        taken = test.labels[near >= threshold]
        precision += taken.mean() * (taken.sum() - before) / test.labels.sum()
        before = taken.sum()
    assert test.score_vectors(vectors).protocols == pytest.approx({"ap": 100 * precision, "auc": 100 * auc}, abs=1e-4)
    assert len(test.positives()) == int(test.labels.sum())


def retrieval() -> RetrievalSet:
    return RetrievalSet("made-up", [f"q{i}" for i in range(30)], [f"d{i}" for i in range(30)])


def ranking() -> RankingSet:
    return RankingSet(
        "made-up", [f"a{i}" for i in range(30)], [f"b{i}" for i in range(30)], (np.arange(30) % 2).astype(np.float64)
    )


def graded() -> PairSet:
    gold = (np.arange(30) % 5).astype(np.float64)
    return PairSet("made-up", [f"a{i}" for i in range(30)], [f"b{i}" for i in range(30)], gold, ["x", "y"] * 15)


EVERY: list[Callable[[], TestSet]] = [lexicon, linking, ranking, retrieval, graded]


@pytest.mark.parametrize("make", EVERY)
def test_every_kind_of_set_keeps_the_protocol(make: Callable[[], TestSet]) -> None:
    """The texts are those of the pairs; the headline is the statistic of the items; both contrasts can be drawn."""
    test = make()
    vectors = vectors_of(test)
    score = test.score_vectors(vectors)
    assert {text for pair in test.pairs() for text in pair} <= {*test.texts()}
    assert {*test.positives()} <= {*test.pairs()}
    assert len(test.texts()) == len({*test.texts()})
    (items,) = score.items
    assert 100 * score.statistic(items, np.ones((1, len(items))))[0] == pytest.approx(score.value)
    assert np.isfinite(resample(items, score.statistic, 20, "x")).all()
    true, random = test.contrast(vectors)
    assert len(true) == len(test.positives())
    assert len(random) == len(test.pairs())
    assert (np.abs(np.concatenate([true, random])) <= 1 + 1e-9).all()


@pytest.mark.parametrize("make", EVERY)
@pytest.mark.parametrize("value", [0.0, np.nan])
def test_unusable_vectors(make: Callable[[], TestSet], value: float) -> None:
    test = make()
    vectors = vectors_of(test)
    vectors[test.pairs()[0][1]] = np.full(3, value, dtype=np.float32)
    with pytest.raises(MirrorError, match="zero or not finite on made-up"):
        test.score_vectors(vectors)


@pytest.mark.parametrize("make", [lexicon, linking, retrieval])
def test_equal_vectors_find_nothing(make: Callable[[], TestSet]) -> None:
    test = make()
    score = test.score_vectors({text: np.ones(3, dtype=np.float32) for text in test.texts()})
    assert score.protocols["recall@1" if make is retrieval else "acc@1"] == 0


# --- files

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


def test_dictionary_of_the_users(folder: Path) -> None:
    (folder / "mine.tsv").write_text("concept_ids\tnames\nD3\tchill\n", encoding="utf-8")
    (linked,) = load_sets(["linking/own"], str(folder), str(folder / "mine.tsv"))
    assert linked.pairs() == [("cold", "chill")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("sts/x", "a\tb\n1\t2\n", "has the columns a, b, which make no set; it needs score, sentence1, sentence2;"),
        ("sts/x", "", "which make no set"),
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
    with pytest.raises(MirrorError, match=r"eval.data_dir lacks bli/en-xx.tsv"):
        load_sets(["bli/en-xx"], str(folder))
    with pytest.raises(MirrorError, match=r"nothing.tsv, which cannot be read"):
        load_sets(["nothing.tsv"], None)
    with pytest.raises(MirrorError, match=r"bli/en-de is read from a folder: give eval\.data_dir"):
        load_sets(["bli/en-de"], None)


def test_every_kind_has_its_own_columns() -> None:
    """No file is two kinds of set."""
    assert not [(a, b) for a in KINDS for b in KINDS if a is not b and {*a.COLUMNS} <= {*b.COLUMNS}]


def test_a_part_without_a_correlation(caplog: pytest.LogCaptureFixture) -> None:
    """It is named, the other parts and the whole are scored, and nothing is nan."""
    gold = np.array([1.0, 2.0, 3.0, 4.0])
    test = PairSet("made-up", list("abcd"), list("efgh"), gold, ["x", "x", "x", "lonely"])
    assert "made-up has no correlation in its part lonely" in caplog.text
    score = test.score_vectors(vectors_of(test, 4))
    assert list(score.protocols) == ["all"]
    assert np.isfinite(score.value)


def test_half_a_set_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "sts").mkdir()
    (tmp_path / "sts" / "sts13.tsv").write_text(FILES["sts/own"], encoding="utf-8")
    (test,) = load_sets(["sts13"], str(tmp_path))
    assert "sts13 has 2 pairs, not the 1500 that are published" in caplog.text
    assert "2 pairs, not the 1,500" in test.score_vectors(vectors_of(test, 1)).note


@pytest.mark.parametrize(("count", "note"), [(4906, "SemEval_set = TEST"), (4927, "SentEval"), (30, "no convention")])
def test_sick_names_its_convention(tmp_path: Path, count: int, note: str) -> None:
    (tmp_path / "sts").mkdir()
    rows = "".join(f"{i % 5}\ta{i}\tb{i}\n" for i in range(count))
    (tmp_path / "sts" / "sickr-test.tsv").write_text("score\tsentence1\tsentence2\n" + rows, encoding="utf-8")
    (test,) = load_sets(["sickr-test"], str(tmp_path))
    assert isinstance(test, PairSet)
    assert note in test.note


def test_the_real_files(data_dir: Path) -> None:
    names = ["bli/en-de", "bli/en-fr", "bli/en-it", "bli/en-ru", "linking/ncbi-disease-test", "sts/msrvid-ru"]
    sets = load_sets(names, str(data_dir))
    assert [len(test.pairs()) for test in sets[:4]] == [2000] * 4
    linked = sets[4]
    assert isinstance(linked, LinkingSet)
    assert (len(linked.mentions), len(linked.dictionary)) == (960, 76_052)
    assert len(sets[5].pairs()) == 750
