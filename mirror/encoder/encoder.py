"""The encoder: a pretrained backbone, its tokenizer and a pooling.

One class for training, evaluation and users, so that the measured encoder is the trained one and the saved one.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from mirror.config import Pooling, check, limit
from mirror.config.compose import named_model
from mirror.config.sections import named_pooling
from mirror.encoder.backbone import load_backbone, longest_text
from mirror.encoder.dense import Normalize
from mirror.encoder.export import read_folder, save_encoder
from mirror.encoder.kept_layers import with_layers
from mirror.encoder.layout import Layout, check_characters, check_no_table
from mirror.encoder.packing import TokenBlock, select
from mirror.encoder.perturb import Perturbation
from mirror.encoder.pooling import TextPooling, make_pooling
from mirror.errors import MirrorError

log = logging.getLogger(__name__)

MAX_TOKENS = 512
"""Longest text read, even if the model takes more: sentence encoders seldom see longer ones."""
TOKENS_PER_BATCH = {"cpu": 1024, "cuda": 65_536}
"""Tokens encoded at a time, by device: a CPU is fastest while they stay in its caches, a GPU wants to be filled."""

PoolingChoice = Pooling | str | Mapping[str, Any]
"""A name, or a part: ``_target_`` and its settings."""


class MirrorEncoder(nn.Module):
    """Texts to vectors.

    Args:
        backbone: a ``transformers`` encoder, as ``AutoModel`` loads it.
        tokenizer: its tokenizer.
        pooling: how token vectors become a text's vector.
        max_tokens: longer texts are cut; None is what the model takes, ``MAX_TOKENS`` at most.
        pad_to: pad every text to so many tokens (only for ``Pooling.mean_padded``).
        name: what the encoder is called in tables and on its model card.
    """

    def __init__(
        self,
        backbone: Any,
        tokenizer: Any,
        pooling: PoolingChoice | TextPooling = Pooling.cls,
        *,
        max_tokens: int | None = None,
        pad_to: int | None = None,
        name: str = "",
    ) -> None:
        super().__init__()
        self.backbone, self.tokenizer, self.name = backbone, tokenizer, name
        longest = min(max_tokens or MAX_TOKENS, longest_text(backbone, tokenizer))
        self.layout = Layout(backbone, tokenizer, longest, name, pad_to)
        self.pooling = pooling if isinstance(pooling, TextPooling) else self.make_pooling(pooling)
        self.saved_pooling: str | None = None
        """The name of the pooling in its folder; None for a plain model."""
        self.scores: dict[str, dict[str, dict[str, float]]] = {}
        """Scores × 100 from ``mirror_tune``, by column (``tuned``, ``raw mean``) and set."""
        self.loss_curve: list[tuple[int, float]] = []
        """Its loss curve: steps and losses."""
        self.block: TokenBlock | None = None
        """The block being encoded."""
        # The pooler is not part of the encoder; it stays so that the folder loads without a warning.
        pooler = getattr(backbone, "pooler", None)
        if isinstance(pooler, nn.Module):
            pooler.requires_grad_(False)
        self.eval()

    @classmethod
    def load(
        cls,
        path: str | Path,
        pooling: PoolingChoice | TextPooling | None = None,
        *,
        max_tokens: int | None = None,
        keep_layers: Sequence[int] | None = None,
        setting: str = "path",
    ) -> "MirrorEncoder":
        """Load a saved encoder, a local model folder, or a model from the hub.

        Args:
            path: folder or hub name, or a file of the group ``model``, such as ``"mini"``.
            pooling: for models that were saved without one (default: CLS).
            max_tokens: cut texts here; default: the saved limit.
            keep_layers: layers of the model that stay, from 0; default: all.
            setting: what error messages call ``path``.

        Raises:
            MirrorError: there is no such model, the hub cannot be reached, or it is not an encoder.
        """
        limit("max_tokens", max_tokens)
        if pooling is not None and not isinstance(pooling, TextPooling | Mapping):
            named_pooling("pooling", pooling)
        name = str(path) if setting == "model.path" else named_model(str(path)) or str(path)
        local, backbone, tokenizer = load_backbone(name, setting)
        saved = read_folder(local, backbone.config) if local else None
        if keep_layers is not None:
            backbone = with_layers(backbone, keep_layers, name)
            if pooling is None and saved and saved.pooling.layered:  # its weights are those of all layers
                pooling = named_pooling("pooling", saved.pooling.name)
        encoder = cls(
            backbone,
            tokenizer,
            saved.pooling if saved else Pooling.cls,
            max_tokens=max_tokens or (saved.max_tokens if saved else None),
            pad_to=saved.pad_to if saved else None,
            name=name,
        )
        encoder.saved_pooling = saved.pooling.name if saved else None
        if pooling is not None:
            unit = any(isinstance(stage, Normalize) for stage in encoder.pooling.stages)
            encoder.pooling = (
                pooling if isinstance(pooling, TextPooling) else encoder.make_pooling(pooling, normalize=unit)
            )
            if encoder.pooling.name != Pooling.mean_padded.value:
                encoder.layout.pad_to = None
            if saved and saved.pooling.name != (now := encoder.pooling.name):
                log.warning("%s was saved with %s pooling and is pooled by %s.", name, saved.pooling.name, now)
        return encoder

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.backbone.parameters()).device  # type: ignore[no-any-return]

    @property
    def dimension(self) -> int:
        """Size D of the vectors."""
        return self.pooling.dimension

    @property
    def max_tokens(self) -> int:
        """Longer texts are cut."""
        return self.layout.max_tokens

    def __repr__(self) -> str:
        kind = type(self.backbone).__name__
        return f"MirrorEncoder({self.name}: {kind}, {self.pooling.name}, D={self.dimension}, {self.max_tokens} tokens)"

    def make_pooling(self, choice: PoolingChoice, *, normalize: bool = False) -> TextPooling:
        """A pooling for this encoder's backbone; see ``mirror.encoder.pooling.make_pooling``."""
        config = self.backbone.config
        return make_pooling(
            choice,
            hidden=config.hidden_size,
            layers=config.num_hidden_layers,
            mask_id=self.tokenizer.mask_token_id,
            cls_last=self.layout.cls_last,
            normalize=normalize,
        )

    def replace_backbone(self, backbone: Any) -> None:
        """Take another backbone of the same architecture, on the device of the old one or not."""
        self.backbone = self.layout.backbone = backbone

    @contextmanager
    def perturbed(self, perturbations: Sequence[Perturbation]) -> Iterator[None]:
        """In training mode, with the perturbations attached; afterwards in evaluation mode, without them."""
        attached: list[Perturbation] = []
        try:
            for perturbation in perturbations:
                perturbation.attach(self)
                attached.append(perturbation)
            self.train()
            yield
        finally:
            for perturbation in reversed(attached):
                perturbation.detach()
            self.eval()

    def forward(self, blocks: Sequence[TokenBlock]) -> Tensor:
        """Vectors of the texts in their order in the batch, (N, D)."""
        return self.pooled(blocks, [self.pooling])[0]

    def pooled(self, blocks: Sequence[TokenBlock], poolings: Sequence[TextPooling]) -> list[Tensor]:
        """The texts' vectors by each pooling, (N, D) each, from one pass through the backbone."""
        layered = any(pooling.layered for pooling in poolings)
        parts: list[list[Tensor]] = [[] for _ in poolings]
        for block in blocks:
            states = self.states(block, layered=layered)
            for part, pooling in zip(parts, poolings, strict=True):
                part.append(pooling(states, block))  # (B, D)
        order = torch.cat([block.texts for block in blocks]).argsort()
        return [torch.cat(part)[order] for part in parts]

    def states(self, block: TokenBlock, *, layered: bool) -> tuple[Tensor, ...]:
        """Outputs of the layers for a block, each (R, W, D); of the last one alone unless ``layered``."""
        self.block = block
        output = self.backbone(**self.layout.inputs(block), output_hidden_states=layered, return_dict=True)
        layers = output.hidden_states[1:] if layered else (output.last_hidden_state,)
        # Of a backbone whose weights are bfloat16; autocast, of training, leaves them in float32.
        return tuple(state.float() for state in layers) if self.backbone.dtype is torch.bfloat16 else tuple(layers)

    def encode(
        self, texts: str | Iterable[str], *, batch_tokens: int | None = None, progress: bool = False
    ) -> NDArray[np.float32]:
        """Vectors of texts, (N, D), float32; (D,) for a single string.

        Texts are sorted by length and padded to their neighbours: over a whole collection that wastes next to
        nothing and, without dropout, beats packing.

        Raises:
            MirrorError: an item is not a string, or it is a table.
        """
        if isinstance(texts, str):
            return self.encode([texts], batch_tokens=batch_tokens)[0]  # type: ignore[no-any-return]
        check_no_table(texts)
        if not isinstance(texts, Iterable):
            raise MirrorError(f"texts={texts!r:.80} is no text: give a string or several, as in ['one', 'two'].")
        return self.encode_by(list(texts), [self.pooling], batch_tokens=batch_tokens, progress=progress)[0]

    def encode_by(
        self,
        texts: Sequence[str],
        poolings: Sequence[TextPooling],
        *,
        batch_tokens: int | None = None,
        progress: bool = False,
    ) -> list[NDArray[np.float32]]:
        """Like ``encode``, for several poolings, in one pass through the backbone."""
        if self.layout.pad_to is None and any(pooling.name == Pooling.mean_padded.value for pooling in poolings):
            raise MirrorError(
                f"pooling=mean_padded averages padding, and {self.name} has no fixed width, so that a text's vector "
                "would depend on its neighbours: use pooling=mean."
            )
        for i, text in enumerate(texts):
            if not isinstance(text, str):
                raise MirrorError(f"texts[{i}] is not a string: {text!r:.80}")
            check_characters(text, f"texts[{i}]")
        whole = batch_tokens is None or (type(batch_tokens) is int and batch_tokens > 0)
        check(whole, "batch_tokens", batch_tokens, "a number above 0, or None")
        budget = batch_tokens or TOKENS_PER_BATCH.get(self.device.type, TOKENS_PER_BATCH["cuda"])
        vectors = [np.empty((len(texts), pooling.dimension), dtype=np.float32) for pooling in poolings]
        template, *others = {pooling.template for pooling in poolings}
        if others:
            raise MirrorError("These poolings put texts into different templates: encode by one after the other.")
        tokens = self.layout.tokenize(texts, template=template) if texts else {"input_ids": []}
        lengths = np.array([len(ids) for ids in tokens["input_ids"]], dtype=np.int64)
        order = np.argsort(-lengths, kind="stable")  # longest first, so that the bar overestimates the time left
        was_training = self.training
        self.eval()
        bar = tqdm(total=len(texts), unit="text", disable=not progress, leave=False)
        with torch.inference_mode(), bar:
            start = 0
            while start < len(order):
                count = max(1, budget // (self.layout.pad_to or int(lengths[order[start]])))
                chosen = order[start : start + count]
                blocks = self.layout.padded(select(tokens, chosen.tolist()), bucket=count)
                pooled = self.pooled([block.to(self.device) for block in blocks], poolings)  # (count, D) each
                for rows, found in zip(vectors, pooled, strict=True):
                    rows[chosen] = found.float().cpu().numpy()
                bar.update(len(chosen))
                start += count
        self.train(was_training)
        return vectors

    def similarity(
        self, a: str | Sequence[str] | NDArray[np.float32], b: str | Sequence[str] | NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Cosine similarity of every text (or vector) of ``a`` with every one of ``b``, (len(a), len(b))."""

        def unit(items: str | Sequence[str] | NDArray[np.float32]) -> Tensor:
            numbers = isinstance(items, np.ndarray) and items.dtype.kind in "fiu"
            vectors = np.atleast_2d(items if numbers else self.encode([items] if isinstance(items, str) else items))
            check(vectors.shape[-1] == self.dimension, "vectors", vectors.shape, f"rows of {self.dimension} numbers")
            return F.normalize(torch.from_numpy(vectors.astype(np.float32)), dim=-1)

        cosines: NDArray[np.float32] = (unit(a) @ unit(b).T).numpy()
        return cosines

    def save(
        self, folder: str | Path, beside: Mapping[str, str] = MappingProxyType({}), *, replace: bool = False
    ) -> None:
        """Write the encoder to a new folder that transformers and sentence-transformers load.

        Args:
            folder: must not exist; it appears only when it is complete.
            beside: further files for the folder, by name, such as the model card in ``README.md``.
            replace: an existing folder gives way to the new one, as soon as that is complete.

        Raises:
            MirrorError: the folder exists or cannot be written; nothing is left behind.
        """
        save_encoder(folder, self.backbone, self.tokenizer, self.pooling, self.layout, beside, replace=replace)
