"""Runs as a sweep leaves them, without training: the report is tested on these."""

import copy
import functools
import itertools
import json
import math
import operator
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import yaml

from mirror.config import plain
from mirror.config.compose import compose
from mirror.evaluation.cosines import EDGES
from mirror.evaluation.sets.sts import AVERAGED
from mirror.runs.registry import identity

GROUPS = {"model": "bert", "aug": "mirror", "data_size": "10k", "temperature": "sentence", "eval": "sts"}


@functools.cache
def composed(*groups: str) -> dict[str, Any]:
    return plain(compose("train", ["eval=sts", *groups]))


def write_run(folder: Path, overrides: Sequence[str], sets: Sequence[str] = AVERAGED, **content: Any) -> Path:
    """One finished run of these settings, unless ``content`` says otherwise; its scores follow from the settings."""
    dotted = [override for override in overrides if override.partition("=")[0] not in GROUPS]
    config = copy.deepcopy(composed(*(override for override in overrides if override not in dotted)))
    for override in dotted:
        *parents, name = override.partition("=")[0].split(".")
        place = functools.reduce(operator.getitem, parents, config)
        place[name] = yaml.safe_load(override.partition("=")[2])
    random = Random(str(sorted(overrides)))
    temperature, size, seed = config["loss"]["temperature"], config["data"]["size"], config["seed"]
    quality = 60 - 8 * abs(math.log(temperature / 0.05)) + 3 * math.log10(size) + random.gauss(0, 0.6)
    scores = {name: {"all": quality + 3 * i - 9, "pairs": 1000 + i} for i, name in enumerate(sets)}
    raw = {name: {"all": 45.0 + 2 * i, "pairs": 1000 + i} for i, name in enumerate(sets)}

    def bell(middle: float, width: float) -> list[int]:
        return [round(900 * math.exp(-(((x - middle) / width) ** 2))) for x in (EDGES[:-1] + EDGES[1:]) / 2]

    histogram = {"true": bell(0.75, 0.2), "random": bell(0.1, 0.25)}
    before = {"true": bell(0.9, 0.08), "random": bell(0.7, 0.15)}
    steps = max(2, size // 200)
    losses = [5 * math.exp(-i / 15) + temperature + random.gauss(0, 0.05) for i in range(steps)]
    record = {
        "status": "finished",
        "started": "2026-11-21T05:00:00+00:00",
        "command": ["scripts/train.py", *overrides],
        "seed": seed,
        "scores": {"raw cls": raw, "raw mean": raw, "tuned": scores},
        "contamination": {"tuned": {name: {"exact": 34, "near": 0} for name in sets if name == "sts12"}},
        "geometry": {"tuned": {"alignment": 0.1 + temperature, "uniformity": -3 + 4 * temperature}},
        "cosines": {
            "edges": EDGES.round(4).tolist(),
            "raw cls": dict.fromkeys(sets, before),
            "tuned": dict.fromkeys(sets, histogram),
        },
        "loss": {"first": losses[0], "last": losses[-1]},
        "seconds": {"train": size / 400 + random.random(), "total": size / 300 + 5},
        "versions": {"mirror": "0.1.0"},
        "config": config,
        **content,
    }
    target = folder / identity(config)
    (target / ".hydra").mkdir(parents=True)
    (target / "curve").mkdir()
    (target / "metrics.json").write_text(json.dumps(record), encoding="utf-8")
    (target / "train.log").write_text("texts: texts.txt\n<b>training</b> on cpu\ntime: …\n" * 8, encoding="utf-8")
    curve = "\n".join(["epoch,loss,step", *(f"0,{loss:.5f},{step}" for step, loss in enumerate(losses))])
    (target / "curve" / "metrics.csv").write_text(curve + "\n", encoding="utf-8")
    (target / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(list(overrides)), encoding="utf-8")
    choices = GROUPS | {key: value for key, _, value in (o.partition("=") for o in overrides) if key in GROUPS}
    hydra = {"hydra": {"runtime": {"choices": choices}}}
    (target / ".hydra" / "hydra.yaml").write_text(yaml.safe_dump(hydra), encoding="utf-8")
    return target


def write_sweep(folder: Path, axes: Mapping[str, Sequence[Any]], **content: Any) -> list[Path]:
    """A finished run for every combination."""
    return [
        write_run(folder, [f"{axis}={item}" for axis, item in zip(axes, point, strict=True)], **content)
        for point in itertools.product(*axes.values())
    ]
