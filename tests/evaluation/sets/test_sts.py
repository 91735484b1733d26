"""Sets of sentences from files, good and bad."""

from pathlib import Path

import pytest

from mirror import MirrorError
from mirror.evaluation.sets import load_sets
from mirror.evaluation.sets.pairs import PairSet
from tests.evaluation.naive import vectors_of
from tests.evaluation.sets.made_up import pair_sets

HEADER = "subset\tscore\tsentence1\tsentence2\n"


ROWS = "MSRpar\t4.4\tA man plays.\tA man is playing.\nMSRpar\t0.5\tA dog.\tStocks fell.\n"


def sts_file(folder: Path, content: str | bytes, name: str = "sts12") -> str:
    (folder / "sts").mkdir()
    (folder / "sts" / f"{name}.tsv").write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(folder)


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


def test_sts_without_folder_or_hub() -> None:
    with pytest.raises(MirrorError, match=r"cannot be reached: give eval.data_dir=…, or leave it out"):
        load_sets(["sts12"], None)


def test_half_a_set_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (test,) = load_sets(["sts13"], sts_file(tmp_path, HEADER + ROWS, "sts13"))
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
