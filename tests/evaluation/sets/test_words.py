"""Sets of words from files."""

from pathlib import Path

import pytest

from mirror import MirrorError
from mirror.evaluation.sets import load_sets
from tests.evaluation.sets.made_up import pair_sets


def test_words_need_a_folder() -> None:
    with pytest.raises(MirrorError, match="simlex999 is read from a folder"):
        load_sets(["simlex999"], None)


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
