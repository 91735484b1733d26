"""A package of a user's own: one part for each seam, copied out of the tests before it is used. No part of mirror."""

# --8<-- [start:imports]
import copy
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mirror.adapt import Adaptation
from mirror.data.batches import MirroredBatch
from mirror.data.rows import Pair
from mirror.data.views import Views
from mirror.encoder.dense import Dense
from mirror.encoder.packing import TokenBlock
from mirror.encoder.stages import Stage
from mirror.evaluation.sets.files import read_table
from mirror.evaluation.sets.score import Score, TestSet
from mirror.losses.base import Components, Loss
from mirror.losses.embedder import Embedder
from mirror.pretraining.corpus import MaskedBatch
from mirror.pretraining.objectives.base import Objective, Reading, Term, over_devices
from mirror.pretraining.reader import MaskReader

# --8<-- [end:imports]


# --8<-- [start:loss]
class Margin(Loss):
    """Each text's twin should be nearer than the next text by a margin; a learnt scale, and a component of its own."""

    def __init__(self, margin: float = 0.1) -> None:
        super().__init__()
        self.margin = margin
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, embed: Embedder, batch: MirroredBatch) -> Components:
        left, right = F.normalize(embed(batch).float(), dim=-1)  # (N, D) each
        near, far = (left * right).sum(-1), (left * right.roll(1, 0)).sum(-1)
        gap = F.relu(self.scale.abs() * (far - near) + self.margin).mean()
        pull = (self.scale - 1).square()
        return {"loss": gap + pull, "gap": gap.detach(), "pull": pull.detach()}

    def describe(self) -> str:
        return f"margin {self.margin}"


# --8<-- [end:loss]
# --8<-- [start:teacher]
class Teacher(Loss):
    """A second encoder that follows the first, and reads the other side."""

    sides_apart = True

    def __init__(self, embedder: Embedder, momentum: float = 0.9) -> None:
        super().__init__()
        self.momentum = momentum
        self.teacher = copy.deepcopy(embedder).requires_grad_(False)

    def forward(self, embed: Embedder, batch: MirroredBatch) -> Components:
        with torch.no_grad():
            keys = F.normalize(self.teacher.side(batch, 1).float(), dim=-1)
        queries = F.normalize(embed.side(batch, 0).float(), dim=-1)
        logits = queries @ keys.T / 0.1  # (N, N)
        return {"loss": F.cross_entropy(logits, torch.arange(len(logits), device=logits.device))}

    def after_step(self, embed: Embedder) -> None:
        with torch.no_grad():
            for mine, theirs in zip(self.teacher.parameters(), embed.parameters(), strict=True):
                mine.lerp_(theirs, 1 - self.momentum)

    def negatives(self, texts: int) -> int:
        return texts - 1


# --8<-- [end:teacher]
# --8<-- [start:pooling]
class Attention(Stage):
    """A learnt query looks at the tokens."""

    def __init__(self, hidden: int = 32, heat: float = 1.0) -> None:
        super().__init__()
        self.query, self.heat = nn.Parameter(torch.randn(hidden)), heat

    def forward(self, vectors: Tensor, block: TokenBlock, layers: Sequence[Tensor]) -> Tensor:
        flat = vectors.flatten(0, 1).float()  # (R * W, D)
        owner = block.text_index.flatten()
        mine = owner[None] == torch.arange(len(block.texts), device=owner.device)[:, None]  # (B, R * W)
        scores = (flat @ self.query.float() * self.heat).expand(len(mine), -1).masked_fill(~mine, -torch.inf)
        return scores.softmax(dim=-1) @ flat  # (B, D)


# --8<-- [end:pooling]
# --8<-- [start:post]
def centred(vectors: Any, scale: float = 1.0) -> Dense:
    """Vectors around their mean, longer or shorter."""
    layer = Dense(vectors.shape[1], vectors.shape[1])
    layer.load_state_dict(
        {
            "linear.weight": scale * torch.eye(vectors.shape[1]),
            "linear.bias": -scale * torch.tensor(vectors.mean(axis=0)),
        }
    )
    return layer


# --8<-- [end:post]
# --8<-- [start:perturbation]
class Noise:
    """Adds noise to the word embeddings in training mode."""

    def __init__(self, size: float = 0.1) -> None:
        self.size = size
        self.handle: Any = None

    def attach(self, encoder: Any) -> None:
        def add(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
            return output + self.size * torch.randn_like(output) if module.training else output

        self.handle = encoder.backbone.get_input_embeddings().register_forward_hook(add)

    def detach(self) -> None:
        self.handle.remove()


# --8<-- [end:perturbation]
# --8<-- [start:adaptation]
class Alternating(Adaptation):
    """The embeddings learn in every other step, the position embeddings never."""

    def __init__(self, seed: int, first: bool = True) -> None:
        self.seed, self.first = seed, first

    def attach(self, encoder: Any) -> None:
        encoder.backbone.embeddings.position_embeddings.requires_grad_(False)

    def resting(self, step: int) -> tuple[str, ...]:
        return () if (step % 2 == 0) == self.first else ("embeddings.word_embeddings.weight",)


# --8<-- [end:adaptation]
# --8<-- [start:views]
class Shuffle(Views):
    """The right view has its words in another order."""

    def __init__(self, share: float = 1.0) -> None:
        self.share = share

    def __call__(self, pair: Pair, rng: Random) -> tuple[str, ...]:
        words = pair[1].split()
        if rng.random() < self.share:
            rng.shuffle(words)
        return pair[0], " ".join(words)


# --8<-- [end:views]
# --8<-- [start:objective]
class Length(Objective):
    """Masked tokens are guessed, and the CLS vector of each text tells how long it is."""

    def __init__(self, model: Any, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight
        self.tell = nn.Linear(model.config.hidden_size, 1)

    def forward(self, reader: MaskReader, batch: MaskedBatch) -> Reading:
        terms, states = super().forward(reader, batch)
        errors = []
        for block, read in zip(batch.blocks, states, strict=True):
            lengths = block.text_index[block.text_index >= 0].bincount()  # (B,)
            told = self.tell(read.flatten(0, 1)[block.cls_index])[:, 0]
            errors.append((told - lengths.log()).square())
        texts = over_devices(torch.tensor(sum(map(len, errors)), device=errors[0].device))
        return Reading({**terms, "length": Term(torch.cat(errors).sum() / texts, self.weight)}, states)


# --8<-- [end:objective]
# --8<-- [start:source]
def numbers(folder: str, size: int | None) -> list[str]:
    """Texts from a folder of one's own."""
    return [line for path in sorted(Path(folder).glob("*.txt")) for line in path.read_text().splitlines()]


# --8<-- [end:source]
# --8<-- [start:kind]
COLUMNS = ("odd", "one", "other")
"""Of the kind of test set that this module is: which of two texts does not belong to the third?"""


class OddSet(TestSet):
    """Triples, without pairs that belong together more or less."""

    def __init__(self, name: str, rows: list[dict[str, str]]) -> None:
        self.name, self.rows = name, rows

    def pairs(self) -> list[Pair]:
        return [(row["one"], row["other"]) for row in self.rows]

    def texts(self) -> list[str]:
        return list(dict.fromkeys(text for row in self.rows for text in row.values()))

    def score_vectors(self, vectors: Any) -> Score:
        right = []
        for row in self.rows:
            odd, one, other = (vectors[row[column]] for column in COLUMNS)
            right.append(float(one @ other > one @ odd))
        items = np.array(right)[:, None]
        return Score(self.name, len(right), {"found": 100 * float(np.mean(right))}, "found", items=[items])


def read(path: Path, name: str) -> OddSet:
    """A file of this kind."""
    return OddSet(name, read_table(path, COLUMNS))


# --8<-- [end:kind]
