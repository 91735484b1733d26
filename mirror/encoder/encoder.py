"""The encoder: a pretrained backbone, its tokenizer and a pooling.

One class for training, evaluation and users, so that what is measured is what was trained and what is saved.
"""

import inspect
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from mirror.config import Pooling
from mirror.data.views import DropHead, Span
from mirror.encoder.backbone import load_backbone, longest_text, positions, quiet
from mirror.encoder.export import PoolingFiles, read_pooling, write_pooling, write_whole
from mirror.encoder.packing import BUCKET, ROW, TokenBlock, Tokens, pack, pad, row_width, select
from mirror.encoder.pooling import LAYERED, pool
from mirror.errors import MirrorError

log = logging.getLogger(__name__)

MAX_TOKENS = 512
"""Longest text read where the model would take more: sentence encoders seldom see more."""
TOKENS_PER_BATCH = {"cpu": 1024, "cuda": 65_536}
"""Tokens encoded at a time, by device: a CPU is fastest while they stay in its caches, a GPU wants to be filled."""
PROBE_TOLERANCE = 1e-4
"""Largest difference between packed and padded vectors, relative to their size, that passes for rounding.
Texts that see each other differ by about 1."""


class MirrorEncoder(nn.Module):
    """Texts to vectors.

    Args:
        backbone: a ``transformers`` encoder, as ``AutoModel`` loads it.
        tokenizer: its tokenizer.
        pooling: how token vectors become a text's vector.
        max_tokens: longer texts are cut; None is what the model takes, ``MAX_TOKENS`` at most.
        normalize: scale the vectors to length 1, as some encoders of others ask for.
        pad_to: pad every text to so many tokens (only for ``Pooling.mean_padded``).
        name: what the encoder is called in tables and on its model card.
    """

    def __init__(
        self,
        backbone: Any,
        tokenizer: Any,
        pooling: Pooling = Pooling.cls,
        *,
        max_tokens: int | None = None,
        normalize: bool = False,
        pad_to: int | None = None,
        name: str = "",
    ) -> None:
        super().__init__()
        self.backbone, self.tokenizer, self.pooling = backbone, tokenizer, pooling
        self.normalize, self.pad_to, self.name = normalize, pad_to, name
        self.saved_pooling: Pooling | None = None
        """What the folder it was loaded from says; None for a plain model."""
        self.max_tokens = min(max_tokens or MAX_TOKENS, longest_text(backbone, tokenizer))
        self.dimension: int = backbone.config.hidden_size
        self.drophead: DropHead | None = None
        self.packing = True
        self._first_positions: dict[int, int | None] = {}
        # The pooler is not part of the encoder; it stays so that the folder loads without a warning.
        pooler = getattr(backbone, "pooler", None)
        if isinstance(pooler, nn.Module):
            pooler.requires_grad_(False)
        self.eval()

    @classmethod
    def load(
        cls,
        path: str | Path,
        pooling: Pooling | str | None = None,
        *,
        max_tokens: int | None = None,
        setting: str = "path",
    ) -> "MirrorEncoder":
        """Load a saved encoder, a local model folder, or a model from the hub.

        Args:
            path: folder or hub name.
            pooling: for models that were saved without one (default: CLS).
            max_tokens: cut texts here; default: the saved limit.
            setting: what error messages call ``path``.

        Raises:
            MirrorError: there is no such model, the hub cannot be reached, or it is not an encoder.
        """
        name = str(path)
        local, backbone, tokenizer = load_backbone(name, setting)
        saved = read_pooling(local) if local else None
        if pooling is not None:
            pooling = Pooling(pooling)
            if saved and saved.pooling is not pooling:
                log.warning(
                    "%s was saved with %s pooling and is pooled by %s.",
                    name,
                    saved.pooling.value,
                    pooling.value,
                )
        files = PoolingFiles(pooling or (saved.pooling if saved else Pooling.cls))
        if saved:
            files.max_tokens, files.normalize, files.pad_to = saved.max_tokens, saved.normalize, saved.pad_to
        if files.pooling is not Pooling.mean_padded:
            files.pad_to = None
        encoder = cls(
            backbone,
            tokenizer,
            files.pooling,
            max_tokens=max_tokens or files.max_tokens,
            normalize=files.normalize,
            pad_to=files.pad_to,
            name=name,
        )
        encoder.saved_pooling = saved.pooling if saved else None
        return encoder

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.backbone.parameters()).device  # type: ignore[no-any-return]

    def tokenize(self, texts: Sequence[str], max_tokens: int | None = None) -> Tokens:
        """Token ids of the texts, special tokens included, without padding."""
        limit = min(max_tokens or self.max_tokens, self.max_tokens)
        encoded = self.tokenizer(
            list(texts), truncation=True, max_length=limit, padding=False, return_attention_mask=False
        )
        return {name: encoded[name] for name in ("input_ids", "token_type_ids") if name in encoded}

    def token_spans(self, text: str) -> list[Span]:
        """The tokens of a string as spans of characters, special tokens left out.

        Raises:
            MirrorError: the tokenizer is written in Python and does not know where its tokens stand.
        """
        if not self.tokenizer.is_fast:
            raise MirrorError(
                f"aug.unit=token needs a fast tokenizer, which {self.name} does not have: use aug.unit=word."
            )
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return [(start, end) for start, end in encoded["offset_mapping"] if end > start]

    def blocks(self, tokens: Tokens) -> list[TokenBlock]:
        """Lay tokens into rows: packed where the backbone keeps packed texts apart, else padded by length."""
        width = row_width(max(len(ids) for ids in tokens["input_ids"]))
        first_position = self.first_position(width) if self.packing and self.pad_to is None else None
        if first_position is None:
            return self._padded(tokens)
        pad_id, cls_id = self.tokenizer.pad_token_id, self._cls_id()
        return pack(tokens, pad_id=pad_id, cls_id=cls_id, width=width, first_position=first_position)

    def _padded(self, tokens: Tokens, bucket: int = BUCKET) -> list[TokenBlock]:
        pad_id, cls_id = self.tokenizer.pad_token_id, self._cls_id()
        return pad(tokens, pad_id=pad_id, cls_id=cls_id, width=self.pad_to, bucket=bucket)

    def inputs(self, block: TokenBlock) -> dict[str, Any]:
        """What the backbone is called with: token ids, and an attention mask that keeps the texts apart."""
        arguments: dict[str, Any] = dict(block.inputs)
        if block.packed:
            arguments["attention_mask"] = block.additive_mask(self.backbone.dtype)
            arguments["position_ids"] = block.position
        else:
            arguments["attention_mask"] = (block.text_index >= 0).long()
        return arguments

    def forward(self, blocks: Sequence[TokenBlock]) -> Tensor:
        """Vectors of the texts in their order in the batch, (N, D)."""
        return self._pooled(blocks, [self.pooling])[0]

    def _pooled(self, blocks: Sequence[TokenBlock], poolings: Sequence[Pooling]) -> Tensor:
        """The texts' vectors by each pooling, (P, N, D), from one pass through the backbone."""
        layered = any(pooling in LAYERED for pooling in poolings)
        parts = []
        for block in blocks:
            states = self._states(block, layered=layered)
            parts.append(torch.stack([pool(states, block, pooling) for pooling in poolings]))  # (P, B, D)
        order = torch.cat([block.texts for block in blocks])
        vectors = torch.cat(parts, dim=1)[:, order.argsort()]
        return F.normalize(vectors, dim=-1) if self.normalize else vectors

    def encode(
        self, texts: str | Sequence[str], *, batch_tokens: int | None = None, progress: bool = False
    ) -> NDArray[np.float32]:
        """Vectors of texts, (N, D), float32; (D,) for a single string.

        Texts are sorted by length and padded to their neighbours: over a whole collection that wastes next to
        nothing and, without dropout, beats packing.

        Raises:
            MirrorError: an item is not a string.
        """
        if isinstance(texts, str):
            vector: NDArray[np.float32] = self.encode([texts], batch_tokens=batch_tokens)[0]
            return vector
        return self.encode_by(texts, [self.pooling], batch_tokens=batch_tokens, progress=progress)[self.pooling]

    def encode_by(
        self,
        texts: Sequence[str],
        poolings: Sequence[Pooling],
        *,
        batch_tokens: int | None = None,
        progress: bool = False,
    ) -> dict[Pooling, NDArray[np.float32]]:
        """As ``encode``, by several poolings, for the price of one pass through the backbone."""
        wrong = next((i for i, text in enumerate(texts) if not isinstance(text, str)), None)
        if wrong is not None:
            raise MirrorError(f"texts[{wrong}] is not a string: {texts[wrong]!r:.80}")
        budget = batch_tokens or TOKENS_PER_BATCH.get(self.device.type, TOKENS_PER_BATCH["cuda"])
        vectors = np.empty((len(poolings), len(texts), self.dimension), dtype=np.float32)
        tokens = self.tokenize(texts) if texts else {"input_ids": []}
        lengths = np.array([len(ids) for ids in tokens["input_ids"]], dtype=np.int64)
        order = np.argsort(-lengths, kind="stable")  # longest first: the bar's guess errs on the safe side
        was_training = self.training
        self.eval()
        bar = tqdm(total=len(texts), unit="text", disable=not progress, leave=False)
        with torch.inference_mode(), bar:
            start = 0
            while start < len(order):
                count = max(1, budget // (self.pad_to or int(lengths[order[start]])))
                chosen = order[start : start + count]
                blocks = self._padded(select(tokens, chosen.tolist()), bucket=count)
                pooled = self._pooled([block.to(self.device) for block in blocks], poolings)  # (P, count, D)
                vectors[:, chosen] = pooled.float().cpu().numpy()
                bar.update(len(chosen))
                start += count
        self.train(was_training)
        return dict(zip(poolings, vectors, strict=True))

    def similarity(
        self, a: str | Sequence[str] | NDArray[np.float32], b: str | Sequence[str] | NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Cosine similarity of every text (or vector) of ``a`` with every one of ``b``, (len(a), len(b))."""

        def unit(items: str | Sequence[str] | NDArray[np.float32]) -> Tensor:
            vectors = (
                items if isinstance(items, np.ndarray) else self.encode([items] if isinstance(items, str) else items)
            )
            return F.normalize(torch.from_numpy(np.atleast_2d(vectors)), dim=-1)

        cosines: NDArray[np.float32] = (unit(a) @ unit(b).T).numpy()
        return cosines

    def save(self, folder: str | Path, beside: Mapping[str, str] = MappingProxyType({})) -> None:
        """Write the encoder to a new folder that transformers and sentence-transformers load.

        Args:
            folder: must not exist; it appears only when it is complete.
            beside: further files by name, such as the model card in ``README.md``.

        Raises:
            MirrorError: the folder exists or cannot be written; nothing is left behind.
        """

        def write(partial: Path) -> None:
            # sentence-transformers averages layers only if the configuration asks the backbone for them.
            self.backbone.config.output_hidden_states = self.pooling in LAYERED
            with quiet():
                self.backbone.save_pretrained(partial)
                self.tokenizer.save_pretrained(partial)
            files = PoolingFiles(
                self.pooling,
                self.max_tokens,
                self.normalize,
                self.pad_to if self.pooling is Pooling.mean_padded else None,
            )
            write_pooling(
                partial,
                files,
                dimension=self.dimension,
                layers=self.backbone.config.num_hidden_layers,
                cls_last=self._cls_last(),
            )
            for name, content in beside.items():
                (partial / name).write_text(content, encoding="utf-8")

        write_whole(Path(folder), write)

    def settle(self, longest: int) -> None:
        """Find out now how texts of up to ``longest`` tokens are laid out: worker processes are forks, in which the
        backbone's threads would hang."""
        if self.packing and self.pad_to is None:
            for width in range(ROW, row_width(longest) + 1, ROW):
                self.first_position(width)

    def first_position(self, width: int) -> int | None:
        """First position id of a text in a packed row of ``width`` tokens; None if this backbone cannot pack.

        Found by trying: some backbones ignore a block-diagonal mask, or have no position ids, and would mix the
        texts of a row silently. A few random texts are encoded packed and padded, and the vectors compared. The
        first position is 0 in most models and follows the padding index in RoBERTa's family.
        """
        if width not in self._first_positions:
            self._first_positions[width] = self._probe(width)
            if self._first_positions[width] is None:
                log.info("%s cannot pack rows of %d tokens: texts are padded, sorted by length.", self.name, width)
        return self._first_positions[width]

    @torch.no_grad()
    def _probe(self, width: int) -> int | None:
        if "position_ids" not in inspect.signature(self.backbone.forward).parameters:
            return None
        if width > positions(self.backbone, self.tokenizer.pad_token_id):  # of BERT, even the width counts
            return None
        generator = torch.Generator().manual_seed(0)
        sample = self.tokenize(["a"])
        tokens: Tokens = {name: [] for name in sample}
        for length in (width // 2, width // 4, width - width // 2 - width // 4, width):
            ids = torch.randint(self.backbone.config.vocab_size, (length,), generator=generator)
            ids[ids == self.tokenizer.pad_token_id] = sample["input_ids"][0][0]
            tokens["input_ids"].append(ids.tolist())
            if "token_type_ids" in tokens:
                tokens["token_type_ids"].append([0] * length)
        ids_of = {"pad_id": self.tokenizer.pad_token_id, "cls_id": None}
        was_training = self.training
        self.eval()
        try:
            expected = self([block.to(self.device) for block in pad(tokens, **ids_of)])
            for first in (0, self.tokenizer.pad_token_id + 1):
                try:
                    blocks = pack(tokens, **ids_of, width=width, first_position=first)
                    packed = self([block.to(self.device) for block in blocks])
                except Exception:  # whatever a backbone says to inputs that it was not made for (XLM: AssertionError)
                    continue
                if (packed - expected).norm() <= PROBE_TOLERANCE * expected.norm():
                    return first
            return None
        finally:
            self.train(was_training)

    def _states(self, block: TokenBlock, *, layered: bool) -> tuple[Tensor, ...]:
        """Outputs of the layers, each (R, W, D); of the last one alone unless ``layered``."""
        if self.drophead is not None:
            self.drophead.text_index, self.drophead.texts = block.text_index, len(block.texts)
        output = self.backbone(**self.inputs(block), output_hidden_states=layered, return_dict=True)
        return tuple(output.hidden_states[1:]) if layered else (output.last_hidden_state,)

    def _cls_id(self) -> int | None:
        """The CLS token's id; None where it tells nothing: XLM's closes each text, whose first token is its CLS."""
        tokenizer = self.tokenizer
        return None if tokenizer.cls_token_id == tokenizer.sep_token_id else tokenizer.cls_token_id

    def _cls_last(self) -> bool:
        ids = self.tokenize(["a"])["input_ids"][0]
        return bool(ids[-1] == self._cls_id())
