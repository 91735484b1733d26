"""The most frequent words of a language, from wordfreq."""

import itertools

import wordfreq

from mirror.data.rows import Rows, in_memory
from mirror.errors import MirrorError


def frequent_words(language: str, size: int | None) -> Rows:
    """Words, the most frequent first.

    Args:
        language: of the words; several as ``en+de``, which then come turn by turn.
        size: of each language; None is a million, which is all.

    Raises:
        MirrorError: wordfreq has no list of the language.
    """
    languages = wordfreq.available_languages("best")
    chosen = language.split("+")
    if any(name not in languages for name in chosen):
        raise MirrorError(
            f"data.language={language} has no word list in wordfreq; it has "
            f"{' '.join(sorted(languages))}. Choose one of these, or several as in en+de, or give a file as data.path."
        )
    lists = [wordfreq.top_n_list(name, size or 10**6) for name in chosen]
    # Turn by turn, so that a sample of the first words has as many of each language.
    words = [word for places in itertools.zip_longest(*lists) for word in places if word is not None]
    return in_memory(words, f"{language} words by frequency (wordfreq)")
