"""Translation language modelling: masked tokens guessed from both languages (XLM, Conneau and Lample 2019; LaBSE)."""

from collections.abc import Sequence
from typing import Any, ClassVar

from tqdm import tqdm

from mirror.data.rows import Pair
from mirror.errors import MirrorError
from mirror.pretraining.corpus import CHUNK, Corpus, frame, joined
from mirror.pretraining.objectives.base import Objective


class TranslationLanguageModelling(Objective):
    """A text and its translation stand in one sequence, and masked tokens of both are guessed.

    What is missing in one language can be read in the other. The tokens are laid out as the tokenizer lays out pairs;
    their positions are counted through, and no embedding tells the languages apart.
    """

    pairs: ClassVar[bool] = True

    @staticmethod
    def corpus(texts: Sequence[Pair], tokenizer: Any, max_tokens: int, *, progress: bool) -> Corpus:
        """Each pair as one piece, the longer text cut where they are too long together.

        Raises:
            MirrorError: the two texts of each pair are the same.
        """
        if texts and all(left == right for left, right in texts):
            raise MirrorError(
                "objective=tlm reads pairs of translations, and the two texts of each pair are the same: give a file "
                "of pairs by data=pairs, one pair a line as in a||b."
            )
        before, behind = frame(tokenizer)
        parts = []
        for first in tqdm(range(0, len(texts), CHUNK), "tokenising", unit_scale=CHUNK, disable=not progress):
            left, right = zip(*texts[first : first + CHUNK], strict=True)
            encoded = tokenizer(
                list(left), list(right), truncation=True, max_length=max_tokens, return_attention_mask=False
            )
            # The separator between the two stays, and is never masked.
            parts += [ids[len(before) : len(ids) - len(behind)] for ids in encoded["input_ids"]]
        return joined(parts, [len(part) for part in parts], tokenizer)
