"""The top layers begin anew."""

from typing import Annotated

from mirror.adapt.base import Adaptation
from mirror.adapt.layers import check_layers, heights
from mirror.config import Rule
from mirror.encoder.encoder import MirrorEncoder


class Reinit(Adaptation):
    """The top layers are drawn anew as the model's own code does it, and everything learns (Zhang et al. 2021, arXiv
    2006.05987).

    Args:
        layers: so many, from the top.
    """

    def __init__(self, layers: Annotated[int, Rule(lambda count: count >= 1, "at least 1")] = 1) -> None:
        self.layers = layers

    def check(self, encoder: MirrorEncoder) -> None:
        """Raises MirrorError if there are fewer."""
        check_layers(self.layers, encoder)

    def attach(self, encoder: MirrorEncoder) -> None:
        """Draw them."""
        backbone, found = encoder.backbone, heights(encoder.backbone)
        lowest = max(found.values()) - self.layers + 1
        top = {name for name, height in found.items() if height >= lowest and not name.startswith("pooler")}
        for prefix, module in backbone.named_modules():
            own = [weights for name, weights in module.named_parameters(prefix, recurse=False) if name in top]
            for weights in own:  # transformers leaves alone what it has read from a file
                vars(weights).pop("_is_hf_initialized", None)
            if own:
                backbone._init_weights(module)
