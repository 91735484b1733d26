"""Seconds from the shell prompt to the saved encoder, and where they go.

    python -m benchmarks.time_to_encoder model=bert_mini model.path=… data.path=… eval=none

Runs ``scripts/train.py`` with the given overrides in a new process, several times. The wall time is split by what
the run notes in its ``metrics.json``: Python and Hydra come before its clock starts, importing torch and Lightning
before its first phase.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import ROOT, add_common_arguments, machine, markdown, shown, spread, store

NO_PHASE = ("total", "to first step")


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="+", help="as for scripts/train.py")
    parser.add_argument("--name", default="run", help="what the JSON file is called after")
    add_common_arguments(parser, rounds=3)
    arguments = parser.parse_intermixed_args()
    described = machine(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    runs = [run(arguments.overrides) for _ in range(arguments.rounds)]
    split = {part: spread([one["split"][part] for one in runs]) for part in runs[0]["split"]}
    shares = {part: spread([one["split"][part] / one["split"]["wall"] for one in runs]) for part in split}
    head = ["from the prompt", "s", "% of the wall time"]
    print(
        markdown(
            head,
            [[part, shown(split[part]), f"{100 * shares[part]['median']:.0f}"] for part in split],
        )
    )
    content = {
        "machine": described,
        "overrides": arguments.overrides,
        "rounds": arguments.rounds,
        "seconds": split,
        "share_of_wall": shares,
        "runs": runs,
    }
    print(f"\n{store(arguments.results, f'time_to_encoder-{arguments.name}', content)}")


def run(overrides: list[str]) -> dict[str, Any]:
    """One run of the command: its seconds by part, in the order in which they pass, and its own notes.

    Raises:
        SystemExit: the run failed; its own words are on the terminal.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "run"
        command = [sys.executable, str(ROOT / "scripts" / "train.py"), *overrides, f"hydra.run.dir={folder}"]
        command.append("trainer.progress=false")
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        begin = time.time()
        done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, text=True)
        wall = time.time() - begin
        if done.returncode or not (folder / "encoder").is_dir():
            sys.exit(done.stdout[-2000:] + f"error: the run failed with exit status {done.returncode}")
        written = (folder / "metrics.json").stat().st_mtime  # the run's last act on its own clock
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    noted = metrics["seconds"]
    phases = {name: spent for name, spent in noted.items() if name not in NO_PHASE}
    started = written - noted["total"]
    split = {
        "Python and Hydra": started - begin,
        **phases,
        "the rest": noted["total"] - sum(phases.values()),
        "exit": begin + wall - written,
        "wall": wall,
        "of which to the end of the first step": started + noted["to first step"] - begin,
    }
    kept = {name: metrics[name] for name in ("steps", "hardware", "data", "peak_memory_mib")}
    return {"split": split, **kept}


if __name__ == "__main__":
    main()
