"""What tells one encoder from another, wherever it lies."""

import hashlib
import json
from typing import Any

import torch

from mirror.encoder.encoder import MirrorEncoder


def digest(encoder: MirrorEncoder) -> str:
    """Equal for encoders that give equal vectors, whatever their path: of weights, tokenizer and pooling."""
    return digest_of(encoder, encoder.tokenizer, encoder.backbone.config, [repr(encoder.pooling), *_limits(encoder)])


def digest_of(model: torch.nn.Module, tokenizer: Any, config: Any, further: Any = None) -> str:
    """The same of any model of transformers; ``further`` is what else makes a difference."""
    found = hashlib.sha256()
    for name, weights in model.state_dict().items():
        if name.startswith("backbone.pooler."):  # not part of an encoder, and random where its folder has none
            continue
        found.update(weights.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    pieces = json.loads(tokenizer.backend_tokenizer.to_str()) if tokenizer.is_fast else tokenizer.get_vocab()
    content = {
        "tokenizer": _without(pieces, "truncation", "padding"),
        "backbone": _without(config.to_dict(), "_name_or_path"),
        "encoder": further,
    }
    found.update(json.dumps(content, sort_keys=True, default=str).encode())
    return found.hexdigest()[:12]


def _limits(encoder: MirrorEncoder) -> list[int | None]:
    return [encoder.max_tokens, encoder.layout.pad_to]


def _without(content: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name not in names}
