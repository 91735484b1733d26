"""Every row that needs a GPU, one after the other: the targets, what they are measured by, and whether they are met.

    python -m benchmarks.gpu
    python -m benchmarks.gpu --device cpu --small    # proves the script, in minutes, where there is no GPU

Each row is another benchmark of this folder, run in processes of its own; their results are kept beside the summary.
A row that fails is told and the others go on.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.growth import SHAPES
from benchmarks.measure import DRAFT, RESULTS, ROOT, SENTENCES, machine, markdown, store
from benchmarks.training_step import random_model

Content = dict[str, Any]


class Figure(NamedTuple):
    """One line of the summary."""

    name: str
    target: str
    value: Callable[[Content], float]
    met: Callable[[float], bool] | None = None
    unit: str = ""


class Row(NamedTuple):
    """One benchmark, and what is taken from it."""

    module: str
    arguments: list[str]
    figures: list[Figure]


def rows(device: str, shape: str, model: Path, small: bool) -> list[Row]:
    """What is measured; ``model`` is a folder of that shape."""
    batch, large, micro = (16, 64, 8) if small else (200, 8192, 256)
    rounds = ["--rounds", "2" if small else "20"]
    sizes = [str(large >> halvings) for halvings in (3, 2, 1, 0)]
    on_device = ["--device", device]
    trained = ["model=bert", f"model.path='{model}'", f"data.path='{SENTENCES}'", "eval=none", "optim.lr=2e-5"]
    trained += [f"trainer.accelerator={'gpu' if device == 'cuda' else 'cpu'}", f"batch.size={batch}"]
    trained += ["data.size=200"] if small else []
    few = ["--rounds", "1" if small else "5"]

    def split(part: str) -> Callable[[Content], float]:
        return lambda content: float(content["seconds"][part]["median"])

    def times(name: str) -> Callable[[Content], float]:
        return lambda content: float(content["results"][name]["times_mirror"]["median"])

    def above_weights(content: Content) -> float:
        """Peak less the weights and the two moments of Adam, in single precision; the gradients are not taken off."""
        return float(content["results"]["mirror"]["peak_mib"]) / 1024 - 12 * float(content["parameters"]) / 2**30

    return [
        Row(
            "training_step",
            ["--model", str(model), "--batch", str(batch), *rounds, *on_device],
            [
                Figure("step, the authors' loop ÷ mirror", "≥ 5", times("authors"), lambda x: x >= 5, "×"),
                Figure("step, sentence-transformers ÷ mirror", "≥ 5", times("simcse"), lambda x: x >= 5, "×"),
                Figure("peak over weights and optimizer", "≤ 3", above_weights, lambda x: x <= 3, "GiB"),
            ],
        ),
        Row(
            "time_to_encoder",
            [*trained, "--name", f"{shape}-{device}", *few],
            [
                Figure("training loop, one epoch", "≤ 1.0", split("train"), lambda x: x <= 1, "s"),
                Figure("whole command", "≤ 10", split("wall"), lambda x: x <= 10, "s"),
            ],
        ),
        Row(
            "time_to_encoder",
            [*trained, "batch.workers=4", "--name", f"{shape}-{device}-workers", *few],
            [Figure("training loop with four workers", "", split("train"), unit="s")],
        ),
        Row(
            "utilisation",
            ["--shape", shape, "--batch", str(batch), *rounds, *on_device],
            [
                Figure(
                    "utilisation, of a matrix product",
                    "≥ 0.5",
                    lambda content: float(content["results"]["utilisation"]["median"]),
                    lambda x: x >= 0.5,
                )
            ],
        ),
        Row(
            "encoding",
            ["--model", str(model), *few, *on_device],
            [
                Figure(
                    f"encoding {name} texts, sentence-transformers ÷ mirror",
                    target,
                    lambda content, name=name: float(content["results"][name]["times_mirror"]["median"]),  # type: ignore[misc]
                    (lambda x: x >= 1.5) if target else None,
                    "×",
                )
                for name, target in (("short", ""), ("mixed", "≥ 1.5"))
            ],
        ),
        Row(
            "growth",
            ["--axis", "batch", "--shape", shape, "--micro", str(micro), *few, *on_device, "--values", *sizes],
            [
                Figure(
                    f"a batch of {large} texts, {micro} at a time",
                    "",
                    lambda content: float(content["points"][str(large)]["peak_mib"]) / 1024,
                    unit="GiB",
                ),
                Figure(
                    "slope of that memory",
                    "≤ 0.2",
                    lambda content: float(content["slopes"]["peak_mib"]),
                    lambda x: x <= 0.2,
                ),
            ],
        ),
    ]


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to try the script")
    parser.add_argument("--shape", choices=SHAPES, help="default: base, or tiny with --small")
    parser.add_argument("--draft", type=Path, default=DRAFT, help="the model whose tokenizer serves")
    parser.add_argument("--small", action="store_true", help="a tiny model and small batches")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the JSON files")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        sys.exit("error: --device cuda finds no GPU: try the script with --device cpu --small.")
    shape = arguments.shape or ("tiny" if arguments.small else "base")
    described = machine(torch.device(arguments.device))
    layers, hidden = SHAPES[shape]
    summary: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        model = random_model(arguments.draft.resolve(), f"{scratch}/{shape}", layers=layers, hidden=hidden)
        for row in rows(arguments.device, shape, model, arguments.small):
            content = measured(row, Path(scratch), arguments.results)
            for figure in row.figures:
                value = None if content is None else figure.value(content)
                met = figure.met(value) if figure.met and value is not None else None
                summary.append({"row": figure.name, "target": figure.target, "value": value, "unit": figure.unit,
                                "met": met, "command": [row.module, *row.arguments]})  # fmt: skip
    print(_table(summary))
    stored = {"machine": described, "shape": shape, "small": arguments.small, "rows": summary}
    print(f"\n{store(arguments.results, f'gpu-{shape}-{arguments.device}', stored)}")
    if any(line["value"] is None for line in summary):
        sys.exit(1)


def measured(row: Row, scratch: Path, kept: Path) -> Content | None:
    """The results of a benchmark, moved to where they are kept; None where it failed, whose words are shown."""
    folder = scratch / "results"
    command = [sys.executable, "-m", f"benchmarks.{row.module}", *row.arguments, "--results", str(folder)]
    print(" ".join(command[1:]), file=sys.stderr, flush=True)
    run = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if run.returncode:
        print(run.stdout[-2000:], file=sys.stderr)
        return None
    (path,) = folder.iterdir()
    content: Content = json.loads(path.read_text(encoding="utf-8"))
    kept.mkdir(parents=True, exist_ok=True)
    (kept / path.name).write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    path.unlink()
    return content


def _table(summary: list[dict[str, Any]]) -> str:
    lines = []
    for line in summary:
        value = "failed" if line["value"] is None else f"{line['value']:.3g} {line['unit']}".strip()
        verdict = {True: "yes", False: "no", None: ""}[line["met"]]
        lines.append(
            [line["row"], value, f"{line['target']} {line['unit']}".strip() if line["target"] else "", verdict]
        )
    return markdown(["row", "measured", "target", "met"], lines)


if __name__ == "__main__":
    main()
