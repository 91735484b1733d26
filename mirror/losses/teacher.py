"""What a student learns from: finished encoders, whose vectors are made once and kept, or a scorer of pairs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoConfig

from mirror.encoder import hub
from mirror.encoder.backbone import quiet
from mirror.encoder.damage import unloadable
from mirror.encoder.digest import digest, digest_of
from mirror.encoder.encoder import MirrorEncoder
from mirror.encoder.pooling import TextPooling
from mirror.encoder.stages import LayerMix, Stage
from mirror.errors import MirrorError
from mirror.losses.kept import Kept

Given = str | list[str] | None
"""One teacher, or several."""
SCORER = "ForSequenceClassification"
"""How the architecture of a cross-encoder is called."""


def folders(given: Given, setting: str = "teacher") -> list[str]:
    """The teachers that a setting names.

    Raises:
        MirrorError: it names none, or something else than folders.
    """
    if not given:
        raise MirrorError(f"{setting} is not set: add {setting}=…, the folder of an encoder to learn from.")
    named = given if isinstance(given, list) else [given]
    for name in named:
        if not isinstance(name, str) or not name:
            raise MirrorError(
                f"{setting} names {name!r:.40}, which is no folder: give that of an encoder, or several in brackets."
            )
    if len({*named}) < len(named):
        raise MirrorError(f"{setting}=[{','.join(named)}] names one twice: give each encoder once.")
    return named


class Teacher:
    """A frozen encoder, without dropout, that reads texts with its own tokenizer, in float32.

    It is no module, so that it stays out of its loss's weights, checkpoints and optimizer. Each process loads its own.

    Args:
        path: an encoder's folder, a model folder or a hub name, as ``MirrorEncoder.load`` takes it.
        setting: what error messages call it.
        keep: folder in which its vectors are kept; None makes them anew each time.
        layers: those whose outputs are asked for too, from 0.
        token: how the tokens of a layer become a vector, ``cls`` or ``mean``.

    Raises:
        MirrorError: it cannot be loaded, scores pairs, or has fewer layers.
    """

    def __init__(
        self,
        path: str,
        setting: str = "teacher",
        keep: str | None = None,
        layers: Sequence[int] = (),
        token: str = "mean",
    ) -> None:
        self.encoder = MirrorEncoder.load(path, setting=setting).requires_grad_(False)
        config = self.encoder.backbone.config
        if scores_pairs(config):
            raise MirrorError(f"{setting}={path} scores pairs of texts: set loss.match=scores, or give an encoder.")
        if layers and max(layers) >= config.num_hidden_layers:
            raise MirrorError(
                f"loss.layers={list(layers)} names layer {max(layers)}, and {path} has {config.num_hidden_layers}, "
                f"from 0 to {config.num_hidden_layers - 1}."
            )
        self.poolings = [self.encoder.pooling, *layer_poolings(self.encoder, layers, token)]
        self.sizes = [pooling.dimension for pooling in self.poolings]
        self.kept: Kept | None = None
        if keep:
            wanted = "".join(f"-{token}{layer}" for layer in layers)
            self.kept = Kept(Path(keep) / f"{digest(self.encoder)}{wanted}", sum(self.sizes))

    @property
    def name(self) -> str:
        """What it was loaded from."""
        return self.encoder.name

    @property
    def dimension(self) -> int:
        """Size D of its vectors."""
        return self.encoder.dimension

    def vectors(self, texts: Sequence[Sequence[str]], device: torch.device) -> Tensor:
        """The vectors of the texts behind the views of a batch, (V, N, D) in float32.

        Args:
            texts: V lists of N texts; equal ones are encoded once.
            device: where they are wanted; the teacher moves there when it has to encode.
        """
        return self.with_layers(texts, device)[0]

    def with_layers(self, texts: Sequence[Sequence[str]], device: torch.device) -> list[Tensor]:
        """The same, and the outputs of the layers that it was asked for, (V, N, H) each."""

        def make(some: list[str]) -> NDArray[np.float32]:
            if self.encoder.device != device:
                self.encoder.to(device)
            with torch.autocast(device.type, enabled=False):
                return np.concatenate(self.encoder.encode_by(some, self.poolings), axis=1)

        return list(rows_of(texts, make, self.kept).to(device).split(self.sizes, dim=-1))


class PairTeacher:
    """A cross-encoder of sentence-transformers that scores pairs of texts from 0 to 1, without dropout, in float32.

    Args:
        path: a folder or a hub name, as ``CrossEncoder`` takes it.
        setting: what error messages call it.
        keep: folder in which its scores are kept; None makes them anew each time.

    Raises:
        MirrorError: sentence-transformers is missing, or this is no cross-encoder with one score for a pair.
    """

    def __init__(self, path: str, setting: str = "teacher", keep: str | None = None) -> None:
        try:
            from sentence_transformers import CrossEncoder
        except ImportError as error:
            raise MirrorError(
                f"loss.match=scores needs sentence-transformers ({error}): pip install 'mirror-encoders[distil]'."
            ) from None
        self.name, source = path, hub.source_of(path, setting)
        reachable = hub.looks_local(source) or hub.go_offline_unless_reachable()
        if hub.looks_local(source) and not Path(source).exists():
            raise MirrorError(f"{setting}={path} does not exist: give a model folder or a hub name.")
        try:
            with quiet():
                config = AutoConfig.from_pretrained(source, trust_remote_code=False)
                if not scores_pairs(config) or config.num_labels != 1:
                    raise MirrorError(
                        f"{setting}={path} is no cross-encoder with one score for a pair of texts: give one, or set "
                        "loss.match=cosine."
                    )
                self.model = CrossEncoder(source, device="cpu", activation_fn=torch.nn.Sigmoid())
        except MirrorError:
            raise
        except Exception as error:  # the libraries may raise anything for a damaged or foreign folder
            raise unloadable(setting, path, error, reachable=reachable, source=source) from error
        self.kept: Kept | None = None
        if keep:
            found = digest_of(self.model, self.model.tokenizer, config, self.model.max_length)
            self.kept = Kept(Path(keep) / f"{found}-pairs", 1)

    def scores(self, pairs: Sequence[Sequence[tuple[str, str]]], device: torch.device) -> Tensor:
        """The scores of rows of pairs of the same number, (N, K) in float32; equal pairs are scored once."""

        def make(some: list[str]) -> NDArray[np.float32]:
            self.model.to(device)
            with torch.autocast(device.type, enabled=False):
                both = [tuple(text.split(BETWEEN)) for text in some]
                scores: NDArray[np.float32] = self.model.predict(both, show_progress_bar=False)
                return scores.astype(np.float32)[:, None]

        return rows_of([[BETWEEN.join(pair) for pair in row] for row in pairs], make, self.kept).to(device)[..., 0]


BETWEEN = "\0"
"""Parts the texts of a pair; no text that a file gives holds it."""


def rows_of(texts: Sequence[Sequence[str]], make: Any, kept: Kept | None) -> Tensor:
    """The rows of V lists of N texts, (V, N, D), on the CPU; equal ones are made once."""
    places: dict[str, int] = {}
    chosen = [[places.setdefault(text, len(places)) for text in some] for some in texts]
    rows = kept.rows(list(places), make) if kept else make(list(places))
    return torch.from_numpy(rows)[torch.tensor(chosen)]


def layer_poolings(encoder: MirrorEncoder, layers: Sequence[int], token: str) -> list[TextPooling]:
    """Each of some layers pooled by itself, ``cls`` or ``mean``."""
    config, found = encoder.backbone.config, []
    for layer in layers:
        one = [float(number == layer) for number in range(config.num_hidden_layers)]
        stages: list[Stage] = [LayerMix(one), *encoder.make_pooling(token).stages]
        found.append(TextPooling(stages, f"layer {layer}", config.hidden_size))
    return found


def scores_pairs(config: Any) -> bool:
    """Whether a configuration is that of a cross-encoder."""
    return any(str(name).endswith(SCORER) for name in getattr(config, "architectures", None) or [])
