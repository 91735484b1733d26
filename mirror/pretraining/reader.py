"""A masked language model that reads blocks of tokens."""

from typing import Any

from torch import Tensor

from mirror.encoder.encoder import MirrorEncoder
from mirror.encoder.packing import TokenBlock


class MaskReader:
    """Scores the wanted tokens alone, a seventh of all, and hands out the states of the others too.

    Args:
        model: a masked language model as ``AutoModelForMaskedLM`` loads it.
        encoder: its backbone with its tokenizer.
    """

    def __init__(self, model: Any, encoder: MirrorEncoder) -> None:
        self.model, self.encoder = model, encoder
        self._places: Tensor | None = None
        self._states: Tensor | None = None
        encoder.backbone.register_forward_hook(self._keep_wanted)

    def _keep_wanted(self, backbone: Any, arguments: Any, output: Any) -> Any:
        """Pass only the states of the wanted tokens to the head."""
        if self._places is not None:
            self._states = output.last_hidden_state  # (R, W, D)
            output.last_hidden_state = self._states.flatten(0, 1)[self._places][None]  # (1, M, D)
        return output

    def __call__(self, block: TokenBlock, places: Tensor) -> tuple[Tensor, Tensor]:
        """Scores over the vocabulary, (M, V), at ``places`` among the block's R * W tokens; all states, (R, W, D)."""
        self._places = places
        try:
            scores: Tensor = self.model(**self.encoder.layout.inputs(block)).logits[0]
            assert self._states is not None
            return scores, self._states
        finally:
            self._places = self._states = None
