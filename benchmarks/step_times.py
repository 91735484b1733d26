"""What a training step of each choice costs, beside one of the defaults: the tables of ``benchmarks.side_by_side``.

    python -m benchmarks.step_times published adapt distil

Every round takes the rows in turn, a few steps of each, in one process; ratios are taken within a round, against the
mean of the defaults before and after it. Batches, Lightning and the optimizer are included, what happens once before
the first step is not. The median is written into ``benchmarks/results/NAME-mini.json``.
"""

import argparse
import importlib
import json
import logging
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from tqdm import tqdm

from benchmarks.measure import RESULTS, machine, markdown
from benchmarks.side_by_side import COMMON, UNTRAINED, Row
from mirror.adapt import adapted
from mirror.config import TrainConfig, plain
from mirror.config.compose import compose
from mirror.runs.atomic import written_whole
from mirror.runs.record import RunRecord
from mirror.training.fit import fit
from mirror.training.hardware import choose_hardware
from mirror.training.parts import build_adaptation
from mirror.training.run import Run

TABLES = ("published", "adapt", "distil")
WARMUP = 2
STEPS = 8
STEP = "step"
"""Key of a row's ratio in the results."""


class Clock(Callback):
    """Seconds of a step, over ``STEPS`` of them."""

    def __init__(self) -> None:
        self.ends = list[float]()

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *step: Any) -> None:
        """Note the moment."""
        self.ends.append(time.perf_counter())

    @property
    def seconds(self) -> float:
        """Of one step."""
        return (self.ends[-1] - self.ends[WARMUP - 1]) / (len(self.ends) - WARMUP)


def step_seconds(settings: Sequence[str]) -> float:
    """Seconds of a step with these settings beside ``COMMON``."""
    few = ("eval.sets=[]", f"trainer.max_steps={WARMUP + STEPS}")
    config: TrainConfig = compose("train", [*COMMON, *settings, *few])
    clock = Clock()
    with TemporaryDirectory() as folder, RunRecord(None, plain(config), None) as record, redirect_stdout(StringIO()):
        run = Run(config, Path(folder), record, choose_hardware(config.trainer), None)
        run.read(None)
        run.load()
        run.make_batches()
        adaptation = build_adaptation(config, run.data.batches.steps)
        with adapted(run.encoder, adaptation, config.seed):
            fit(config, run.encoder, run.data, Path(folder), run.hardware, record, watch=[clock], adaptation=adaptation)
    return clock.seconds


def ratios(rows: Mapping[str, Row], rounds: int) -> dict[str, list[float]]:
    """By row, one ratio a round."""
    reference, *others = rows
    found: dict[str, list[float]] = {name: [] for name in others}
    for _ in range(rounds):
        before = step_seconds(rows[reference].settings)
        for name in tqdm(others):
            own = step_seconds(rows[name].settings)
            after = step_seconds(rows[reference].settings)
            found[name].append(2 * own / (before + after))
            before = after
    return found


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="+", choices=TABLES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the tables' JSON files")
    arguments = parser.parse_args()
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    described = machine(torch.device("cpu"))
    for name in arguments.tables:
        path = arguments.results / f"{name}-mini.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        table = importlib.import_module(f"benchmarks.{name}").ROWS
        rows = {key: row for key, row in table.items() if key in content and UNTRAINED not in row.settings}
        for row in rows.values():
            if row.prepare:
                row.prepare()
        measured = ratios(rows, arguments.rounds)
        measured[next(iter(rows))] = [1.0]
        for key, values in measured.items():
            content[key][STEP] = {"times_reference": statistics.median(values), "machine": described}
        with written_whole(path) as partial:
            partial.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        lines = [[key, f"{statistics.median(v):.2f}", f"{min(v):.2f}", f"{max(v):.2f}"] for key, v in measured.items()]
        print(markdown(["step ÷ that of the defaults", "median", "least", "most"], lines), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
