"""The seam of what pre-training minimises.

One of a user's own is one file: an ``Objective``, and ``_target_: my_package.MyObjective`` in a file of the group
``objective``. Its settings are the arguments of its ``__init__``; where it asks for ``model``, ``encoder`` or
``dropout``, it is given the model that is trained, its backbone with the tokenizer, or the rate.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from mirror.config import Pooling, PretrainConfig
from mirror.config.parts import TARGET, check_part, located
from mirror.data.rows import Pair
from mirror.encoder.packing import TokenBlock
from mirror.errors import MirrorError
from mirror.losses.gather import world_size
from mirror.pretraining.corpus import Corpus, MaskedBatch, tokenize_corpus
from mirror.pretraining.model import build_model
from mirror.pretraining.reader import MaskReader

GIVEN = ("model", "encoder", "dropout")
"""What a run hands in."""


class Term(NamedTuple):
    """One of the losses that are added up."""

    value: Tensor
    """In nats: summed over this device, divided by the number of all devices."""
    weight: float = 1.0


class Reading(NamedTuple):
    """What an objective finds in a batch."""

    terms: dict[str, Term]
    """By their names in the curve; ``loss`` is the cross entropy of the masked tokens."""
    states: list[Tensor]
    """For each block (R, W, D), the last layer of the model that is saved: bags of words are learnt beside."""


class Objective(nn.Module):
    """Masked tokens are guessed, and whatever a subclass adds. Its parameters are trained, and left behind."""

    pairs: ClassVar[bool] = False
    """Whether it reads pairs of texts."""
    fills: ClassVar[bool] = True
    """Whether the model that is trained fills in masks; another kind of model begins anew."""
    pooling = Pooling.first_last
    """What suits a new model, in which nothing else has taught the CLS token to stand for a text."""

    def __init__(self) -> None:
        super().__init__()  # which takes any arguments at all

    @staticmethod
    def corpus(texts: Sequence[Pair], tokenizer: Any, max_tokens: int, *, progress: bool) -> Corpus:
        """The texts as pieces of tokens, of each pair the first text; see ``tokenize_corpus``."""
        return tokenize_corpus([text for text, _ in texts], tokenizer, max_tokens, progress=progress)

    @staticmethod
    def model(config: PretrainConfig, tokenizer: Any, corpus: Corpus | None) -> Any:
        """The model to train; see ``build_model``."""
        return build_model(config, tokenizer, corpus)

    def scores_of(self, model: Any) -> nn.Linear:
        """What scores the vocabulary, (V, E), for bags of words."""
        found: nn.Linear = model.get_output_embeddings()
        return found

    def forward(self, reader: MaskReader, batch: MaskedBatch) -> Reading:
        """What is minimised on a batch.

        Args:
            reader: the model that is trained.
            batch: this device's share.
        """
        guessed, states = [], []
        for block, places, targets in zip(batch.blocks, batch.places, batch.targets, strict=True):
            scores, read = reader(block, places)
            guessed.append(F.cross_entropy(scores.float(), targets, reduction="sum"))
            states.append(read)
        return Reading({"loss": Term(torch.stack(guessed).sum() / max(batch.count, 1))}, states)

    def logits(self, reader: MaskReader, block: TokenBlock, places: Tensor) -> Tensor:
        """Guesses at ``places`` among the block's R * W tokens, (M, V), of which the perplexity is told."""
        return reader(block, places)[0]


def over_devices(count: Tensor) -> Tensor:
    """A number of tokens, added up over all devices; at least 1."""
    if world_size() > 1:
        dist.all_reduce(count)
    return count.clamp(min=1)


def true_ids(block: TokenBlock, places: Tensor, targets: Tensor) -> Tensor:
    """The tokens of a block without its masks, (R, W)."""
    ids = block.inputs["input_ids"]
    return ids.flatten().index_copy(0, places, targets).view_as(ids)


def objective_kind(config: PretrainConfig) -> type[Objective]:
    """The class of the objective, checked with its settings before anything is read.

    Raises:
        MirrorError: it is none, does not take its settings, or wants pairs where none are given, or the reverse.
    """
    kind = located(config.objective, "objective")
    if not (isinstance(kind, type) and issubclass(kind, Objective)):
        raise MirrorError(
            f"objective.{TARGET}={config.objective[TARGET]} is no {Objective.__module__}.Objective: derive its class "
            "from that."
        )
    check_part(config.objective, "objective", *GIVEN)
    paired = bool(config.data.pair_column or config.data.pair_separator)
    if paired and not kind.pairs:
        raise MirrorError(
            f"data.pair_column and data.pair_separator mean nothing to pre-training by {kind.__name__}, which reads "
            "single texts: leave them out, or choose objective=tlm."
        )
    if kind.pairs and not paired and config.data.source is None:
        raise MirrorError(
            f"objective.{TARGET}={config.objective[TARGET]} reads pairs of translations: give a file of them by "
            "data=pairs, one pair a line as in a||b, or name their second column, data.pair_column=…."
        )
    if config.model.begins_with and not kind.fills:
        setting, _ = config.model.begins_with
        raise MirrorError(f"objective.{TARGET}={config.objective[TARGET]} begins a new model: leave {setting} out.")
    return kind
