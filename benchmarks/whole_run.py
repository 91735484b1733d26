"""A whole run, from the prompt to the saved encoder, ours against other ways of doing the same.

    python -m benchmarks.whole_run --model ../shared/models/wiki-mini-draft

One epoch over the same texts, each contender as a command of its own, one after the other in every round. ``mirror``
is ``scripts/train.py`` with all that belongs to it; the others import, load, train and save, and nothing else: no
configuration, log or checks.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.baselines import BASELINES
from benchmarks.measure import (
    DRAFT,
    ROOT,
    SENTENCES,
    add_common_arguments,
    machine,
    markdown,
    shown,
    spread,
    store,
)
from mirror.config import TrainConfig
from mirror.config.compose import compose
from mirror.data.texts import read_texts
from mirror.runs.record import METRICS

NAMES = ("mirror", *BASELINES)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=DRAFT, help="a model folder")
    parser.add_argument("--data", type=Path, default=SENTENCES, help="training texts, one a line")
    parser.add_argument("--batch", type=int, default=200, help="texts in a batch")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    add_common_arguments(parser, rounds=2)
    parser.add_argument("--contender", choices=BASELINES, help=argparse.SUPPRESS)  # the child process that runs one
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        run_other(arguments)
        return
    described = machine(torch.device(arguments.device))
    taken: dict[str, list[float]] = {name: [] for name in NAMES}
    steps: dict[str, int] = {}
    for _ in range(arguments.rounds):
        for name in NAMES:
            spent, steps[name] = timed(name, arguments)
            taken[name].append(spent)
            print(f"{name}: {taken[name][-1]:.1f} s", file=sys.stderr, flush=True)
    results: dict[str, dict[str, Any]] = {
        name: {
            "steps": steps[name],
            "seconds": spread(spent),
            "times_mirror": spread([own / ours for own, ours in zip(spent, taken["mirror"], strict=True)]),
        }
        for name, spent in taken.items()
    }
    rows = [[name, shown(found["seconds"], 1), shown(found["times_mirror"])] for name, found in results.items()]
    print(markdown(["whole run", "s", "time ÷ mirror's"], rows))
    content = {"machine": described, "model": arguments.model.name, "batch": arguments.batch, "results": results}
    print(f"\n{store(arguments.results, f'whole_run-{arguments.model.name}-{arguments.device}', content)}")


def overrides(arguments: argparse.Namespace) -> list[str]:
    """The settings that all have in common, as for ``scripts/train.py``."""
    return [
        "model=bert",
        f"model.path='{arguments.model.resolve()}'",
        f"data.path='{arguments.data.resolve()}'",
        f"batch.size={arguments.batch}",
        f"trainer.accelerator={'gpu' if arguments.device == 'cuda' else 'cpu'}",
    ]


def timed(name: str, arguments: argparse.Namespace) -> tuple[float, int]:
    """Wall time of a contender's command, and the optimisation steps that it took.

    Raises:
        SystemExit: it failed; its own words are on the terminal.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "run"
        if name == "mirror":
            command = [sys.executable, str(ROOT / "scripts" / "train.py"), *overrides(arguments), "eval=none"]
            command += ["trainer.progress=false", f"hydra.run.dir={folder}"]
        else:
            command = [sys.executable, "-m", "benchmarks.whole_run", *sys.argv[1:]]
            command += ["--contender", name, "--folder", str(folder)]
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        begin = time.perf_counter()
        done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, text=True)
        taken = time.perf_counter() - begin
        if done.returncode or not list(folder.rglob("model.safetensors")):
            sys.exit(done.stdout[-2000:] + f"error: {name} failed with exit status {done.returncode}")
        if name == "mirror":
            return taken, json.loads((folder / METRICS).read_text(encoding="utf-8"))["steps"]
        return taken, int(done.stdout.splitlines()[-1])


def run_other(arguments: argparse.Namespace) -> None:
    """One epoch in another way, from the texts that mirror keeps, and the model saved."""
    config: TrainConfig = compose("train", overrides(arguments))
    texts = [text for text, _ in read_texts(config.data, config.seed).pairs]
    size, device = arguments.batch, torch.device(arguments.device)
    torch.manual_seed(config.seed)
    order = [texts[place] for place in torch.randperm(len(texts)).tolist()]
    learner = BASELINES[arguments.contender](
        arguments.model, config, device, lambda number: order[number * size : (number + 1) * size]
    )
    steps = math.ceil(len(texts) / size)  # the last batch is the rest, as in mirror
    for number in range(steps):
        learner.learn(learner.batch(number))
    learner.save(arguments.folder)
    print(steps)


if __name__ == "__main__":
    main()
