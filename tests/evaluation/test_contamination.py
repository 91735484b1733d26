"""The audit against naive loops, and the figures that are known of the authors' corpus."""

import re
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from mirror.config import DataConfig
from mirror.data.rows import in_memory
from mirror.data.texts import choose, read_texts
from mirror.evaluation.contamination import AUDIT, KnownTexts, Overlap, audit, dump_audit, known_texts, read_audit
from mirror.evaluation.sets import load_sets
from mirror.evaluation.sets.pairs import PairSet
from tests.conftest import SENTENCES


def pair_set(pairs: list[tuple[str, str]], name: str = "made-up") -> PairSet:
    left, right = [a for a, _ in pairs], [b for _, b in pairs]
    return PairSet(name, left, right, np.arange(float(len(pairs))), [name] * len(pairs))


def naive_near(a: str, b: str) -> bool:
    """Jaccard similarity of character 5-grams, by the definition."""

    def grams(text: str) -> set[str]:
        letters = " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold()))
        return {letters} if len(letters) < 20 else {letters[i : i + 5] for i in range(len(letters) - 4)}

    return len(grams(a) & grams(b)) / len(grams(a) | grams(b)) >= 0.8


def variants(text: str) -> list[str]:
    """From the same text to another one, on both sides of the limit."""
    words = text.rstrip(".").split()
    return [
        text, text.upper(), text + "!", f"  {text}  ", text.rstrip("."), " ".join(words[1:]), " ".join(words[:-1]),
        " ".join([*words, "today"]), " ".join(words[::-1]), text.replace("a", "o"), text[: len(text) // 2],
    ]  # fmt: skip


def test_matches_are_those_of_naive_loops() -> None:
    known = [*SENTENCES[::5], "car", "cars", "A car!"]
    index = KnownTexts(known)
    asked = [variant for text in [*SENTENCES[::37], "car", "a car"] for variant in variants(text)]
    nearly = 0
    for text in asked:
        exact, near = index.matches(text)
        folded = " ".join(text.casefold().split())
        assert exact == {i for i, other in enumerate(known) if " ".join(other.casefold().split()) == folded}
        assert near == {i for i, other in enumerate(known) if naive_near(text, other)} - exact
        assert (text in index) == bool(exact | near)
        nearly += len(near)
    assert nearly > 10


def test_counts_of_texts_pairs_and_given_positives() -> None:
    a, b, c, d, e = SENTENCES[0], SENTENCES[50], SENTENCES[100], SENTENCES[150], SENTENCES[200]
    test = pair_set([(a, b), (a, c), (d, e)])
    raw = audit([(a, a), (b.rstrip(".") + "!", b.rstrip(".") + "!")], [test])
    assert raw == {"made-up": Overlap(texts=5, exact=1, near=1, pairs=3, both=1, positives=0)}
    assert raw["made-up"].transductive
    assert raw["made-up"].share == pytest.approx(2 / 5)
    given = audit([(b, a), (d, d), (e, c)], [test])
    assert given == {"made-up": Overlap(texts=5, exact=5, near=0, pairs=3, both=3, positives=1)}
    clean = audit([(SENTENCES[20], SENTENCES[20])], [test])["made-up"]
    assert not clean.transductive


def test_sets_are_counted_apart() -> None:
    first, second = pair_set([(SENTENCES[0], SENTENCES[50])] * 2, "one"), pair_set([(SENTENCES[0], "x")] * 2, "two")
    found = audit([(SENTENCES[50], SENTENCES[50])], [first, second])
    assert {name: overlap.exact for name, overlap in found.items()} == {"one": 1, "two": 0}


def test_excluded_texts_are_passed_over_and_replaced() -> None:
    """The sample has its full size from what is left; a pair goes if either of its texts does."""
    test = pair_set([(SENTENCES[i], SENTENCES[i + 1].upper()) for i in range(0, 40, 2)])
    excluded = known_texts([test])
    table = choose(in_memory(SENTENCES), DataConfig(size=150), 0, "source", excluded)
    assert len(table.pairs) == 150
    assert table.excluded == table.counts()["excluded"] == table.read - 150 > 10
    assert not {*SENTENCES[:40]} & {text for text, _ in table.pairs}
    assert not audit(table.pairs, [test])["made-up"].transductive
    given = [(SENTENCES[100], SENTENCES[0]), ("a text", "another"), ("a text", "a third")]
    pairs = choose(in_memory(given), DataConfig(size=None), 0, "source", excluded)
    assert (pairs.excluded, len(pairs.pairs)) == (1, 2)


EXACT = {"sts12": 34, "sts13": 39, "sts14": 46, "sts15": 37, "sts16": 18, "stsb-test": 9, "sickr-test": 0}
"""Per cent of the unique test sentences that stand in the authors' 10k sentences."""


@pytest.mark.slow
def test_the_authors_corpus(data_dir: Path) -> None:
    path = data_dir / "corpora" / "stsbenchmark_train_10k_sents_random_sampled.txt"
    sets = load_sets(list(EXACT), str(data_dir))
    found = audit(read_texts(DataConfig(path=str(path), size=None), 0).pairs, sets)
    assert {name: round(100 * overlap.exact / overlap.texts) for name, overlap in found.items()} == EXACT
    # SICK's sentences lack their full stops, which hides them from a comparison word for word.
    assert found["sickr-test"].near / found["sickr-test"].texts == pytest.approx(0.078, abs=0.001)


def test_audit_goes_with_the_encoder(tmp_path: Path) -> None:
    """Of a set that was not audited, or that is another one now, nothing is known; nor from a file that is broken."""
    one, other = (PairSet(name, ["a b", "c d"], ["e f", "g h"], np.arange(2.0), ["x"] * 2) for name in ("one", "other"))
    found = audit([("a b", "a b")], [one])
    assert found["one"].transductive
    (tmp_path / AUDIT).write_text(dump_audit(found), encoding="utf-8")
    assert read_audit(tmp_path, [one, other]) == found
    longer = PairSet("one", ["a b", "c", "d"], ["e", "f", "g"], np.arange(3.0), ["x"] * 3)
    assert read_audit(tmp_path, [longer]) == {}
    assert read_audit(tmp_path / "elsewhere", [one]) == {}
    (tmp_path / AUDIT).write_text('{"one": 3}', encoding="utf-8")
    assert read_audit(tmp_path, [one]) == {}
