"""The published recipes at equal budget on the model in this package: which one is worth what on the test sets.

    python -m benchmarks.published                             # everything: hours on two cores
    python -m benchmarks.published --only simcse esimcse --seeds 42,43,44,45,46

Every recipe sees the same 10,000 sentences once, 200 at a time, in two views each. Of a recipe its views, head, loss,
pooling at a mask token and post-processing are kept; the pooling else, the schedule and the batch are those of the
defaults, since a two-layer model wants others than BERT-base. Rate and temperature of each come from the same number
of trials on STS-B dev (one seed); then several seeds are measured once on the test sets. Differences from the defaults
are paired by seed (Student's t), corrected for all recipes (Holm).

The results are written after each recipe. What stands in them is not run again, so that the table can be made in parts,
on several machines; nor are runs that are finished in the folder.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from scipy.stats import ttest_rel

from benchmarks.measure import DATA, RESULTS, ROOT, SENTENCES, machine, markdown
from mirror.evaluation.sets.sts import AVERAGE, AVERAGED, sts_average
from mirror.runs.atomic import written_whole
from mirror.runs.registry import runs_in

COMMON = (
    "model=mini", f"data.path={SENTENCES}", f"eval.data_dir={DATA}", "batch.size=200", "batch.max_tokens=50",
    "trainer.max_epochs=1", "schedule=constant", "select=last", "eval.raw=[]", "eval.geometry_every=0",
    "eval.resamples=0", "trainer.progress=false", "trainer.precision=fp32",
)  # fmt: skip
DEFAULTS = "mirror_bert"
CHAINED = (
    "aug=mirror_repetition", "loss=queue", "loss.in_batch=true", "loss.size=400", "loss.momentum=0.995",
    "loss.key_dropout=false",
)  # fmt: skip
"""Mirror-BERT's span mask with all that ESimCSE adds."""
RECIPES: dict[str, tuple[str, ...]] = {
    DEFAULTS: (),
    "simcse": ("experiment=simcse",),
    "esimcse": ("experiment=esimcse",),
    "consert": ("experiment=consert",),
    "promptbert": ("experiment=promptbert",),
    "moco": ("experiment=moco", "loss.size=2000"),
    "ct_in_batch": ("experiment=ct_in_batch",),
    "triplet": ("experiment=triplet",),
    "labse": ("experiment=labse",),
    "barlow": ("experiment=barlow",),
    "vicreg": ("experiment=vicreg",),
    "mirror_bert, whitening": ("post=whitening",),
    "simcse, whitening": ("experiment=simcse", "post=whitening"),
    "esimcse, whitening": ("experiment=esimcse", "post=whitening"),
    "labse, whitening": ("experiment=labse", "post=whitening"),
    "labse, repetition, whitening": ("experiment=labse", "aug=repetition", "post=whitening"),
    "mirror_bert, mask, repetition, queue, whitening": (*CHAINED, "post=whitening"),
    "mirror_bert, queue": ("loss=queue", "loss.in_batch=true", "loss.size=400"),
    "mirror_bert, repetition": ("aug=repetition",),
    "mirror_bert, mask and repetition": ("aug=mirror_repetition",),
    "mirror_bert, mask, repetition and queue": CHAINED,
    "mirror_bert, head": ("head=mlp",),
    "mirror_bert, margin": ("loss.margin=0.1",),
}  # fmt: skip
"""By name, what is set beside ``COMMON``. The queue of MoCo is shortened to what an epoch can fill."""
OWN_POOLING = ("promptbert",)
TEMPERED = ("optim.lr=2.5e-4,5e-4,1e-3,2e-3", "loss.temperature=0.04,0.07")
UNTEMPERED = ("optim.lr=5e-5,1e-4,2.5e-4,5e-4,1e-3,2e-3,4e-3,8e-3",)
"""Eight trials each."""
NO_TEMPERATURE = ("ct_in_batch", "triplet", "barlow", "vicreg")
SEEDS = "42,43,44"
MEASURED = f"eval.sets=[{','.join(('stsb-dev', *AVERAGED))}]"


def main() -> None:
    """Run what is missing, then print and store the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / "outputs" / "published", help="where the runs are")
    parser.add_argument("--only", nargs="*", default=None, choices=RECIPES, help="recipes beside the defaults")
    parser.add_argument("--seeds", default=SEEDS, help="of the measured runs, separated by commas")
    parser.add_argument("--set", nargs="*", default=[], help="further settings of every run, such as data.size=2000")
    parser.add_argument(
        "--results", type=Path, default=RESULTS / "published-mini.json", help="JSON file of the results"
    )
    arguments = parser.parse_args()

    found = json.loads(arguments.results.read_text(encoding="utf-8")) if arguments.results.exists() else {}
    for name in RECIPES:
        if arguments.only is None or name in (DEFAULTS, *arguments.only):
            folder = arguments.folder / name.replace(", ", "-")
            found[name] = measured(name, found.get(name, {}), folder, arguments.seeds.split(","), arguments.set)
            with written_whole(arguments.results) as partial:
                partial.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            print(markdown(*table({key: one for key, one in found.items() if "scores" in one})), end="\n\n", flush=True)


def measured(
    name: str, known: dict[str, Any], folder: Path, seeds: Sequence[str], further: Sequence[str]
) -> dict[str, Any]:
    """What is known of a recipe, with the trials and the seeds that were missing."""
    settings = [*COMMON, *RECIPES[name], *([] if name in OWN_POOLING else ["model.pooling=first_last"]), *further]
    tempered = name not in NO_TEMPERATURE
    if "chosen" not in known:
        axes = TEMPERED if tempered else UNTEMPERED
        trials = swept(folder / "search", [*settings, *axes, "eval.sets=[stsb-dev]", "eval.audit=false"])
        best = max(trials, key=dev)["config"]
        known["chosen"] = [f"optim.lr={best['optim']['lr']}"]
        known["chosen"] += [f"loss.temperature={best['loss']['temperature']}"] if tempered else []
        known["dev"] = {" ".join(axis(run)): dev(run) for run in trials}
    missing = [seed for seed in seeds if seed not in known.setdefault("scores", {})]
    if missing:
        runs = swept(folder / "runs", [*settings, *known["chosen"], f"seed={','.join(missing)}", MEASURED])
        for run in runs:
            known["scores"][str(run["seed"])] = {key: score["all"] for key, score in run["scores"]["tuned"].items()}
        known["train_seconds"] = statistics.median(run["seconds"]["train"] for run in runs)
        known["peak_memory_mib"] = max(run["peak_memory_mib"] for run in runs)
        known["date"] = f"{datetime.now(UTC):%Y-%m-%d}"
        known["machine"] = machine(torch.device("cpu"))
    return known


def dev(run: dict[str, Any]) -> float:
    """STS-B dev of a trial."""
    score: float = run["scores"]["tuned"]["stsb-dev"]["all"]
    return score


def swept(folder: Path, settings: Sequence[str]) -> list[dict[str, Any]]:
    """What the runs of one sweep recorded; finished ones are not run again.

    Raises:
        SystemExit: a run failed.
    """
    script = ROOT / "scripts" / "train.py"
    subprocess.run(
        [sys.executable, str(script), "-m", *settings, "retry_failed=true", f"hydra.sweep.dir={folder}"],
        check=True,
        cwd=ROOT,
    )
    return [run for run in runs_in(folder).values() if run["status"] == "finished"]


def axis(run: dict[str, Any]) -> list[str]:
    """The rate and the temperature of a trial."""
    temperature = run["config"]["loss"].get("temperature")
    return [f"lr={run['config']['optim']['lr']}"] + ([f"temperature={temperature}"] if temperature else [])


def table(found: dict[str, dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """A row for each recipe: mean ± sd over the seeds, and the difference of the average from the defaults."""
    averages = {
        name: {seed: sts_average(scores) or 0.0 for seed, scores in result["scores"].items()}
        for name, result in found.items()
    }
    reference = averages[DEFAULTS]
    ps = {}
    for name, values in averages.items():
        seeds = sorted(values.keys() & reference.keys())
        if name != DEFAULTS and len(seeds) > 1:
            ps[name] = float(ttest_rel([values[s] for s in seeds], [reference[s] for s in seeds]).pvalue)
    corrected, highest = {}, 0.0
    for rank, name in enumerate(sorted(ps, key=lambda name: ps[name])):
        highest = max(highest, min(1.0, ps[name] * (len(ps) - rank)))
        corrected[name] = highest
    rows = []
    for name, result in found.items():
        cells = [cell([scores[key] for scores in result["scores"].values()]) for key in ("stsb-dev", *AVERAGED)]
        own = list(averages[name].values())
        gain = f"{statistics.mean(own) - statistics.mean(reference.values()):+.2f}" if name != DEFAULTS else ""
        p = f"{corrected[name]:.3f}" if name in corrected else ""
        rows.append([name, " ".join(result["chosen"]), *cells, cell(own), gain, p])
    return ["recipe", "chosen on dev", "stsb-dev", *AVERAGED, AVERAGE, "gain", "p (Holm)"], rows


def cell(values: Sequence[float]) -> str:
    """Mean ± sd."""
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{deviation}"


if __name__ == "__main__":
    main()
