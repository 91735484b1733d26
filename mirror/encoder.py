"""The encoder: a pretrained backbone, its tokenizer and a pooling.

One class for training, evaluation and users, so that what is measured is what was trained and what is saved.
"""

import inspect
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm
from transformers import AutoConfig, AutoModel, AutoTokenizer

from mirror import hub
from mirror.augment import DropHead, Span
from mirror.config import Pooling
from mirror.errors import MirrorError
from mirror.export import LAYERED, PoolingFiles, layer_weights, read_pooling, write_pooling, write_whole
from mirror.packing import BUCKET, ROW, TokenBlock, Tokens, pack, pad, select

log = logging.getLogger(__name__)

MAX_TOKENS = 512
"""Longest text read where the model would take more: sentence encoders seldom see more."""
TOKENS_PER_BATCH = {"cpu": 1024, "cuda": 65_536}
"""Tokens encoded at a time, by device: a CPU is fastest while they stay in its caches, a GPU wants to be filled."""
PROBE_TOLERANCE = 1e-3
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
        self.max_tokens = min(max_tokens or MAX_TOKENS, _limit(backbone, tokenizer))
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
        cls, path: str | Path, pooling: Pooling | str | None = None, *, max_tokens: int | None = None
    ) -> "MirrorEncoder":
        """Load a saved encoder, a local model folder, or a model from the hub.

        Args:
            path: folder or hub name.
            pooling: for models that were saved without one (default: CLS).
            max_tokens: cut texts here; default: the saved limit.

        Raises:
            MirrorError: there is no such model, the hub cannot be reached, or it is not an encoder.
        """
        name = str(path)
        local, backbone, tokenizer = _load_backbone(name)
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
        return cls(
            backbone,
            tokenizer,
            files.pooling,
            max_tokens=max_tokens or files.max_tokens,
            normalize=files.normalize,
            pad_to=files.pad_to,
            name=name,
        )

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
        longest = max(len(ids) for ids in tokens["input_ids"])
        width = -(-longest // ROW) * ROW
        first_position = self.first_position(width) if self.packing and self.pad_to is None else None
        if first_position is None:
            return self._padded(tokens)
        pad_id, cls_id = self.tokenizer.pad_token_id, self.tokenizer.cls_token_id
        return pack(tokens, pad_id=pad_id, cls_id=cls_id, width=width, first_position=first_position)

    def _padded(self, tokens: Tokens, bucket: int = BUCKET) -> list[TokenBlock]:
        pad_id, cls_id = self.tokenizer.pad_token_id, self.tokenizer.cls_token_id
        return pad(tokens, pad_id=pad_id, cls_id=cls_id, width=self.pad_to, bucket=bucket)

    def forward(self, blocks: Sequence[TokenBlock]) -> Tensor:
        """Vectors of the texts in their order in the batch, (N, D)."""
        vectors = torch.cat([self._pool(self._hidden_states(block), block) for block in blocks])  # (N, D)
        order = torch.cat([block.texts for block in blocks])
        vectors = vectors[order.argsort()]
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
        wrong = next((i for i, text in enumerate(texts) if not isinstance(text, str)), None)
        if wrong is not None:
            raise MirrorError(f"texts[{wrong}] is not a string: {texts[wrong]!r:.80}")
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        if not texts:
            return vectors
        budget = batch_tokens or TOKENS_PER_BATCH.get(self.device.type, TOKENS_PER_BATCH["cuda"])
        was_training = self.training
        self.eval()
        tokens = self.tokenize(texts)
        lengths = np.array([len(ids) for ids in tokens["input_ids"]])
        order = np.argsort(-lengths, kind="stable")  # longest first: the bar's guess errs on the safe side
        with (
            torch.inference_mode(),
            tqdm(total=len(texts), unit="text", disable=not progress, leave=False) as bar,
        ):
            start = 0
            while start < len(order):
                count = max(1, budget // (self.pad_to or int(lengths[order[start]])))
                chosen = order[start : start + count]
                blocks = self._padded(select(tokens, chosen.tolist()), bucket=count)
                blocks = [block.to(self.device) for block in blocks]
                vectors[chosen] = self(blocks).float().cpu().numpy()
                bar.update(len(chosen))
                start += count
        self.train(was_training)
        return vectors

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

    def save(self, folder: str | Path, card: str | None = None) -> None:
        """Write the encoder to a new folder that transformers and sentence-transformers load.

        Args:
            folder: must not exist; it appears only when it is complete.
            card: text of the model card.

        Raises:
            MirrorError: the folder exists or cannot be written; nothing is left behind.
        """

        def write(partial: Path) -> None:
            # sentence-transformers averages layers only if the configuration asks the backbone for them.
            self.backbone.config.output_hidden_states = self.pooling in LAYERED
            self.backbone.save_pretrained(partial)
            self.tokenizer.save_pretrained(partial)
            files = PoolingFiles(self.pooling, self.max_tokens, self.normalize, self.pad_to)
            write_pooling(
                partial,
                files,
                dimension=self.dimension,
                layers=self.backbone.config.num_hidden_layers,
                cls_last=self._cls_last(),
            )
            if card is not None:
                (partial / "README.md").write_text(card, encoding="utf-8")

        write_whole(Path(folder), write)

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
                except (RuntimeError, ValueError, IndexError, TypeError, AttributeError, NotImplementedError):
                    continue
                if (packed - expected).norm() <= PROBE_TOLERANCE * expected.norm():
                    return first
            return None
        finally:
            self.train(was_training)

    def _hidden_states(self, block: TokenBlock) -> tuple[Tensor, ...]:
        """The layers' outputs that the pooling needs, each (R, W, D)."""
        layered = self.pooling in LAYERED
        arguments: dict[str, Any] = dict(block.inputs)
        if block.packed:
            arguments["attention_mask"] = block.additive_mask(self.backbone.dtype)
            arguments["position_ids"] = block.position
        else:
            arguments["attention_mask"] = (block.text_index >= 0).long()
        if self.drophead is not None:
            self.drophead.text_index = block.text_index
        output = self.backbone(**arguments, output_hidden_states=layered, return_dict=True)
        if not layered:
            return (output.last_hidden_state,)
        states = output.hidden_states[1:]  # without the embeddings
        chosen = layer_weights(self.pooling, len(states))
        return tuple(state for state, weight in zip(states, chosen, strict=True) if weight)

    def _pool(self, states: tuple[Tensor, ...], block: TokenBlock) -> Tensor:
        """Token vectors (R, W, D) to text vectors (B, D)."""
        hidden = sum(states[1:], states[0]) / len(states)  # (R, W, D)
        flat = hidden.flatten(0, 1)  # (R * W, D)
        count = len(block.texts)
        if self.pooling is Pooling.cls:
            return flat[block.cls_index]
        if self.pooling is Pooling.mean_padded:
            return hidden.mean(dim=1)
        owner = block.text_index.flatten()
        real = owner >= 0
        flat, owner = flat[real].float(), owner[real]
        if self.pooling is Pooling.max:
            lowest = flat.new_full((count, flat.shape[1]), -torch.inf)
            return lowest.scatter_reduce(0, owner[:, None].expand_as(flat), flat, "amax")
        sums = flat.new_zeros(count, flat.shape[1]).index_add(0, owner, flat)
        return sums / owner.bincount(minlength=count)[:, None]

    def _cls_last(self) -> bool:
        ids = self.tokenize(["a"])["input_ids"][0]
        return self.tokenizer.cls_token_id in ids and ids.index(self.tokenizer.cls_token_id) == len(ids) - 1


def _limit(backbone: Any, tokenizer: Any) -> int:
    """Longest text that backbone and tokenizer both take."""
    limits = [tokenizer.model_max_length]
    # Only learned absolute positions end somewhere; RoBERTa's family loses the first few to padding.
    positions = getattr(backbone.config, "max_position_embeddings", None)
    if isinstance(positions, int) and positions > 0:
        limits.append(positions - (tokenizer.pad_token_id + 1 if _positions_follow_padding(backbone) else 0))
    return int(min(limits))


def _positions_follow_padding(backbone: Any) -> bool:
    embeddings = getattr(getattr(backbone, "embeddings", None), "position_embeddings", None)
    return isinstance(embeddings, nn.Embedding) and embeddings.padding_idx is not None


def _load_backbone(name: str) -> tuple[Path | None, Any, Any]:
    """The folder that a model lies in, if it is known, the backbone in float32 and the tokenizer."""
    folder = Path(name).expanduser()
    if hub.looks_local(name):
        if not folder.exists():
            raise MirrorError(f"model.path={name} does not exist: give a model folder or a hub name.")
        if not (folder / "config.json").exists():
            raise MirrorError(f"model.path={name} is no model folder: it has no config.json.")
        source, reachable = str(folder), True
    else:
        reachable = hub.go_offline_unless_reachable()
        source = name
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    bars = transformers.utils.logging.is_progress_bar_enabled()
    if folder.exists():
        transformers.utils.logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(source)
        if getattr(config, "is_encoder_decoder", False) or _decoder_only(config):
            raise MirrorError(
                f"model.path={name} is a {config.model_type} model, which does not read text in both directions: "
                "give a masked language model such as BERT or RoBERTa."
            )
        backbone = AutoModel.from_pretrained(source, config=config, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, TypeError) as error:
        if not reachable:
            raise MirrorError(
                f"model.path={name}: the hub cannot be reached and its cache does not hold the model; "
                "give a local folder, as in model.path=/path/to/model."
            ) from error
        raise MirrorError(f"model.path={name} cannot be loaded: {' '.join(str(error).split())[:300]}") from error
    finally:
        transformers.logging.set_verbosity(verbosity)
        if bars:
            transformers.utils.logging.enable_progress_bar()
    if tokenizer.pad_token_id is None:
        raise MirrorError(f"model.path={name} has a tokenizer without a padding token: give an encoder model.")
    if len(tokenizer) > backbone.get_input_embeddings().num_embeddings:
        raise MirrorError(
            f"model.path={name}: the tokenizer has {len(tokenizer)} entries and the model only "
            f"{backbone.get_input_embeddings().num_embeddings} embeddings: they do not belong together."
        )
    return _folder_of(source), backbone, tokenizer


def _folder_of(source: str) -> Path | None:
    """Where a model's small files lie: its folder, or its place in the hub's cache once they are fetched."""
    if Path(source).exists():
        return Path(source)
    from huggingface_hub import snapshot_download

    try:
        wanted = ["modules.json", "sentence_bert_config.json", "*/config.json", "*_WeightedLayerPooling/*"]
        return Path(snapshot_download(source, allow_patterns=wanted))
    except (OSError, ValueError):
        return None


def _decoder_only(config: Any) -> bool:
    """Whether a model was made to predict the next token."""
    if getattr(config, "is_decoder", False):
        return True
    architectures = getattr(config, "architectures", None) or []
    causal = any("CausalLM" in name or name.endswith("LMHeadModel") for name in architectures)
    masked_models = transformers.models.auto.modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    # XLNet and XLM name their head LMHeadModel but are encoders; GPT-2 is known to no masked-LM table.
    return (config.model_type not in masked_models and config.model_type != "xlnet") or (
        causal and config.model_type not in (*masked_models, "xlnet")
    )
