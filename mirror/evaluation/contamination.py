"""Finds test texts among the training texts: exact copies, near copies, and whole pairs."""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path

from tqdm import tqdm

from mirror.data.rows import Pair
from mirror.evaluation.sets.score import TestSet

NGRAM = 5
"""Characters in a shingle."""
NEAR = 0.8
"""Jaccard similarity of two texts' shingles from which they are nearly the same (Lee et al. 2022 take 0.8 too)."""
AUDIT = "audit.json"
"""File in a saved encoder's folder: the audit of its training texts."""
SHORTEST = 20
"""A text with fewer letters and digits is nearly another only if these are equal: car is not nearly cars."""


@dataclass
class Overlap:
    """How much of one test set the training texts contain."""

    texts: int
    """Different texts of the set."""
    exact: int
    """Those that the training texts contain, ignoring case and white space."""
    near: int
    """Further ones that differ from a training text only slightly, such as in punctuation."""
    pairs: int
    both: int
    """Pairs with both texts in the training texts, exactly or nearly."""
    positives: int
    """Pairs that are trained on as given positives: here the gold scores themselves leak."""

    @property
    def transductive(self) -> bool:
        """Whether any test text was trained on."""
        return self.exact + self.near > 0

    @property
    def share(self) -> float:
        """Share of the set's texts that the training texts contain, from 0 to 1."""
        return (self.exact + self.near) / self.texts

    def plain(self) -> dict[str, int]:
        """For JSON."""
        return asdict(self)


class KnownTexts:
    """Finds which of some known texts another text repeats.

    Near matches are exact, not sampled: two sets with a Jaccard similarity of ``NEAR`` share one of the rarest shingles
    of each, so that only few candidates are compared (prefix filtering; Chaudhuri et al. 2006, Bayardo et al. 2007).
    """

    def __init__(self, texts: Iterable[str]) -> None:
        """The known texts, in the order of their numbers."""
        known = list(texts)
        self._same: dict[str, list[int]] = {}
        for number, text in enumerate(known):
            self._same.setdefault(_folded(text), []).append(number)
        self._shingles = [shingles(text) for text in known]
        self._frequency = Counter(shingle for found in self._shingles for shingle in found)
        self._by_prefix: dict[str, list[int]] = {}
        for number, found in enumerate(self._shingles):
            for shingle in self._prefix(found):
                self._by_prefix.setdefault(shingle, []).append(number)

    def matches(self, text: str) -> tuple[set[int], set[int]]:
        """Indices of the known texts that equal this text, and of those that nearly do."""
        exact = set(self._same.get(_folded(text), ()))
        found = shingles(text)
        candidates = {number for shingle in self._prefix(found) for number in self._by_prefix.get(shingle, ())}
        near = {number for number in candidates - exact if _jaccard(found, self._shingles[number]) >= NEAR}
        return exact, near

    def __contains__(self, text: object) -> bool:
        return isinstance(text, str) and any(self.matches(text))

    def _prefix(self, found: frozenset[str]) -> list[str]:
        """The rarest shingles of a text, enough of them that a near text must share one; the unknown, rarest of all,
        are left out, since no known text shares them."""
        known = [shingle for shingle in found if shingle in self._frequency]
        enough = len(known) - ceil(NEAR * len(found)) + 1
        if not known or enough < 1:
            return []
        return sorted(known, key=lambda shingle: (self._frequency[shingle], shingle))[:enough]


def known_texts(sets: Sequence[TestSet]) -> KnownTexts:
    """The texts of the sets' pairs."""
    return KnownTexts(dict.fromkeys(text for test in sets for pair in test.pairs() for text in pair))


def audit(training: Sequence[Pair], sets: Sequence[TestSet], *, progress: bool = False) -> dict[str, Overlap]:
    """Every test set against the training texts.

    Args:
        training: texts with their positives, as a run trains on them.
        sets: the test sets.
        progress: show a bar.

    Returns:
        The overlap by the name of the set.
    """
    texts = list(dict.fromkeys(text for test in sets for pair in test.pairs() for text in pair))
    number = {text: i for i, text in enumerate(texts)}
    known = KnownTexts(texts)
    exact: set[int] = set()
    near: set[int] = set()
    positives: set[tuple[int, int]] = set()
    for left, right in tqdm(training, desc="audit", unit="text", disable=not progress, leave=False):
        same, close = known.matches(left)
        exact |= same
        near |= close
        if right != left:
            other_same, other_close = known.matches(right)
            exact |= other_same
            near |= other_close
            for a in same | close:
                positives |= {(min(a, b), max(a, b)) for b in other_same | other_close}
    near -= exact
    return {test.name: _overlap(test, number, exact, near, positives) for test in sets}


def dump_audit(overlaps: Mapping[str, Overlap]) -> str:
    """The content of ``AUDIT``."""
    return json.dumps({name: found.plain() for name, found in overlaps.items()}, indent=2) + "\n"


def read_audit(encoder: Path, sets: Sequence[TestSet]) -> dict[str, Overlap]:
    """The overlap of an encoder's training texts with these sets. Sets that were not audited, or have changed since,
    are left out."""
    try:
        stored = json.loads((encoder / AUDIT).read_text(encoding="utf-8"))
        audited = {name: Overlap(**found) for name, found in stored.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
    return {
        test.name: audited[test.name]
        for test in sets
        if test.name in audited and audited[test.name].pairs == len(test.pairs())
    }


def _overlap(
    test: TestSet, number: Mapping[str, int], exact: set[int], near: set[int], positives: set[tuple[int, int]]
) -> Overlap:
    pairs = [(number[left], number[right]) for left, right in test.pairs()]
    texts = {i for pair in pairs for i in pair}
    seen = exact | near
    return Overlap(
        len(texts),
        len(texts & exact),
        len(texts & near),
        len(pairs),
        sum(a in seen and b in seen for a, b in pairs),
        sum((min(pair), max(pair)) in positives for pair in pairs),
    )


def shingles(text: str) -> frozenset[str]:
    """Every run of ``NGRAM`` characters of a text's letters and digits; the whole of a short text."""
    letters = " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold()))
    if len(letters) < SHORTEST:
        return frozenset([letters] if letters else [])
    return frozenset(letters[start : start + NGRAM] for start in range(len(letters) - NGRAM + 1))


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def _jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    common = len(a & b)
    return common / (len(a) + len(b) - common)
