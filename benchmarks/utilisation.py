"""Model FLOP utilisation: the useful work of a training step over what a plain matrix product reaches in the same run.

    python -m benchmarks.utilisation --shape base --batch 32

Useful are the multiplications and additions that the real tokens need: the linear layers, the attention of each text
to itself, the similarity matrix, forward once and backward twice that. Padding, the space left in packed rows and what
gradient caching computes again are no use, and neither is anything that is not a matrix product. Step and product
take turns, each in the precision that mirror chooses.
"""

import argparse
import logging
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from benchmarks.growth import SHAPES
from benchmarks.measure import (
    DRAFT,
    SENTENCES,
    add_common_arguments,
    machine,
    markdown,
    seconds,
    shown,
    spread,
    store,
)
from benchmarks.training_step import WARMUP, Mirror, random_model
from mirror.config import Precision, TrainConfig
from mirror.config.compose import compose
from mirror.data.batches import MirroredBatch
from mirror.data.texts import read_texts
from mirror.encoder.encoder import MirrorEncoder

SIDE = {"cpu": 2048, "cuda": 8192}
"""Of the square matrices: large enough that a product reaches the device's rate."""


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="mini")
    parser.add_argument("--batch", type=int, default=200)
    parser.add_argument("--micro", type=int, help="texts encoded at a time (gradient caching); default: all")
    parser.add_argument("--data", type=Path, default=SENTENCES, help="training texts, one a line")
    parser.add_argument("--draft", type=Path, default=DRAFT, help="the model whose tokenizer serves")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--precision", default="auto", help="auto, fp32 or bf16")
    add_common_arguments(parser, rounds=10)
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    device = torch.device(arguments.device)
    described = machine(device)
    layers, hidden = SHAPES[arguments.shape]
    with tempfile.TemporaryDirectory() as scratch:
        model = random_model(arguments.draft, scratch, layers=layers, hidden=hidden)
        overrides = ["model=bert", f"model.path='{model}'", f"data.path='{arguments.data.resolve()}'"]
        overrides += [f"batch.size={arguments.batch}", f"batch.micro={arguments.micro or 'null'}"]
        config: TrainConfig = compose("train", [*overrides, f"trainer.precision={arguments.precision}"])
        mirror = Mirror(model, config, device, read_texts(config.data, config.seed))
    dtype = torch.bfloat16 if mirror.precision is Precision.bf16 else torch.float32
    matrix = torch.randn(SIDE[device.type], SIDE[device.type], device=device).to(dtype)
    shares, rates, limits, filled = [], [], [], []
    for number in range(WARMUP + arguments.rounds):
        batch = mirror.batch(number)
        took, _ = seconds(lambda: mirror.learn(batch), device)  # noqa: B023 - called at once
        alone, _ = seconds(lambda: matrix @ matrix, device)
        if number >= WARMUP:
            rates.append(useful(batch, mirror.encoder) / took)
            limits.append(2 * len(matrix) ** 3 / alone)
            shares.append(rates[-1] / limits[-1])
            filled.append(real_tokens(batch) / all_places(batch))
    results = {
        "step_gflops": spread([rate / 1e9 for rate in rates]),
        "matrix_product_gflops": spread([rate / 1e9 for rate in limits]),
        "utilisation": spread(shares),
        "real_tokens_share": spread(filled),
    }
    head = ["shape", "precision", "useful GFLOP/s", "matrix product GFLOP/s", "utilisation", "real tokens"]
    row = [arguments.shape, mirror.precision.value, *(shown(figures) for figures in results.values())]
    print(markdown(head, [row]))
    content = {
        "machine": described,
        "shape": arguments.shape,
        "batch": arguments.batch,
        "micro": arguments.micro,
        "precision": mirror.precision.value,
        "rounds": arguments.rounds,
        "results": results,
    }
    print(f"\n{store(arguments.results, f'utilisation-{arguments.shape}-{device.type}', content)}")


def real_tokens(batch: MirroredBatch) -> int:
    """Tokens that belong to a text."""
    return sum(int((block.text_index >= 0).sum()) for parts in batch.sides for part in parts for block in part)


def all_places(batch: MirroredBatch) -> int:
    """Tokens that the backbone computes, padding included."""
    return sum(block.text_index.numel() for parts in batch.sides for part in parts for block in part)


def useful(batch: MirroredBatch, encoder: MirrorEncoder) -> float:
    """FLOPs of one step that the real tokens need."""
    backbone: Any = encoder.backbone
    weights = sum(layer.weight.numel() for layer in backbone.encoder.modules() if isinstance(layer, nn.Linear))
    squares = 0
    for block in (block for parts in batch.sides for part in parts for block in part):
        lengths = torch.bincount(block.text_index[block.text_index >= 0])
        squares += int((lengths**2).sum())
    linear = 2.0 * weights * real_tokens(batch)
    attention = 4.0 * backbone.config.num_hidden_layers * backbone.config.hidden_size * squares  # QK^T and its use
    similarity = 2.0 * batch.text_ids.numel() ** 2 * encoder.dimension
    return float(3 * (linear + attention + similarity))


if __name__ == "__main__":
    main()
