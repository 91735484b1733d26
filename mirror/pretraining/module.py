"""The pre-training step: masked tokens in, cross entropy out."""

import logging
import math
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from mirror.config import OptimConfig
from mirror.encoder import MirrorEncoder
from mirror.errors import MirrorError
from mirror.optimizer import adamw
from mirror.packing import TokenBlock
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
    """

    def __init__(
        self,
        model: Any,
        encoder: MirrorEncoder,
        optim: OptimConfig,
        steps: int,
        samples: list[tuple[str, str]],
        seed: int,
    ) -> None:
        super().__init__()
        self.model, self.optim, self.steps, self.samples, self.seed = model, optim, steps, samples, seed
        self._encoder = [encoder]  # in a list, so that its weights are not counted twice
        self._places: Tensor | None = None
        encoder.backbone.register_forward_hook(self._keep_places)
        self.loss = math.nan
        self._held_out = [0.0, 0.0]

    @property
    def encoder(self) -> MirrorEncoder:
        """The backbone as an encoder."""
        return self._encoder[0]

    def _keep_places(self, backbone: Any, arguments: Any, output: Any) -> Any:
        """Hand on the states of the masked tokens alone: whatever head follows, it sees a seventh of the tokens."""
        if self._places is not None:
            output.last_hidden_state = output.last_hidden_state.flatten(0, 1)[self._places][None]  # (1, M, D)
        return output

    def logits(self, block: TokenBlock, places: Tensor) -> Tensor:
        """Scores over the vocabulary at ``places`` among the block's R * W tokens, (M, V)."""
        self._places = places
        try:
            scores: Tensor = self.model(**self.encoder.inputs(block)).logits[0]
        finally:
            self._places = None
        return scores

    def _cross_entropy(self, batch: MaskedBatch) -> Tensor:
        """Summed over the masked tokens of this device."""
        parts = [
            F.cross_entropy(self.logits(block, places).float(), targets, reduction="sum")
            for block, places, targets in zip(batch.blocks, batch.places, batch.targets, strict=True)
        ]
        return torch.stack(parts).sum()

    def on_train_batch_start(self, batch: MaskedBatch, batch_idx: int) -> None:
        """Dropout depends on the step alone."""
        seed_step(self.seed, self)

    def training_step(self, batch: MaskedBatch, batch_idx: int) -> Tensor:
        """The mean cross entropy, in nats, over the masked tokens of all devices."""
        # DDP averages the gradients: each device's sum over the count of all, times the number of devices.
        loss = self._cross_entropy(batch) / max(batch.count, 1) * self.trainer.world_size
        self.log("loss", loss, batch_size=1, sync_dist=True)
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
        self._held_out[0] += float(self._cross_entropy(batch))
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
