"""A finished encoder whose vectors another one learns from."""

import torch
from torch import Tensor

from mirror.encoder.encoder import MirrorEncoder
from mirror.errors import MirrorError


class Teacher:
    """A frozen encoder, without dropout, that reads texts with its own tokenizer.

    It is no module, so that it stays out of its loss's weights, checkpoints and optimizer. Each process loads its own.

    Args:
        path: an encoder's folder, a model folder or a hub name, as ``MirrorEncoder.load`` takes it.
        setting: what error messages call it.

    Raises:
        MirrorError: none is given, or it cannot be loaded.
    """

    def __init__(self, path: str | None, setting: str = "loss.teacher") -> None:
        if not path:
            raise MirrorError(f"{setting} is not set: add {setting}=…, the folder of an encoder to learn from.")
        self.encoder = MirrorEncoder.load(path, setting=setting).requires_grad_(False)

    @property
    def name(self) -> str:
        """What it was loaded from."""
        return self.encoder.name

    @property
    def dimension(self) -> int:
        """Size D of its vectors."""
        return self.encoder.dimension

    @torch.no_grad()
    def vectors(self, strings: list[list[str]], device: torch.device) -> Tensor:
        """The vectors of the views of a batch, (V, N, D) in float32; equal strings are encoded once.

        Args:
            strings: V lists of N strings.
            device: where they are wanted; the teacher moves there.
        """
        places: dict[str, int] = {}
        chosen = [[places.setdefault(text, len(places)) for text in view] for view in strings]
        if self.encoder.device != device:
            self.encoder.to(device)
        blocks = self.encoder.layout.padded(self.encoder.layout.tokenize(list(places)))
        found: Tensor = self.encoder([block.to(device) for block in blocks])  # (distinct, D)
        return found.float()[torch.tensor(chosen, device=device)]
