"""Which tokens the model must predict, and what it sees instead of them."""

import numpy as np
from numpy.typing import NDArray

from mirror.config import MaskingConfig, MaskUnit

IDS = NDArray[np.int64]
SPAN_P, SPAN_MAX = 0.2, 10
"""SpanBERT (Joshi et al. 2020, section 3.1): a span's words follow Geo(0.2), ten at most."""


def choose_tokens(
    text: IDS, special: NDArray[np.bool_], opens: NDArray[np.bool_], config: MaskingConfig, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """The tokens to guess, ``config.share`` of them: single ones, whole words, or spans of words.

    Args:
        text: (T,), which text each token belongs to, in ascending order.
        special: (T,), the tokens that are never chosen.
        opens: (T,), the tokens that begin a word.
        config: share and unit.
        rng: draws them.

    Returns:
        (T,), True where a token is to be guessed.
    """
    if config.unit is MaskUnit.token:
        return (rng.random(len(text)) < config.share) & ~special
    begins = opens | special
    begins[1:] |= special[:-1] | (text[1:] != text[:-1])  # a piece of a long text may start within a word
    begins[:1] = True
    word = np.cumsum(begins) - 1  # (T,)
    words = int(word[-1]) + 1
    if config.unit is MaskUnit.word:
        return np.asarray((rng.random(words) < config.share)[word] & ~special)
    lengths = np.minimum(rng.geometric(SPAN_P, words), SPAN_MAX)
    # Spans overlap: the share of words that none covers is (1 - rate) ** (mean length).
    rate = 1 - (1 - config.share) ** (1 / _mean_span())
    starts = np.flatnonzero(rng.random(words) < rate)
    covered = np.zeros(words + 1, dtype=np.int64)
    np.add.at(covered, starts, 1)
    np.add.at(covered, np.minimum(starts + lengths[starts], words), -1)
    return np.asarray((np.cumsum(covered[:-1]) > 0)[word] & ~special)


def _mean_span() -> float:
    """Mean of Geo(``SPAN_P``) cut at ``SPAN_MAX``."""
    return (1 - (1 - SPAN_P) ** SPAN_MAX) / SPAN_P


def corrupt(
    ids: IDS, chosen: NDArray[np.bool_], mask_id: int, ordinary: IDS, config: MaskingConfig, rng: np.random.Generator
) -> IDS:
    """What the model sees: of the chosen tokens, 80 % masked, 10 % random, 10 % unchanged (Devlin et al. 2019).

    ``ordinary`` are the ids that a random token is drawn from.
    """
    seen = ids.copy()
    places = np.flatnonzero(chosen)
    draw = rng.random(len(places))
    seen[places[draw < config.masked]] = mask_id
    swapped = places[(draw >= config.masked) & (draw < config.masked + config.random)]
    seen[swapped] = rng.choice(ordinary, len(swapped))
    return seen
