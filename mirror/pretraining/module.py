"""The pre-training step: masked tokens in, cross entropy out.

Beside the masked tokens, a text's mean vector can be asked for the bag of its words: the head that fills in masks
scores the vocabulary for it too, and each different token of the text should score high. Guesses teach the vectors of
tokens only; what comes of their mean is left to chance. After Ma et al. 2024 (Drop your Decoder: Pre-training with
Bag-of-Word Prediction for Dense Passage Retrieval), who ask the CLS vector.
"""

import logging
import math
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from mirror.config import OptimConfig, Pooling
from mirror.encoder import MirrorEncoder
from mirror.errors import MirrorError
from mirror.optimizer import adamw
from mirror.packing import TokenBlock
from mirror.pooling import pool
from mirror.pretraining.corpus import MaskedBatch
from mirror.resume import seed_step

log = logging.getLogger(__name__)

BETAS = (0.9, 0.98)
"""RoBERTa's (Liu et al. 2019, section 3.1): the slow average follows a loss that falls quickly."""
LOG_EVERY = 50
"""Steps between two looks at the loss."""
PERPLEXITY = "val/perplexity"
"""Of the held-out texts, in the curve."""
GUESSES = 3
"""Guesses shown for each blank."""


class PretrainModule(pl.LightningModule):
    """Masked language modelling.

    Args:
        model: a masked language model as ``AutoModelForMaskedLM`` loads it; trained in place.
        encoder: its backbone with its tokenizer.
        optim: the optimizer's settings.
        steps: of the whole run.
        samples: held-out texts with one word blanked, and the word.
        seed: of dropout.
        bag_of_words: weight of the second loss; 0 leaves it out.
    """

    def __init__(
        self,
        model: Any,
        encoder: MirrorEncoder,
        optim: OptimConfig,
        steps: int,
        samples: list[tuple[str, str]],
        seed: int,
        bag_of_words: float = 0.0,
    ) -> None:
        super().__init__()
        self.model, self.optim, self.steps, self.samples, self.seed = model, optim, steps, samples, seed
        self._encoder = [encoder]  # in a list, so that its weights are not counted twice
        self.bag_of_words = bag_of_words
        self._wanted: list[Callable[[Tensor], Tensor]] = []
        encoder.backbone.register_forward_hook(self._keep_wanted)
        self.loss = math.nan
        self._held_out = [0.0, 0.0]

    @property
    def encoder(self) -> MirrorEncoder:
        """The backbone as an encoder."""
        return self._encoder[0]

    def _keep_wanted(self, backbone: Any, arguments: Any, output: Any) -> Any:
        """Hand on what is asked for alone: whatever head follows, it sees a seventh of the tokens."""
        if self._wanted:
            states = output.last_hidden_state  # (R, W, D)
            output.last_hidden_state = torch.cat([choose(states) for choose in self._wanted])[None]  # (1, M + B, D)
        return output

    def logits(self, block: TokenBlock, places: Tensor, *, bags: bool = False) -> Tensor:
        """Scores over the vocabulary at ``places`` among the block's R * W tokens, (M, V).

        With ``bags`` also those of each text's mean vector, after them, (M + B, V).
        """
        self._wanted = [lambda states: states.flatten(0, 1)[places]]
        if bags:
            self._wanted.append(lambda states: pool([states], block, Pooling.mean).to(states.dtype))
        try:
            scores: Tensor = self.model(**self.encoder.inputs(block)).logits[0]
        finally:
            self._wanted = []
        return scores

    def _cross_entropies(self, batch: MaskedBatch, *, bags: bool) -> tuple[Tensor, Tensor]:
        """Of the masked tokens and, with ``bags``, of the bags of words; each summed over this device."""
        guessed, held = [], []
        for block, places, targets, words in zip(batch.blocks, batch.places, batch.targets, batch.words, strict=True):
            scores = self.logits(block, places, bags=bags).float()
            guessed.append(F.cross_entropy(scores[: len(places)], targets, reduction="sum"))
            owner, token = words
            held.append(-scores[len(places) :].log_softmax(dim=-1)[owner, token].sum() if bags else guessed[-1] * 0)
        return torch.stack(guessed).sum(), torch.stack(held).sum()

    def on_train_batch_start(self, batch: MaskedBatch, batch_idx: int) -> None:
        """Dropout depends on the step alone."""
        seed_step(self.seed, self)

    def training_step(self, batch: MaskedBatch, batch_idx: int) -> Tensor:
        """Mean cross entropy, in nats, over the masked tokens of all devices, plus that of the bags by its weight."""
        guessed, held = self._cross_entropies(batch, bags=self.bag_of_words > 0)
        # DDP averages the gradients: each device's sum over the count of all, times the number of devices.
        loss = guessed / max(batch.count, 1) * self.trainer.world_size
        self.log("loss", loss, batch_size=1, sync_dist=True)
        if self.bag_of_words:
            bags = held / max(batch.word_count, 1) * self.trainer.world_size
            self.log("bag_of_words", bags, batch_size=1, sync_dist=True)
            loss = loss + self.bag_of_words * bags
        return loss

    def on_train_batch_end(self, outputs: Any, batch: MaskedBatch, batch_idx: int) -> None:
        """Stop at a loss that is not finite."""
        # Each look at the loss waits for the device.
        if self.global_step % LOG_EVERY == 0 or self.global_step == self.steps:
            self.loss = float(outputs["loss"])
            if not math.isfinite(self.loss):
                raise MirrorError(
                    f"The loss is {self.loss} at step {self.global_step}: lower optim.lr, or set "
                    "trainer.precision=fp32."
                )

    def on_validation_epoch_start(self) -> None:
        """Begin a new mean."""
        self._held_out = [0.0, 0.0]

    def validation_step(self, batch: MaskedBatch, batch_idx: int) -> None:
        """Add a held-out batch to the mean."""
        self._held_out[0] += float(self._cross_entropies(batch, bags=False)[0])
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

    @torch.no_grad()
    def fill(self) -> list[str]:
        """The samples with the model's guesses, one line each."""
        lines = []
        was_training = self.model.training
        self.model.eval()
        tokenizer = self.encoder.tokenizer
        for text, word in self.samples:
            block = self.encoder.blocks(self.encoder.tokenize([text]))[0].to(self.encoder.device)
            at = (block.inputs["input_ids"].flatten() == tokenizer.mask_token_id).nonzero().flatten()
            best = self.logits(block, at)[0].topk(GUESSES).indices.tolist()
            guesses = ", ".join(tokenizer.decode([token]).strip() for token in best)
            lines.append(f"{text.replace(tokenizer.mask_token, '[' + guesses + ']', 1)} ({word})")
        self.model.train(was_training)
        return lines

    def configure_optimizers(self) -> Any:
        """AdamW over all weights."""
        return adamw(self.model, self.optim, self.steps, BETAS)
