"""The pre-training step: masked tokens in, losses out. The objective says which.

Besides the masked tokens, a text's mean vector can be made to predict its bag of words: each distinct token of it
should score high in the vocabulary. Masked tokens train the token vectors, not their mean.
After Ma et al. 2024 (Drop your Decoder: Pre-training with Bag-of-Word Prediction for Dense Passage Retrieval), who ask
the CLS vector, through the head that fills in masks.
"""

import logging
import math
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from mirror.encoder.encoder import MirrorEncoder
from mirror.encoder.packing import TokenBlock
from mirror.encoder.stages import TokenPooling
from mirror.errors import MirrorError
from mirror.pretraining.corpus import MaskedBatch
from mirror.pretraining.heads import VocabularyHead
from mirror.pretraining.objectives.base import Objective, Term
from mirror.pretraining.reader import MaskReader
from mirror.training.optimizer import optimizers
from mirror.training.resume import seed_step

log = logging.getLogger(__name__)

LOG_EVERY = 50
"""Steps between two readings of the loss."""
PERPLEXITY = "val/perplexity"
"""Name of the held-out perplexity in the curve."""
UNSTABLE = 1.5
"""A perplexity so many times its best means that the training has become unstable: it seldom recovers."""
GUESSES = 3
"""Predictions shown for each blank."""


class PretrainModule(pl.LightningModule):
    """One step of pre-training after another.

    Args:
        model: a masked language model as ``AutoModelForMaskedLM`` loads it; trained in place.
        encoder: its backbone with its tokenizer.
        objective: what is minimised.
        optim: the optimizer as a part; see ``mirror.training.optimizer``.
        schedule: the course of its rate as a part.
        steps: of the whole run.
        samples: held-out texts with one word blanked, and the word.
        seed: of dropout.
        bag_of_words: weight of the second loss; 0 leaves it out.
    """

    def __init__(
        self,
        model: Any,
        encoder: MirrorEncoder,
        objective: Objective,
        optim: Mapping[str, Any],
        schedule: Mapping[str, Any],
        steps: int,
        samples: list[tuple[str, str]],
        seed: int,
        bag_of_words: float,
    ) -> None:
        super().__init__()
        self.model, self.optim, self.schedule = model, optim, schedule
        self.steps, self.samples, self.seed = steps, samples, seed
        self._encoder = [encoder]  # in a list, so that its weights are not counted twice
        self.bag_weight = bag_of_words
        self.bag_of_words = (
            VocabularyHead(model.config.hidden_size, objective.scores_of(model)) if bag_of_words else None
        )
        self.objective = objective
        self.reader = MaskReader(model, encoder)
        self._mean = TokenPooling("mean")
        self.loss = math.nan
        self._held_out = [0.0, 0.0]
        self._best = math.inf

    @property
    def encoder(self) -> MirrorEncoder:
        """The backbone as an encoder."""
        return self._encoder[0]

    def logits(self, block: TokenBlock, places: Tensor) -> Tensor:
        """Scores over the vocabulary at ``places`` among the block's R * W tokens, (M, V)."""
        return self.objective.logits(self.reader, block, places)

    def _bags(self, batch: MaskedBatch, states: list[Tensor]) -> Tensor:
        """Loss of the bags of words, summed over this device; ``states`` as in ``Reading``."""
        assert self.bag_of_words is not None
        held = []
        for block, words, read in zip(batch.blocks, batch.words, states, strict=True):
            means = self._mean(read, block, ())  # (B, D)
            scores = self.bag_of_words(means, self.objective.scores_of(self.model)).float()  # (B, V)
            owner, token = words
            held.append(-scores.log_softmax(dim=-1)[owner, token].sum())
        return torch.stack(held).sum()

    def on_train_batch_start(self, batch: MaskedBatch, batch_idx: int) -> None:
        """Dropout depends on the step alone."""
        seed_step(self.seed, self)

    def training_step(self, batch: MaskedBatch, batch_idx: int) -> dict[str, Tensor]:
        """The objective's losses, added up by their weights, and that of the bags of words by its own."""
        terms, states = self.objective(self.reader, batch)
        if self.bag_of_words:
            bags = self._bags(batch, states) / max(batch.word_count, 1)
            terms["bag_of_words"] = Term(bags, self.bag_weight)
        # DDP averages the gradients: each device's sum over the count of all, times the number of devices.
        values = {name: term.value * self.trainer.world_size for name, term in terms.items()}
        for name, value in values.items():
            self.log(name, value, batch_size=1, sync_dist=True)
        loss = torch.stack([terms[name].weight * value for name, value in values.items()]).sum()
        return {"loss": loss, "masked": values["loss"].detach()}

    def on_train_batch_end(self, outputs: Any, batch: MaskedBatch, batch_idx: int) -> None:
        """Stop at a loss that is not finite."""
        # Reading the loss waits for the device.
        if self.global_step % LOG_EVERY == 0 or self.global_step == self.steps:
            self.loss = float(outputs["masked"])
            total = float(outputs["loss"])
            if not math.isfinite(total):
                raise MirrorError(
                    f"The loss is {total} at step {self.global_step}: lower optim.lr, or set trainer.precision=fp32."
                )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the last loss: a run resumed at its last step does not compute it again."""
        checkpoint["last_loss"] = self.loss

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the last loss; checkpoints of earlier versions have none."""
        self.loss = checkpoint.get("last_loss", self.loss)

    def on_validation_epoch_start(self) -> None:
        """Begin a new mean; what is drawn does not depend on what was before."""
        torch.manual_seed(self.seed)
        self._held_out = [0.0, 0.0]

    def validation_step(self, batch: MaskedBatch, batch_idx: int) -> None:
        """Add a held-out batch to the mean."""
        for block, places, targets in zip(batch.blocks, batch.places, batch.targets, strict=True):
            guessed = F.cross_entropy(self.logits(block, places).float(), targets, reduction="sum")
            self._held_out[0] += float(guessed)
        self._held_out[1] += batch.count

    def on_validation_epoch_end(self) -> None:
        """Log the perplexity on the held-out texts, and show what the model fills in."""
        nats = self._held_out[0] / max(self._held_out[1], 1)
        perplexity = math.exp(min(nats, 50))
        self.log(PERPLEXITY, perplexity, prog_bar=True)
        if self.trainer.is_global_zero:
            log.info("step %d of %d: perplexity %.2f on held-out texts", self.global_step, self.steps, perplexity)
            for line in self.fill():
                log.info("    %s", line)
            if perplexity > UNSTABLE * self._best:
                log.warning(
                    "the perplexity was %.2f before: training has become unstable, start again with a lower optim.lr",
                    self._best,
                )
        self._best = min(self._best, perplexity)

    @torch.no_grad()
    def fill(self) -> list[str]:
        """The samples with the model's predictions, one line each."""
        lines = []
        was_training = self.training
        self.eval()
        tokenizer = self.encoder.tokenizer
        for text, word in self.samples:
            block = self.encoder.layout.blocks(self.encoder.layout.tokenize([text]))[0].to(self.encoder.device)
            at = (block.inputs["input_ids"].flatten() == tokenizer.mask_token_id).nonzero().flatten()
            best = self.logits(block, at)[0].topk(GUESSES).indices.tolist()
            guesses = ", ".join(tokenizer.decode([token]).strip() for token in best)
            lines.append(f"{text.replace(tokenizer.mask_token, '[' + guesses + ']', 1)} ({word})")
        self.train(was_training)
        return lines

    def configure_optimizers(self) -> Any:
        """The optimizer of all weights."""
        return optimizers(self, self.model.base_model, self.optim, self.schedule, self.steps)
