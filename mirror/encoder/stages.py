"""Stages of a pooling: one step each from token vectors to a text's vector, with its own files in
sentence-transformers' format.

Packed and padded blocks are pooled alike. A stage of one's own derives from ``Stage``: one file, and
``_target_: my_package.MyPooling`` in a file of the group ``model/pooling``.
"""

import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mirror.encoder.packing import TokenBlock
from mirror.errors import MirrorError

WEIGHTS = "model.safetensors"
SETTINGS = "config.json"


class Stage(nn.Module):
    """One step from the states of the layers to a text's vector. Its parameters, if it has any, are trained.

    ``arguments`` are those of its ``__init__``, which ``save`` writes down.
    """

    layered = False
    """Whether it looks at more than the last layer."""
    template: str | None = None
    """What a text is put into before it is encoded, with ``{text}`` and ``{mask}`` in it."""
    arguments: dict[str, Any]

    def __new__(cls, *arguments: Any, **named: Any) -> Self:
        """Note the arguments."""
        stage = super().__new__(cls)
        bound = inspect.signature(cls.__init__).bind_partial(stage, *arguments, **named)
        object.__setattr__(stage, "arguments", dict([*bound.arguments.items()][1:]))  # before nn.Module's own __init__
        return stage

    def forward(self, vectors: Tensor, block: TokenBlock, layers: Sequence[Tensor]) -> Tensor:
        """What the next stage gets.

        Args:
            vectors: from the stage before: (R, W, D) token vectors, for the first stage those of the last layer, or
                (B, D) text vectors.
            block: says which token belongs to which text.
            layers: outputs of the layers, each (R, W, D), the last one last; the last alone where no stage is layered.
        """
        raise NotImplementedError

    def size(self, dimension: int) -> int:
        """Size of its vectors, if those it gets have ``dimension``."""
        return dimension

    def save(self, folder: Path) -> None:
        """Write its files into its own folder, which exists; by default, its arguments and its parameters."""
        write_json(folder / SETTINGS, self.arguments)
        if state := self.state_dict():
            save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / WEIGHTS)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The stage that ``save`` wrote; by default with the saved arguments and parameters.

        Raises:
            MirrorError: its files are missing or damaged.
        """
        stage = cls(**read_json(folder / SETTINGS))
        if (folder / WEIGHTS).exists():
            stage.load_state_dict(load_file(folder / WEIGHTS))
        return stage


class LayerMix(Stage):
    """Weighted mean of the layers, embeddings left out: sentence-transformers' ``WeightedLayerPooling``.

    Args:
        weights: one for each layer, the first layer first.
        trainable: whether the weights are learnt.
    """

    layered = True

    def __init__(self, weights: Sequence[float], *, trainable: bool = False) -> None:
        super().__init__()
        self.fixed = [float(weight) for weight in weights]
        self.layer_weights = nn.Parameter(torch.tensor(self.fixed)) if trainable else None
        self.dimension = 0

    def extra_repr(self) -> str:
        """What distinguishes it from others of its kind."""
        return f"{self.fixed}"

    def size(self, dimension: int) -> int:
        """Kept for saving."""
        self.dimension = dimension
        return dimension

    def forward(self, vectors: Tensor, block: TokenBlock, layers: Sequence[Tensor]) -> Tensor:
        """(R, W, D)."""
        weights: Any = self.fixed if self.layer_weights is None else self.layer_weights
        mixed = sum(weight * state for weight, state in zip(weights, layers, strict=True) if weight != 0)
        averaged: Tensor = mixed / sum(weights)
        return averaged

    def save(self, folder: Path) -> None:
        """``layer_start=1`` leaves the embeddings out; the width goes by its name in every sentence-transformers."""
        weights = torch.tensor(self.fixed) if self.layer_weights is None else self.layer_weights.detach().cpu()
        sizes = {"word_embedding_dimension": self.dimension, "layer_start": 1, "num_hidden_layers": len(self.fixed)}
        write_json(folder / SETTINGS, sizes)
        save_file({"layer_weights": weights.float()}, folder / WEIGHTS)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Weights that are all 0 or 1 are a choice of layers and stay; others were learnt, and are trained further.

        Raises:
            MirrorError: the embeddings take part, which no pooling of mirror does.
        """
        if read_json(folder / SETTINGS).get("layer_start") != 1:
            raise MirrorError(
                f"{folder} weighs the embeddings too, which mirror does not run: use sentence-transformers."
            )
        weights = load_file(folder / WEIGHTS)["layer_weights"].tolist()
        return cls(weights, trainable=not {*weights} <= {0.0, 1.0})


class TokenPooling(Stage):
    """One vector from the token vectors: sentence-transformers' ``Pooling``.

    Args:
        modes: ``cls``, ``mean`` (of the real tokens, special ones included), ``max``, or ``mean_padded`` (the
            Mirror-BERT authors' mean, in which padding counts; for reproduction only). Several are concatenated, in
            the order in which sentence-transformers concatenates them: cls, max, mean.
        cls_last: the CLS token ends the text (XLNet), which sentence-transformers calls ``lasttoken``.
    """

    MODES: ClassVar[dict[str, str]] = {
        "cls": "cls", "cls_token": "cls", "max": "max", "max_tokens": "max", "mean": "mean", "mean_tokens": "mean",
        "lasttoken": "cls",
    }  # fmt: skip
    """Sentence-transformers' names, of all its versions."""

    ORDER: ClassVar[tuple[str, ...]] = ("cls", "max", "mean", "mean_padded")

    def __init__(self, *modes: str, cls_last: bool = False) -> None:
        super().__init__()
        self.modes, self.cls_last = tuple(sorted(modes or ("mean",), key=self.ORDER.index)), cls_last
        self.dimension = 0
        if cls_last and "cls" in self.modes[:-1]:
            raise MirrorError(
                "model.pooling=concat: this model's CLS token ends the text, which sentence-transformers concatenates "
                "in another order; choose cls or mean."
            )

    def extra_repr(self) -> str:
        """What distinguishes it from others of its kind."""
        return " ".join(self.modes)

    def forward(self, vectors: Tensor, block: TokenBlock, layers: Sequence[Tensor]) -> Tensor:
        """(R, W, D) to (B, D), or (B, kD) of k modes."""
        pooled = [self._pooled(mode, vectors, block) for mode in self.modes]
        return pooled[0] if len(pooled) == 1 else torch.cat([part.float() for part in pooled], dim=-1)

    def _pooled(self, mode: str, vectors: Tensor, block: TokenBlock) -> Tensor:
        if mode == "mean_padded":
            return vectors.mean(dim=1)
        flat = vectors.flatten(0, 1)  # (R * W, D)
        if mode == "cls":
            return flat[block.cls_index]
        # Padding is one more text, the last: to pick the real tokens out, the program would wait for a GPU to count
        # them.
        count, flat = len(block.texts), flat.float()
        owner = block.text_index.flatten()
        owner = owner.where(owner >= 0, count)
        if mode == "max":
            lowest = flat.new_full((count + 1, flat.shape[1]), -torch.inf)
            return lowest.scatter_reduce(0, owner[:, None].expand_as(flat), flat, "amax")[:count]
        sums = flat.new_zeros(count + 1, flat.shape[1]).index_add(0, owner, flat)[:count]
        sizes = flat.new_zeros(count + 1).index_add(0, owner, flat.new_ones(len(owner)))[:count]
        return sums / sizes[:, None]

    def size(self, dimension: int) -> int:
        """One D for each mode."""
        self.dimension = dimension  # kept for the file
        return dimension * len(self.modes)

    def save(self, folder: Path) -> None:
        """In the form that every version of sentence-transformers reads."""
        names = {"cls": "lasttoken" if self.cls_last else "cls_token", "max": "max_tokens"}
        own = {names.get(mode, "mean_tokens") for mode in self.modes}
        modes = ("cls_token", "mean_tokens", "max_tokens", "lasttoken")
        flags = {f"pooling_mode_{mode}": mode in own for mode in modes}
        write_json(folder / SETTINGS, {"word_embedding_dimension": self.dimension, **flags})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """From any version's file.

        Raises:
            MirrorError: a mode is not known, or several are concatenated in another order.
        """
        settings = read_json(folder / SETTINGS)
        mode = settings.get("pooling_mode")
        modes = [mode] if isinstance(mode, str) else list(mode or [])
        if odd := next((key for key, on in settings.items() if "mode_" in key and not isinstance(on, bool)), None):
            raise MirrorError(f"{folder / SETTINGS} is damaged: {odd} should be true or false, save the encoder again.")
        if mode is None:
            on = {key.removeprefix("pooling_mode_") for key, on in settings.items() if on is True and "mode" in key}
            modes = [mode for mode in cls.MODES if mode in on] if on <= cls.MODES.keys() else sorted(on)
        ours = [cls.MODES.get(mode, "") for mode in modes]
        last = "lasttoken" in modes
        if not ours or "" in ours or ours != sorted({*ours}, key=cls.ORDER.index) or (last and len(modes) > 1):
            raise MirrorError(f"{folder} pools by {modes}, which mirror does not run: use sentence-transformers.")
        return cls(*ours, cls_last=last)


def write_json(path: Path, content: Any) -> None:
    """A small JSON file next to the weights."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_json(path: Path, kind: type = dict) -> Any:
    """A small JSON file next to the weights, which holds an object or, of ``kind`` list, a list.

    Raises:
        MirrorError: it is missing or damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MirrorError(f"{path} cannot be read ({error.strerror}): save the encoder again.") from error
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, kind):
        raise MirrorError(
            f"{path} is damaged (no JSON {'list' if kind is list else 'object'}): save the encoder again."
        )
    return content
