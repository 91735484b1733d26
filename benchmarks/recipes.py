"""The recipes of the paper on a small real model, several seeds each: what they are worth on the test sets.

    python -m benchmarks.recipes --folder outputs/recipes

Learning rates come from STS-B dev (``--search`` repeats that search), never from the test sets. Runs that are
finished in the folder are not run again.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import DATA, DRAFT, RESULTS, ROOT, SENTENCES, machine, markdown, store
from mirror.evaluation.sets.sts import AVERAGE, sts_average

WORDS = DATA / "corpora" / "en_words_top_10k.txt"
SENTENCE = [f"data.path={SENTENCES}", "eval=sts"]
SEEDS = (42, 43, 44)
RECIPES = {
    "defaults": SENTENCE,
    "temperature 0.04": [*SENTENCE, "loss.temperature=0.04"],
    "drophead": [*SENTENCE, "aug=drophead"],
    "official": [*SENTENCE, "experiment=official"],
    "words": ["task=word", f"data.path={WORDS}"],
}
"""Settings beside the model's own, whose file has the pooling, rate and temperature that the search found."""
MODELS = {"mini": ["model=mini"], "wiki-mini-draft": ["model=bert_mini", f"model.path={DRAFT}"]}
"""The one in this package, and a draft beside it."""
_POOLED = {
    "cls": ("5e-4", "1e-3", "2e-3"),
    "mean": ("3e-4", "5e-4", "1e-3", "2e-3"),
    "last_two": ("5e-4",),
    "first_last": ("3e-4", "5e-4", "1e-3"),
}
PAPER = "loss.temperature=0.04"
SEARCH = {
    **{
        f"{pooling} {lr}": [PAPER, f"model.pooling={pooling}", f"optim.lr={lr}"]
        for pooling, rates in _POOLED.items()
        for lr in rates
    },
    "temperature 0.07": ["loss.temperature=0.07"],
    "temperature 0.1": ["loss.temperature=0.1"],
    "drophead": ["aug=drophead", PAPER],
    "drophead, temperature 0.07": ["aug=drophead", "loss.temperature=0.07"],
    **{f"official {lr}": ["experiment=official", "optim.lr=" + lr] for lr in ("5e-4", "1e-3")},
}
"""One seed each, scored on STS-B dev alone."""


def main() -> None:
    """Run what is missing, then print and store the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / "outputs" / "recipes", help="where the runs are")
    parser.add_argument("--model", choices=MODELS, default="mini", help="the one in this package, or a draft beside it")
    parser.add_argument("--search", action="store_true", help="the learning rates instead of the test sets")
    parser.add_argument("--only", nargs="*", default=None, help="names of recipes")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the JSON file")
    arguments = parser.parse_args()

    recipes, seeds = (SEARCH, SEEDS[:1]) if arguments.search else (RECIPES, SEEDS)
    runs: dict[str, list[dict[str, Any]]] = {}
    for name, settings in recipes.items():
        if arguments.only is None or name in arguments.only:
            extra = [f"data.path={SENTENCES}", "eval.sets=[stsb-dev]", "eval.raw=[]"] if arguments.search else []
            folder = arguments.folder / arguments.model / name.replace(", ", "-").replace(" ", "-")
            chosen = [*MODELS[arguments.model], *settings, *extra]
            runs[name] = [run(folder.with_name(f"{folder.name}-{seed}"), seed, chosen) for seed in seeds]

    for rows in tables(runs):
        print(markdown(rows[0], rows[1:]), end="\n\n")
    content = {"machine": machine(torch.device("cpu")), "model": arguments.model, "runs": runs}
    print(store(arguments.results, f"{'search' if arguments.search else 'recipes'}-{arguments.model}", content))


def run(folder: Path, seed: int, settings: list[str]) -> dict[str, Any]:
    """The scores of one run, which is made if it is not there."""
    metrics = folder / "metrics.json"
    if not metrics.exists():
        common = [f"eval.data_dir={DATA}", f"seed={seed}"]
        command = [sys.executable, str(ROOT / "scripts" / "train.py"), *common, *settings, f"hydra.run.dir={folder}"]
        subprocess.run(command, check=True, cwd=ROOT)
    content = json.loads(metrics.read_text(encoding="utf-8"))
    assert content["status"] == "finished", f"{folder} did not finish: {content.get('error')}"
    keep = ("seed", "data", "steps", "loss", "scores", "seconds", "peak_memory_mib", "hardware", "versions")
    return {key: content[key] for key in keep if key in content}


def tables(runs: dict[str, list[dict[str, Any]]]) -> list[list[list[str]]]:
    """A table for each group of test sets: a row for each raw pooling and each recipe, mean ± sd over the seeds."""
    groups: dict[tuple[str, ...], dict[str, list[dict[str, float]]]] = {}
    for name, results in runs.items():
        for number, result in enumerate(results):
            for column, sets in result["scores"].items():
                values = {key: score["all"] for key, score in sets.items()}
                if (average := sts_average(values)) is not None:
                    values[AVERAGE] = average
                rows = groups.setdefault(tuple(values), {})
                if column == "tuned":
                    rows.setdefault(name, []).append(values)
                elif number == 0:  # the untouched model gives every seed the same scores
                    rows[column] = [values]
    return [
        [
            ["", *names],
            *([label, *(_cell([v[key] for v in values]) for key in names)] for label, values in rows.items()),
        ]
        for names, rows in groups.items()
    ]


def _cell(values: list[float]) -> str:
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{deviation}"


if __name__ == "__main__":
    main()
