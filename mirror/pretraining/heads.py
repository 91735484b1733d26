"""Heads that pre-training needs and leaves behind."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STD = 0.02
"""Standard deviation of new weights (Devlin et al. 2019)."""


class VocabularyHead(nn.Module):
    """Scores over the vocabulary for vectors, such as the mean vectors of texts; the model's own head stays as it is.

    With the mask head instead, the raw mean is better and mirror tuning adds less to it (benchmarks/results/notes.md).
    """

    def __init__(self, hidden: int, embeddings: nn.Linear) -> None:
        """``hidden`` is the size D of the vectors; ``embeddings`` (V, E) score the vocabulary."""
        super().__init__()
        size = embeddings.in_features
        self.layer, self.norm = nn.Linear(hidden, size), nn.LayerNorm(size)
        nn.init.eye_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)
        spread = float(embeddings.weight.detach().std())
        nn.init.constant_(self.norm.weight, STD / spread)  # initial scores vary as little as a new model's
        self.bias = nn.Parameter(torch.zeros(embeddings.out_features))
        if embeddings.bias is not None:
            self.bias.data.copy_(embeddings.bias.data)

    def forward(self, vectors: Tensor, embeddings: nn.Linear) -> Tensor:
        """(B, D) to (B, V)."""
        return F.linear(self.norm(self.layer(vectors)), embeddings.weight, self.bias)
