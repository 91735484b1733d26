"""Choices side by side at equal budget on the model in this package: rates searched on STS-B dev, tests read once.

Every choice sees the same 10,000 sentences once, 200 at a time, in two views each, at a constant rate unless it says
otherwise. What is searched comes from trials on STS-B dev (one seed); then several seeds are measured once on the test
sets. Differences from the reference are paired by seed (Student's t), corrected for all rows (Holm).

The results are written after each row. What stands in them is not run again, so that a table can be made in parts, on
several machines; nor are runs that are finished in the folder. A seed that lacks a test set is run again.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from scipy.stats import ttest_rel

from benchmarks.measure import DATA, RESULTS, ROOT, SENTENCES, machine, markdown
from mirror.evaluation.certainty import holm
from mirror.evaluation.sets.sts import AVERAGE, AVERAGED, sts_average
from mirror.runs.atomic import written_whole
from mirror.runs.record import ENCODER, TRAINABLE
from mirror.runs.registry import runs_in

COMMON = (
    "model=mini", f"data.path={SENTENCES}", f"eval.data_dir={DATA}", "batch.size=200", "batch.max_tokens=50",
    "trainer.max_epochs=1", "schedule=constant", "select=last", "eval.raw=[]", "eval.geometry_every=0",
    "eval.resamples=0", "trainer.progress=false", "trainer.precision=bf16",
)  # fmt: skip
UNTRAINED = "trainer.max_epochs=0"
"""Of a row that takes the model as it is."""
DEV = "stsb-dev"
WORDS = ("simlex999", "wordsim353", "multisimlex-eng")
SETS = (DEV, *AVERAGED, *WORDS)
SEEDS = "42,43,44"


@dataclass(frozen=True)
class Row:
    """One choice.

    Attributes:
        settings: what is set beside ``COMMON``.
        axes: what is searched, as in ``optim.lr=1e-4,1e-3``; nothing where it is empty.
        prepare: makes what the settings name, such as a teacher, where it is not there yet.
    """

    settings: tuple[str, ...]
    axes: tuple[str, ...]
    prepare: Callable[[], object] | None = None


def side_by_side(name: str, rows: Mapping[str, Row], help_text: str) -> None:
    """Run what is missing of the rows, the first of which is the reference, then print and store the table."""
    parser = argparse.ArgumentParser(description=help_text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / "outputs" / name, help="where the runs are")
    parser.add_argument("--only", nargs="*", default=None, choices=rows, help="rows beside the reference")
    parser.add_argument("--seeds", default=SEEDS, help="of the measured runs, separated by commas")
    parser.add_argument("--set", nargs="*", default=[], help="further settings of every run, such as data.size=2000")
    parser.add_argument("--results", type=Path, default=RESULTS / f"{name}-mini.json", help="JSON file of the results")
    arguments = parser.parse_args()

    reference = next(iter(rows))
    found = json.loads(arguments.results.read_text(encoding="utf-8")) if arguments.results.exists() else {}
    if any(row.get("weights", weights()) != weights() for row in found.values()):
        parser.error(
            f"{arguments.results.name} is of other weights of mini: give another file with --results, or go on with "
            "the version of the package that has those."
        )
    for key, row in rows.items():
        if arguments.only is None or key in (reference, *arguments.only):
            folder = arguments.folder / key.replace(", ", "-")
            found[key] = measured(row, found.get(key, {}), folder, arguments.seeds.split(","), arguments.set)
            with written_whole(arguments.results) as partial:
                partial.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            done = {key: found[key] for key in rows if "scores" in found.get(key, {})}
            print(markdown(*table(done, reference)), end="\n\n", flush=True)


@cache
def weights() -> str:
    """A digest of the model that is tuned: rows of different weights are not put into one table."""
    return sha256((ROOT / "mirror" / "models" / "mini" / "model.safetensors").read_bytes()).hexdigest()[:12]


def measured(
    row: Row, known: dict[str, Any], folder: Path, seeds: Sequence[str], further: Sequence[str]
) -> dict[str, Any]:
    """What is known of a row, with the trials and the seeds that were missing."""
    settings = [*COMMON, *row.settings, *further]
    scores = known.setdefault("scores", {})
    missing = [seed for seed in seeds if not set(SETS) <= scores.get(seed, {}).keys()]
    if row.prepare and ("chosen" not in known or missing):
        row.prepare()
    if "chosen" not in known:
        trials = []
        if row.axes:
            trials = swept(folder / "search", [*settings, *row.axes, f"eval.sets=[{DEV}]", "eval.audit=false"])
        known["chosen"] = axis(max(trials, key=dev), row.axes) if trials else []
        known["dev"] = {" ".join(axis(run, row.axes)): dev(run) for run in trials}
    if missing:
        sets = f"eval.sets=[{','.join(SETS)}]"
        runs = swept(folder / "runs", [*settings, *known["chosen"], f"seed={','.join(missing)}", sets])
        for run in runs:
            scores[str(run["seed"])] = {key: score["all"] for key, score in run["scores"]["tuned"].items()}
        known["train_seconds"] = statistics.median(run["seconds"].get("train", 0.0) for run in runs)
        known["peak_memory_mib"] = max(run["peak_memory_mib"] for run in runs)
        if TRAINABLE in runs[0]:
            known[TRAINABLE] = runs[0][TRAINABLE]
        known["weights"] = weights()
        known["date"] = f"{datetime.now(UTC):%Y-%m-%d}"
        known["machine"] = machine(torch.device("cpu"))
    return known


def trained(folder: Path, settings: Sequence[str]) -> Path:
    """The encoder of one run, which is made where it is not there yet.

    Raises:
        CalledProcessError: the run failed.
    """
    encoder = folder / ENCODER
    if not encoder.exists():
        command = [sys.executable, str(ROOT / "scripts" / "train.py"), *COMMON, *settings, f"hydra.run.dir={folder}"]
        subprocess.run([*command, f"eval.sets=[{DEV}]"], check=True, cwd=ROOT)
    return encoder


def dev(run: dict[str, Any]) -> float:
    """STS-B dev of a trial."""
    score: float = run["scores"]["tuned"][DEV]["all"]
    return score


def swept(folder: Path, settings: Sequence[str]) -> list[dict[str, Any]]:
    """What the runs of one sweep recorded; finished ones are not run again.

    Raises:
        CalledProcessError: a run failed.
    """
    script = ROOT / "scripts" / "train.py"
    subprocess.run(
        [sys.executable, str(script), "-m", *settings, "retry_failed=true", f"hydra.sweep.dir={folder}"],
        check=True,
        cwd=ROOT,
    )
    return [run for run in runs_in(folder).values() if run["status"] == "finished"]


def axis(run: dict[str, Any], axes: Sequence[str]) -> list[str]:
    """What a trial has of what is searched, as settings."""
    found = []
    for name in (each.split("=")[0] for each in axes):
        value = run["config"]
        for part in name.split("."):
            value = value[part]
        found.append(f"{name}={value}")
    return found


def table(found: dict[str, dict[str, Any]], reference: str) -> tuple[list[str], list[list[str]]]:
    """A row for each choice: mean ± sd over the seeds, and the difference of the average from the reference."""
    averages = {name: averages_of(result) for name, result in found.items()}
    ps = corrected(
        {name: paired(values, averages[reference]) for name, values in averages.items() if name != reference}
    )
    rows = []
    for name, result in found.items():
        cells = [cell([s[key] for s in result["scores"].values() if key in s]) for key in SETS]
        own = list(averages[name].values())
        gain = f"{statistics.mean(own) - statistics.mean(averages[reference].values()):+.2f}"
        p = f"{ps[name]:.3f}" if name in ps else ""
        rows.append([name, " ".join(result["chosen"]), *cells, cell(own), gain if name != reference else "", p])
    return ["row", "chosen on dev", *SETS, AVERAGE, "gain", "p (Holm)"], rows


def average(scores: Mapping[str, float]) -> float:
    """Of the seven STS sets, all of which were measured."""
    found = sts_average(scores)
    assert found is not None
    return found


def averages_of(result: Mapping[str, Any]) -> dict[str, float]:
    """The average of the seven sets, by seed."""
    return {seed: average(scores) for seed, scores in result["scores"].items()}


def paired(values: Mapping[str, float], reference: Mapping[str, float]) -> float | None:
    """Two-sided p of Student's t over the seeds that both have, or nothing where fewer than two are common."""
    seeds = sorted(values.keys() & reference.keys())
    if len(seeds) < 2:
        return None
    return float(ttest_rel([values[s] for s in seeds], [reference[s] for s in seeds]).pvalue)


def corrected(ps: Mapping[str, float | None]) -> dict[str, float]:
    """The p that there are, after Holm's correction for all of them."""
    known = {name: p for name, p in ps.items() if p is not None}
    return dict(zip(known, holm(list(known.values())), strict=True))


def cell(values: Sequence[float]) -> str:
    """Mean ± sd."""
    if not values:
        return ""
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{deviation}"
