"""One optimisation step of mirror tuning, against the same step done in other ways.

    python -m benchmarks.training_step --shape mini

Every round gives the same texts to each contender in turn; the ratios are taken within a round, so that whatever
else the machine is doing weighs on all alike. Peak memory is that of a process which runs one contender only.
"""

import argparse
import json
import logging
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Protocol

import pytorch_lightning as pl
import torch
import transformers
from transformers import AutoTokenizer, BertConfig, BertModel, RobertaConfig, RobertaModel

from benchmarks.baselines import BASELINES
from benchmarks.measure import (
    DRAFT,
    ROOT,
    SENTENCES,
    add_common_arguments,
    machine,
    markdown,
    peak_memory_mib,
    seconds,
    shown,
    spread,
    store,
)
from mirror.config import Precision, TrainConfig
from mirror.config.compose import compose
from mirror.config.parts import build
from mirror.data.batches import BatchKey, MirroredBatch, MirroredPairs
from mirror.data.texts import TextTable, read_texts
from mirror.data.views import Views
from mirror.encoder.encoder import MirrorEncoder
from mirror.encoder.perturb import set_dropout
from mirror.training.hardware import choose_precision
from mirror.training.parts import build_module

BATCH = {"mini": 200, "base": 32, "roberta": 32}
WARMUP = 2
"""Rounds before the clock counts: the first ones fill caches and the optimiser's state."""


class Contender(Protocol):
    """One way to do the step."""

    precision: Precision

    def batch(self, number: int) -> Any:
        """The tensors of a batch."""

    def learn(self, batch: Any) -> float:
        """Forward, loss, backward, optimiser step and ``zero_grad``; returns the loss."""


class Mirror:
    """The step as ``mirror.training.run`` sets it up, without Lightning's bookkeeping around it."""

    def __init__(self, folder: Path, config: TrainConfig, device: torch.device, table: TextTable) -> None:
        """Load the model of a folder, tokenise the texts."""
        self.encoder = MirrorEncoder.load(folder, config.model.pooling)
        set_dropout(self.encoder.backbone, config.perturbation_rates["dropout"])
        self.encoder.to(device).train()
        self.pairs: MirroredPairs
        layout = self.encoder.layout
        views: Views = build(config.views, "aug", Views, layout=layout)
        self.tokenising, self.pairs = seconds(
            lambda: MirroredPairs(table.pairs, layout, views, config.batch, config.seed), device
        )
        self.device = device
        self.precision = choose_precision(config.trainer.precision, device.type)
        accelerator = "gpu" if device.type == "cuda" else "cpu"
        trainer = pl.Trainer(max_epochs=-1, max_steps=1, accelerator=accelerator, devices=1, logger=False)
        self.module = build_module(config, self.encoder)
        self.module.trainer = trainer  # it knows the number of steps, which the schedule asks for
        self.optimizer: torch.optim.Optimizer = self.module.configure_optimizers()["optimizer"]

    def texts(self, number: int) -> list[str]:
        """The texts of a batch, for the other contenders."""
        return [left for left, _ in self.pairs.texts(self._key(number))]

    def batch(self, number: int) -> MirroredBatch:
        """Masked, tokenised where masked, and packed."""
        return self.pairs[self._key(number)]

    def learn(self, batch: MirroredBatch) -> float:
        """As ``MirrorModule.training_step``, under Lightning's kind of autocast."""
        bf16 = self.precision is Precision.bf16
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16, cache_enabled=False):
            loss: torch.Tensor = self.module(batch.to(self.device))["loss"]
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()

    def _key(self, number: int) -> BatchKey:
        return BatchKey(*divmod(number, self.pairs.steps))


NAMES = ("mirror", *BASELINES)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--shape", choices=BATCH, default="mini", help="4x256 with batches of 200; BERT-base, RoBERTa-base: 32"
    )
    parser.add_argument("--model", type=Path, help="a model folder in place of the shape's")
    parser.add_argument("--batch", type=int, help="texts in a batch; default: the shape's")
    parser.add_argument("--data", type=Path, default=SENTENCES, help="training texts, one a line")
    parser.add_argument("--draft", type=Path, default=DRAFT, help="the mini model; its tokenizer serves BERT-base too")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--precision", default="auto", help="mirror's: auto, fp32 or bf16")
    add_common_arguments(parser, rounds=15)
    parser.add_argument("--peak", choices=NAMES, help=argparse.SUPPRESS)  # the child process that measures memory
    arguments = parser.parse_args()
    arguments.batch = arguments.batch or BATCH[arguments.shape]
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory() as scratch:
        if arguments.model is None:
            make = {"mini": lambda draft, _: draft, "base": base_model, "roberta": roberta_model}[arguments.shape]
            arguments.model = make(arguments.draft, scratch)
        else:
            arguments.shape = arguments.model.name
        if arguments.peak:
            print(json.dumps(peak(arguments)))
        else:
            compare(arguments)


def base_model(draft: Path, scratch: str) -> Path:
    """BERT-base with random weights: the time of a step does not depend on them."""
    return random_model(draft, scratch, layers=12, hidden=768)


def roberta_model(draft: Path, scratch: str) -> Path:
    """RoBERTa-base with random weights, its 50,265 embeddings included, of which the tokenizer uses the first."""
    tokenizer: Any = AutoTokenizer.from_pretrained(draft, trust_remote_code=False)
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=50_265, max_position_embeddings=514, type_vocab_size=1, pad_token_id=tokenizer.pad_token_id
    )
    RobertaModel(config).save_pretrained(scratch)
    tokenizer.save_pretrained(scratch)
    return Path(scratch)


def random_model(draft: Path, folder: str, *, layers: int, hidden: int) -> Path:
    """A BERT of any size with random weights and the tokenizer of another model."""
    tokenizer: Any = AutoTokenizer.from_pretrained(draft, trust_remote_code=False)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        num_hidden_layers=layers,
        hidden_size=hidden,
        num_attention_heads=hidden // 64,
        intermediate_size=4 * hidden,
    )
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Path(folder)


def load(arguments: argparse.Namespace) -> tuple[TrainConfig, TextTable]:
    """The settings of a sentence run, and its texts."""
    overrides = [
        "model=bert",
        f"model.path='{arguments.model.resolve()}'",
        f"data.path='{arguments.data.resolve()}'",
        f"batch.size={arguments.batch}",
        f"trainer.precision={arguments.precision}",
    ]
    config: TrainConfig = compose("train", overrides)
    return config, read_texts(config.data, config.seed)


def compare(arguments: argparse.Namespace) -> None:
    """Memory of each contender alone, then the rounds; prints a table and stores the figures."""
    device = torch.device(arguments.device)
    described = machine(device)  # first: the load should be that of others
    memory = {name: measure_memory(arguments, name) for name in NAMES}
    config, table = load(arguments)
    mirror = Mirror(arguments.model, config, device, table)
    contenders: dict[str, Contender] = {"mirror": mirror}
    contenders |= {name: build(arguments.model, config, device, mirror.texts) for name, build in BASELINES.items()}
    batch_times: dict[str, list[float]] = {name: [] for name in NAMES}
    step_times: dict[str, list[float]] = {name: [] for name in NAMES}
    losses: dict[str, list[float]] = {name: [] for name in NAMES}
    torch.manual_seed(config.seed)
    for number in range(WARMUP + arguments.rounds):
        for name, contender in contenders.items():
            making, batch = seconds(lambda: contender.batch(number), device)  # noqa: B023 - called at once
            took, loss = seconds(lambda: contender.learn(batch), device)  # noqa: B023
            losses[name].append(loss)
            if number >= WARMUP:
                batch_times[name].append(making)
                step_times[name].append(took)
    # Tokenising all texts is paid once for a run: each batch bears its share of one epoch.
    batch_times["mirror"] = [making + mirror.tokenising / mirror.pairs.steps for making in batch_times["mirror"]]

    totals = {name: [sum(parts) for parts in zip(batch_times[name], step_times[name], strict=True)] for name in NAMES}
    results = {
        name: {
            "precision": contenders[name].precision.value,
            "batch_seconds": spread(batch_times[name]),
            "step_seconds": spread(step_times[name]),
            "total_seconds": spread(totals[name]),
            "pairs_per_second": arguments.batch / spread(totals[name])["median"],
            "times_mirror": spread([a / b for a, b in zip(totals[name], totals["mirror"], strict=True)]),
            "losses": losses[name],
            **memory[name],
        }
        for name in NAMES
    }
    content = {
        "machine": described,
        "shape": arguments.shape,
        "parameters": sum(parameter.numel() for parameter in mirror.encoder.parameters()),
        "batch": arguments.batch,
        "rounds": arguments.rounds,
        "texts": table.counts(),
        "tokenise_once_seconds": mirror.tokenising,
        "results": results,
    }
    print(_table(results))
    print(f"\n{store(arguments.results, f'training_step-{arguments.shape}-{device.type}', content)}")


def measure_memory(arguments: argparse.Namespace, name: str) -> dict[str, float]:
    """Run one contender in a process of its own."""
    options = {
        "--peak": name,
        "--model": arguments.model.resolve(),
        "--data": arguments.data.resolve(),
        "--batch": arguments.batch,
        "--device": arguments.device,
        "--precision": arguments.precision,
        "--rounds": WARMUP,
    }
    command = [
        sys.executable,
        "-m",
        "benchmarks.training_step",
        *(str(part) for pair in options.items() for part in pair),
    ]
    run = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, float] = json.loads(run.stdout.splitlines()[-1])
    return figures


def peak(arguments: argparse.Namespace) -> dict[str, float]:
    """The most memory of this process with everything loaded, and after the rounds."""
    device = torch.device(arguments.device)
    config, table = load(arguments)
    contender: Contender
    if arguments.peak == "mirror":
        contender = Mirror(arguments.model, config, device, table)
    else:
        texts = [left for left, _ in table.pairs]
        size = config.batch.size
        batches = [texts[start : start + size] for start in range(0, len(texts), size)]
        build = BASELINES[arguments.peak]
        contender = build(arguments.model, config, device, lambda number: batches[number % len(batches)])
    loaded = peak_memory_mib(device)
    for number in range(arguments.rounds):
        contender.learn(contender.batch(number))
    return {"loaded_mib": loaded, "peak_mib": peak_memory_mib(device)}


def _table(results: dict[str, dict[str, Any]]) -> str:
    head = ["contender", "batch ms", "step ms", "pairs/s", "time ÷ mirror's", "peak MiB (loaded)"]
    rows = []
    for name, result in results.items():
        milliseconds = [
            shown({key: 1000 * value for key, value in result[part].items()}, 0)
            for part in ("batch_seconds", "step_seconds")
        ]
        memory = f"{result['peak_mib']:.0f} ({result['loaded_mib']:.0f})"
        rate = f"{result['pairs_per_second']:.1f}"
        rows.append([f"{name} {result['precision']}", *milliseconds, rate, shown(result["times_mirror"]), memory])
    return markdown(head, rows)


if __name__ == "__main__":
    main()
