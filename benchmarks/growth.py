"""How time and memory grow with the work: more texts, longer texts, larger batches, larger models.

    python -m benchmarks.growth --axis batch --shape base --values 64 128 256 512

Each point is measured in a process of its own, whose peak memory it has to itself; what it frees goes back to the
system at once, so that the peak is of what is held and not of what lies about. The slope of a column is that of the
straight line through its logarithms: 1 is cost in proportion, 0 is no growth. ``--rounds 0`` takes one step alone, for
points that take long.
"""

import argparse
import json
import logging
import math
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from benchmarks.measure import (
    DRAFT,
    ROOT,
    add_common_arguments,
    machine,
    markdown,
    peak_memory_mib,
    resident_mib,
    seconds,
    spread,
    store,
)
from benchmarks.training_step import Mirror, random_model
from mirror.config import TrainConfig
from mirror.config.compose import compose
from mirror.data.texts import read_texts

SHAPES = {"tiny": (2, 128), "mini": (4, 256), "small": (4, 512), "medium": (8, 512), "base": (12, 768)}
"""Layers and hidden size, as in ``conf/size``."""
VALUES: dict[str, list[Any]] = {
    "texts": [1_000, 10_000, 100_000, 1_000_000],
    "length": [8, 16, 32, 64, 128, 256],
    "batch": [200, 400, 800, 1600, 3200, 6400, 12_800],
    "model": list(SHAPES),
}
COLUMNS = {
    "read_seconds": "read s",
    "prepare_seconds": "tokenise s",
    "batch_seconds": "batch s",
    "step_seconds": "step s",
    "texts_per_second": "texts/s",
    "peak_mib": "peak MiB",
    "step_mib": "of which the steps",
}


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--axis", choices=VALUES, required=True, help="what grows")
    parser.add_argument("--values", nargs="+", help="its values; default: all of them")
    parser.add_argument("--shape", choices=SHAPES, default="mini", help="the model, where it does not grow")
    parser.add_argument("--batch", type=int, default=200, help="texts in a batch, where it does not grow")
    parser.add_argument("--micro", type=int, help="texts encoded at a time (gradient caching); default: all")
    parser.add_argument("--length", type=int, default=16, help="tokens in a text, where they do not grow")
    parser.add_argument("--draft", type=Path, default=DRAFT, help="the model whose tokenizer serves all")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--precision", default="auto", help="auto, fp32 or bf16")
    add_common_arguments(parser, rounds=3)
    parser.add_argument("--point", help=argparse.SUPPRESS)  # the child process that measures one value
    arguments = parser.parse_args()
    if arguments.point:
        print(json.dumps(measure(arguments)))
        return
    described = machine(torch.device(arguments.device))
    points: dict[str, dict[str, float]] = {}
    for value in arguments.values or VALUES[arguments.axis]:
        points[str(value)] = in_a_process_of_its_own(str(value))
        print(f"{arguments.axis} {value}: {points[str(value)]}", file=sys.stderr)
    content = {
        "machine": described,
        "axis": arguments.axis,
        "settings": {name: getattr(arguments, name) for name in ("shape", "batch", "micro", "length", "precision")},
        "points": points,
        "slopes": slopes(points),
    }
    print(_table(arguments.axis, content))
    name = f"growth-{arguments.axis}-{arguments.shape}-{arguments.device}"
    print(f"\n{store(arguments.results, name, content)}")


def in_a_process_of_its_own(value: str) -> dict[str, float]:
    """The command line again, for one value."""
    command = [sys.executable, "-m", "benchmarks.growth", *sys.argv[1:], "--point", value]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**18)}  # glibc's; others ignore it
    run = subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, float] = json.loads(run.stdout.splitlines()[-1])
    return figures


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """Seconds of the parts of a run and its peak memory, at one value of the axis."""
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    setting = {"shape": arguments.shape, "batch": arguments.batch, "length": arguments.length, "texts": 0}
    setting["shape" if arguments.axis == "model" else arguments.axis] = (
        arguments.point if arguments.axis == "model" else int(arguments.point)
    )
    steps = 1 + arguments.rounds  # one to warm up
    count = max(setting["texts"], setting["batch"] * steps)
    device = torch.device(arguments.device)
    layers, hidden = SHAPES[setting["shape"]]
    with tempfile.TemporaryDirectory() as scratch:
        model = random_model(arguments.draft, f"{scratch}/model", layers=layers, hidden=hidden)
        texts = write_texts(Path(scratch) / "texts.txt", model, count, setting["length"])
        config: TrainConfig = compose(
            "train",
            [
                "model=bert",
                f"model.path='{model}'",
                f"data.path='{texts}'",
                "data.size=null",
                f"batch.size={setting['batch']}",
                f"batch.max_tokens={max(50, setting['length'])}",
                f"batch.micro={arguments.micro or 'null'}",
                f"trainer.precision={arguments.precision}",
            ],
        )
        reading, table = seconds(lambda: read_texts(config.data, config.seed), device)
        building, mirror = seconds(lambda: Mirror(model, config, device, table), device)
        held = resident_mib(device)
        batches, learnt = [], []
        for number in range(steps):
            making, batch = seconds(lambda: mirror.batch(number), device)  # noqa: B023 - called at once
            took, loss = seconds(lambda: mirror.learn(batch), device)  # noqa: B023
            assert math.isfinite(loss)
            batches.append(making)
            learnt.append(took)
    step = spread(learnt[1:] or learnt)["median"]
    return {
        "texts": len(table.pairs),
        "read_seconds": reading,
        "load_seconds": building - mirror.tokenising,
        "prepare_seconds": mirror.tokenising,
        "batch_seconds": spread(batches[1:] or batches)["median"],
        "step_seconds": step,
        "texts_per_second": setting["batch"] / step,
        "peak_mib": peak_memory_mib(device),
        "step_mib": peak_memory_mib(device) - held,
    }


def write_texts(path: Path, model: Path, count: int, length: int) -> Path:
    """Different texts of ``length`` tokens each, special ones included, one a line."""
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(model, trust_remote_code=False)
    words = [word for word in tokenizer.get_vocab() if word.isascii() and word.isalpha()]
    rng = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(count):
            file.write(" ".join(rng.choices(words, k=length - 2)) + "\n")
    return path


def slopes(points: dict[str, dict[str, float]]) -> dict[str, float]:
    """Of each column against the axis, on logarithms; the last two thirds of the points, past the fixed costs."""
    if len(points) < 2:
        return {}
    sizes = [float(value) if value.isdigit() else size_of(value) for value in points]
    late = slice(len(sizes) // 3 if len(sizes) > 3 else 0, None)
    found = {}
    for column in COLUMNS:
        values = [point[column] for point in points.values()]
        if min(values) > 0:
            found[column] = float(np.polyfit(np.log(sizes[late]), np.log(values[late]), 1)[0])
    return found


def size_of(shape: str) -> float:
    """Weights in the layers of a shape, which the work of a step is proportional to."""
    layers, hidden = SHAPES[shape]
    return 12.0 * layers * hidden**2


def _table(axis: str, content: dict[str, Any]) -> str:
    rows = []
    for value, point in content["points"].items():
        rows.append([value, *(_figure(point[column]) for column in COLUMNS)])
    rows.append(["slope", *(f"{content['slopes'][c]:.2f}" if c in content["slopes"] else "" for c in COLUMNS)])
    return markdown([axis, *COLUMNS.values()], rows)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    main()
