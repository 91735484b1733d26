"""Replaced tokens told from the text's own (ELECTRA, Clark et al. 2020)."""

import copy
from dataclasses import replace
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import ElectraConfig, ElectraForMaskedLM, ElectraForPreTraining

from mirror.config import PretrainConfig, Rule
from mirror.encoder.encoder import MirrorEncoder
from mirror.encoder.packing import TokenBlock
from mirror.encoder.perturb import set_dropout
from mirror.pretraining.corpus import Corpus, MaskedBatch
from mirror.pretraining.heads import STD
from mirror.pretraining.model import sizes_of, start_embeddings
from mirror.pretraining.objectives.base import Objective, Reading, Term, over_devices, true_ids
from mirror.pretraining.reader import MaskReader


class Electra(Objective):
    """A small generator guesses masked tokens; the model tells for every token whether a guess replaced it.

    A guess is drawn by the generator's probabilities, and counts as replaced where it is not the text's own token. The
    generator has the model's token and position embeddings, and is left behind. Sizes and weight as in the authors'
    ``configure_pretraining.py``.

    Args:
        model: the discriminator.
        encoder: its backbone with its tokenizer.
        dropout: of the generator.
        generator: its width over the model's, rounded to whole heads; it has as many layers.
        weight: of the discriminator's loss, the mean binary cross entropy of all tokens.
    """

    fills: ClassVar[bool] = False

    def __init__(
        self,
        model: Any,
        encoder: MirrorEncoder,
        dropout: float,
        generator: Annotated[float, Rule(lambda share: 0 < share <= 1, "above 0 and at most 1")] = 0.25,
        weight: Annotated[float, Rule(lambda weight: weight > 0, "above 0")] = 50.0,
    ) -> None:
        super().__init__()
        self.weight = weight
        config = copy.deepcopy(model.config)
        config.num_attention_heads = max(1, round(generator * model.config.num_attention_heads))
        config.hidden_size = model.config.hidden_size // model.config.num_attention_heads * config.num_attention_heads
        config.intermediate_size = max(1, round(generator * model.config.intermediate_size))
        self.generator = ElectraForMaskedLM(config)
        own, shared = self.generator.electra.embeddings, model.electra.embeddings
        for table in ("word_embeddings", "position_embeddings", "token_type_embeddings"):
            setattr(own, table, getattr(shared, table))
        scores = self.generator.generator_lm_head
        scores.weight = shared.word_embeddings.weight
        with torch.no_grad():
            spread = float(scores.weight.std())
            self.generator.generator_predictions.LayerNorm.weight.fill_(STD / spread)  # scores as even as usual
        set_dropout(self.generator, dropout)
        self._reader = MaskReader(self.generator, MirrorEncoder(self.generator.base_model, encoder.tokenizer))

    @staticmethod
    def model(config: PretrainConfig, tokenizer: Any, corpus: Corpus | None) -> Any:
        """A new discriminator."""
        sizes = sizes_of(config, tokenizer)
        positions = {"max_position_embeddings": config.model.positions}
        model = ElectraForPreTraining(ElectraConfig(**sizes, **positions, embedding_size=config.model.hidden))
        if corpus is not None:
            start_embeddings(config, tokenizer, corpus, model.electra.embeddings)
        set_dropout(model, config.model.dropout)
        return model

    def scores_of(self, model: Any) -> nn.Linear:
        """The generator's, whose matrix is the model's token embeddings."""
        found: nn.Linear = self.generator.generator_lm_head
        return found

    def logits(self, reader: MaskReader, block: TokenBlock, places: Tensor) -> Tensor:
        """The generator's guesses."""
        return self._reader(block, places)[0]

    def forward(self, reader: MaskReader, batch: MaskedBatch) -> Reading:
        """The generator's loss, and ``replaced``, the discriminator's."""
        guessed, told, counts, states = [], [], [], []
        for block, places, targets in zip(batch.blocks, batch.places, batch.targets, strict=True):
            scores = self.logits(reader, block, places).float()  # (M, V)
            guessed.append(F.cross_entropy(scores, targets, reduction="sum"))
            true = true_ids(block, places, targets)
            shown = self.replaced(true, places, scores.detach())
            inputs = reader.encoder.layout.inputs(replace(block, inputs={**block.inputs, "input_ids": shown}))
            read = reader.model.base_model(**inputs).last_hidden_state  # (R, W, D)
            real = block.text_index >= 0
            logits = reader.model.discriminator_predictions(read).float()[real]
            wanted = (shown != true)[real].float()
            told.append(F.binary_cross_entropy_with_logits(logits, wanted, reduction="sum"))
            counts.append(len(wanted))
            states.append(read)
        count = over_devices(torch.tensor(sum(counts), device=told[0].device))
        terms = {
            "loss": Term(torch.stack(guessed).sum() / max(batch.count, 1)),
            "replaced": Term(torch.stack(told).sum() / count, self.weight),
        }
        return Reading(terms, states)

    @staticmethod
    def replaced(true: Tensor, places: Tensor, scores: Tensor) -> Tensor:
        """The tokens of a block, (R, W), with a token drawn by ``scores``, (M, V), at each of the places, (M,)."""
        drawn = (scores - torch.empty_like(scores).exponential_().log()).argmax(-1)  # Gumbel's trick
        return true.flatten().index_copy(0, places, drawn).view_as(true)
