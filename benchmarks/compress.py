"""Smaller encoders and mixed ones: every way of ``scripts/export.py`` and ``scripts/soup.py``, over several runs.

    python -m benchmarks.compress   # five encoders, and five soups of three

The encoders are of Mirror-BERT's default recipe on the model in this package. Speed is that of the smaller encoder over
that of the encoder it was made of, on the texts of STS-B dev, in the same process; a cosine's largest change is over
the pairs of STS-B dev. Differences are paired by encoder (Student's t), corrected for all rows (Holm).
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import DATA, RESULTS, ROOT, SENTENCES, machine, markdown, store
from benchmarks.side_by_side import SETS, average, cell, corrected, paired, trained
from mirror import MirrorEncoder
from mirror.config import EvalConfig
from mirror.evaluation.sets import load_sets
from mirror.evaluation.sets.sts import AVERAGE
from mirror.runs.atomic import written_whole
from mirror.runs.record import ENCODER

WAYS: dict[str, tuple[str, ...]] = {
    "torch, fp16": ("weights=fp16",),
    "torch, bf16": ("weights=bf16",),
    "onnx, fp32": ("format=onnx",),
    "onnx, int8": ("format=onnx", "weights=int8"),
    "openvino, fp32": ("format=openvino",),
    "openvino, int8": ("format=openvino", "weights=int8"),
    "torch, PCA to 128": ("dimensions=128", f"input={SENTENCES}"),
    "torch, PCA to 64": ("dimensions=64", f"input={SENTENCES}"),
    "torch, PCA to 32": ("dimensions=32", f"input={SENTENCES}"),
    "static, 256": ("format=static",),
    "static, 64": ("format=static", "dimensions=64"),
}
"""By name, what is set beside the encoder."""
WHOLE = "torch, fp32"
FIRST = 42
"""The first seed."""
SOUP = 3
"""Encoders in a soup."""
Found = dict[str, dict[str, Any]]


def main() -> None:
    """Make what is missing, then print and store the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / "outputs" / "compress", help="where everything is made")
    parser.add_argument("--encoders", type=int, default=5, help="how many are made smaller; as many soups are mixed")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the JSON file")
    arguments = parser.parse_args()

    count = arguments.encoders
    groups = [[FIRST + number + part * count for part in range(SOUP)] for number in range(count)]
    parts = {
        seed: trained(arguments.folder / "runs" / str(seed), (f"seed={seed}", "loss.temperature=0.07"))
        for group in groups
        for seed in group
    }
    encoders = {str(group[0]): parts[group[0]] for group in groups}
    found = {WHOLE: {name: {"scores": scores(encoder)} for name, encoder in encoders.items()}}
    for way, settings in WAYS.items():
        found[way] = {}
        for name, encoder in encoders.items():
            folder = arguments.folder / "exports" / way.replace(", ", "-").replace(" ", "-") / name
            run("export.py", [f"encoder={encoder}", *settings], folder)
            found[way][name] = smaller(folder)
    soups = {}
    for number, few in enumerate(groups):
        folder = arguments.folder / "soups" / str(number)
        run("soup.py", [str(parts[seed]) for seed in few], folder)
        own = [scores(parts[seed]) for seed in few]
        soups[str(number)] = {"seeds": few, "parts": own, "mean": scores(folder / ENCODER)}
    print(markdown(*ways_table(found)), end="\n\n")
    print(markdown(*soups_table(soups)))
    store(
        arguments.results,
        "compress-mini-cpu",
        {"machine": machine(torch.device("cpu")), "ways": found, "soups": soups},
    )


def run(script: str, settings: Sequence[str], folder: Path) -> None:
    """One of mirror's commands, unless its folder is complete.

    Raises:
        CalledProcessError: it failed.
    """
    if not (folder / ENCODER).exists():
        command = [sys.executable, str(ROOT / "scripts" / script), *settings, f"eval.data_dir={DATA}"]
        subprocess.run([*command, f"hydra.run.dir={folder}"], check=True, cwd=ROOT)


def smaller(folder: Path) -> dict[str, Any]:
    """What an export measured, and its scores."""
    rows = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["export"]
    before, after = rows["before"], rows["after"]
    return {
        "scores": scores(folder / ENCODER),
        "megabytes": after["megabytes"],
        "speed": after["texts per second"] / before["texts per second"],
        "change": after["largest change of a cosine"],
    }


def scores(encoder: Path) -> dict[str, float]:
    """Every set's score, kept beside the encoder."""
    kept = encoder.parent / "scores.json"
    if kept.exists():
        known: dict[str, float] = json.loads(kept.read_text(encoding="utf-8"))
        return known
    loaded = MirrorEncoder.load(encoder)
    found = {}
    for test in load_sets(list(SETS), str(DATA), kinds=EvalConfig().kinds):
        texts = test.texts()
        found[test.name] = test.score_vectors(dict(zip(texts, loaded.encode(texts), strict=True))).value
    with written_whole(kept) as partial:
        partial.write_text(json.dumps(found), encoding="utf-8")
    return found


def ways_table(found: Mapping[str, Found]) -> tuple[list[str], list[list[str]]]:
    """A row for each way: mean ± sd over the encoders."""
    averages = {way: averaged({name: one["scores"] for name, one in of.items()}) for way, of in found.items()}
    ps = corrected({way: paired(values, averages[WHOLE]) for way, values in averages.items() if way != WHOLE})
    rows = []
    for way, of in found.items():
        row = [way, cell([one["scores"]["stsb-dev"] for one in of.values()]), cell(list(averages[way].values()))]
        if way != WHOLE:
            gain = statistics.mean(averages[way].values()) - statistics.mean(averages[WHOLE].values())
            row += [f"{gain:+.2f}", f"{ps[way]:.3f}" if way in ps else ""]
            row += [f"{statistics.median(one[key] for one in of.values()):.2f}" for key in ("megabytes", "speed")]
            row += [f"{max(one['change'] for one in of.values()):.5f}"]
        rows.append(row + [""] * (8 - len(row)))
    return ["", "stsb-dev", AVERAGE, "gain", "p (Holm)", "MB", "speed ÷ fp32", "largest change of a cosine"], rows


def soups_table(soups: Mapping[str, dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """The soups, the mean of their parts' scores, and the part that is best on STS-B dev."""
    kinds: dict[str, dict[str, dict[str, float]]] = {
        "mean of the parts' scores": {},
        "best part on dev": {},
        "soup": {},
    }
    for name, one in soups.items():
        kinds["mean of the parts' scores"][name] = {
            key: statistics.mean(part[key] for part in one["parts"]) for key in one["mean"]
        }
        kinds["best part on dev"][name] = max(one["parts"], key=lambda part: part["stsb-dev"])
        kinds["soup"][name] = one["mean"]
    averages = {kind: averaged(of) for kind, of in kinds.items()}
    rows = []
    for kind, of in kinds.items():
        p = None if kind == "soup" else paired(averages["soup"], averages[kind])
        dev = cell([one["stsb-dev"] for one in of.values()])
        rows.append([kind, dev, cell(list(averages[kind].values())), "" if p is None else f"{p:.3f}"])
    return [f"{len(soups)} soups of {SOUP}", "stsb-dev", AVERAGE, "p against the soup"], rows


def averaged(found: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The average of the seven STS sets, by encoder."""
    return {name: average(one) for name, one in found.items()}


if __name__ == "__main__":
    main()
