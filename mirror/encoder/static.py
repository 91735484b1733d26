"""A backbone without layers: a vector for each token, as ``scripts/export.py format=static`` distils them."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedTokenizerFast
from transformers.modeling_outputs import BaseModelOutput


class TokenVectors(nn.Module):
    """Looks up the tokens' vectors and is called as a ``transformers`` encoder is.

    Args:
        vectors: (V, D).
        unknown: the tokenizer's token for what it does not know, which counts for nothing; None if it has none.
    """

    def __init__(self, vectors: Tensor, unknown: int | None) -> None:
        super().__init__()
        self.vectors: nn.Embedding = nn.Embedding.from_pretrained(vectors.float())
        self.unknown = -1 if unknown is None else unknown
        self.config = PreTrainedConfig(hidden_size=vectors.shape[1], num_hidden_layers=1, vocab_size=len(vectors))
        self.dtype = torch.float32

    def get_input_embeddings(self) -> nn.Embedding:
        """The vectors."""
        return self.vectors

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, *, output_hidden_states: bool = False, return_dict: bool = True
    ) -> BaseModelOutput:
        """(R, W, D), scaled for the mean over all tokens of a text to be the mean over those that count.

        The first token of a text, which ``load`` has put there for a text never to be empty, does not count either.
        """
        counted = attention_mask.bool() & (input_ids != self.unknown)
        counted[:, 0] = False
        share = attention_mask.sum(1) / counted.sum(1).clamp(min=1)  # (R,)
        states = self.vectors(input_ids) * (counted * share[:, None])[:, :, None]
        return BaseModelOutput(last_hidden_state=states, hidden_states=(states, states))


def held_in(folder: Path) -> bool:
    """Whether a folder is one of model2vec's."""
    try:
        kind: Any = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    except (OSError, ValueError, LookupError, TypeError):
        return False
    return bool(kind == "model2vec")


def load(folder: Path) -> tuple[TokenVectors, Any]:
    """The vectors and the tokenizer of model2vec's folder.

    Raises:
        OSError, LookupError, ValueError: a file is missing or damaged.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    tensors = load_file(folder / "model.safetensors")
    vectors = tensors["embeddings"].float()
    if "mapping" in tensors:
        vectors = vectors[tensors["mapping"].long()]
    if "weights" in tensors:
        vectors = vectors * tensors["weights"].float()[:, None]
    inner = Tokenizer.from_file(str(folder / "tokenizer.json"))
    inner.no_padding()
    inner.no_truncation()
    first = inner.id_to_token(0)
    inner.post_processor = TemplateProcessing(single=f"{first}:0 $A:0", special_tokens=[(first, 0)])
    unknown = json.loads(inner.to_str())["model"].get("unk_token")
    limit = config.get("max_length")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token=first,
        unk_token=unknown,
        model_max_length=(limit or 512) + 1,
        model_input_names=["input_ids", "attention_mask"],
    )
    return TokenVectors(vectors, inner.token_to_id(unknown) if unknown else None), tokenizer
