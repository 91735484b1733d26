"""What mirror is measured against: other ways to do the same optimisation step.

Each holds its own copy of the model. ``batch`` makes the tensors of a batch, as its data loader would; ``learn`` is
forward, loss, backward, optimiser step and ``zero_grad``. Each imports its library when it is built, so that the
memory of one holds nothing of another's.
"""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.optim import AdamW
from transformers import AutoModel, AutoTokenizer

from mirror.config import Precision, TrainConfig

TextsOf = Callable[[int], list[str]]
"""The texts of a batch by its number."""


class AuthorsLoop:
    """The manner of the authors' ``train_mirror.py``, rebuilt from its description.

    Every text is tokenised anew and padded to the longest length allowed, the two sides go through the model in two
    forward passes, and pytorch-metric-learning's NT-Xent compares them. Their autocast to fp16, without a scaler, on a
    GPU; single precision on a CPU, where it needs one. CLS vectors, torch's AdamW with its defaults.
    """

    def __init__(self, folder: Path, config: TrainConfig, device: torch.device, texts: TextsOf) -> None:
        """Load the model of a folder."""
        from pytorch_metric_learning.losses import NTXentLoss

        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        self.encoder: Any = (
            AutoModel.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False).to(device).train()
        )
        self.loss = NTXentLoss(temperature=config.loss["temperature"])
        weight_decay = config.optim["weight_decay"]
        self.optimizer = AdamW(self.encoder.parameters(), lr=config.optim["lr"], weight_decay=weight_decay)
        self.span, self.min_chars, self.max_tokens = (
            config.aug["span_k"],
            config.aug["min_chars"],
            config.batch.max_tokens,
        )
        self.random = random.Random(config.seed)
        self.texts, self.device = texts, device
        self.precision = Precision.fp16 if device.type == "cuda" else Precision.fp32

    def batch(self, number: int) -> Any:
        """Two tokenised sides, one of each pair masked."""
        texts = self.texts(number)
        left, right = list(texts), list(texts)
        for i, text in enumerate(texts):
            side = left if self.random.random() < 0.5 else right
            side[i] = self._erase_and_mask(text)
        return [
            self.tokenizer(side, padding="max_length", truncation=True, max_length=self.max_tokens, return_tensors="pt")
            for side in (left, right)
        ]

    def learn(self, batch: Any) -> float:
        """One optimisation step; returns the loss."""
        with torch.autocast(self.device.type, torch.float16, enabled=self.precision is Precision.fp16):
            first, second = (self.encoder(**side.to(self.device)).last_hidden_state[:, 0] for side in batch)
            labels = torch.arange(len(first), device=self.device)
            loss: torch.Tensor = self.loss(torch.cat([first, second]), torch.cat([labels, labels]))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return float(loss.item())

    def _erase_and_mask(self, text: str) -> str:
        """The literal mask between spaces, at the first occurrence of the drawn characters."""
        if len(text) < self.min_chars or len(text) <= self.span:
            return text
        start = self.random.randrange(len(text) - self.span)
        left, right = text.split(text[start : start + self.span], 1)
        return f"{left} [MASK] {right}"

    def save(self, folder: Path) -> None:
        """Write the model and its tokenizer."""
        self.encoder.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


class SimCSE:
    """The SimCSE recipe of sentence-transformers: ``MultipleNegativesRankingLoss`` over (text, text).

    The library's model, collator and loss, called in the order of its trainer, with the optimiser that its trainer
    picks. The trainer's own bookkeeping and gradient clipping are left out, which favours it. Autocast to bf16 on a
    GPU, which the library's documentation sets where a GPU has it; single precision on a CPU, its default.
    """

    def __init__(self, folder: Path, config: TrainConfig, device: torch.device, texts: TextsOf) -> None:
        """Load the model of a folder."""
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator
        from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
        from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

        # Else the library computes in the precision of the file, and half precision takes far longer on a CPU.
        safe = {"trust_remote_code": False}
        transformer = Transformer(
            str(folder),
            max_seq_length=config.batch.max_tokens,
            model_kwargs={"dtype": torch.float32, **safe},
            processor_kwargs=safe,
            config_kwargs=safe,
        )
        pooling = Pooling(transformer.get_embedding_dimension(), pooling_mode="cls")
        self.model = SentenceTransformer(modules=[transformer, pooling], device=str(device)).train()
        self.loss = MultipleNegativesRankingLoss(self.model, scale=1 / config.loss["temperature"])
        self.collate = SentenceTransformerDataCollator(self.model.preprocess)
        weight_decay = config.optim["weight_decay"]
        self.optimizer = AdamW(self.loss.parameters(), lr=config.optim["lr"], weight_decay=weight_decay, fused=True)
        self.texts, self.device = texts, device
        self.precision = Precision.bf16 if device.type == "cuda" else Precision.fp32

    def batch(self, number: int) -> Any:
        """The two columns, each padded to its longest text."""
        return self.collate([{"anchor": text, "positive": text} for text in self.texts(number)])

    def learn(self, batch: Any) -> float:
        """One optimisation step; returns the loss."""
        features = [
            {
                key.removeprefix(column): value.to(self.device) if isinstance(value, torch.Tensor) else value
                for key, value in batch.items()
                if key.startswith(column)
            }
            for column in ("anchor_", "positive_")
        ]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision is Precision.bf16):
            loss: torch.Tensor = self.loss(features, None)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(loss.item())

    def save(self, folder: Path) -> None:
        """Write the model as the library does."""
        self.model.save_pretrained(str(folder))


BASELINES: dict[str, Callable[..., AuthorsLoop | SimCSE]] = {"authors": AuthorsLoop, "simcse": SimCSE}
