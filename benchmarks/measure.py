"""What the benchmarks share: the clock, the spread, the machine, and where results go."""

import argparse
import json
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[1]
SHARED = ROOT / ".." / "shared"
DATA = Path(os.environ.get("MIRROR_DATA", SHARED / "data")).resolve()
MODELS = Path(os.environ.get("MIRROR_MODELS", SHARED / "models")).resolve()
SENTENCES = DATA / "corpora" / "stsbenchmark_train_10k_sents_random_sampled.txt"
DRAFT = MODELS / "wiki-mini-draft"
RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "transformers", "sentence-transformers", "pytorch-metric-learning")


def add_common_arguments(parser: argparse.ArgumentParser, rounds: int) -> None:
    """The arguments that every benchmark takes."""
    parser.add_argument("--rounds", type=int, default=rounds, help="measured rounds; every contender runs once in each")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the JSON file")


def seconds(action: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    """Wall time of an action, the device's queued work included, and what it returned."""
    _synchronize(device)
    begin = time.perf_counter()
    result = action()
    _synchronize(device)
    return time.perf_counter() - begin, result


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, quartiles and extremes."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    return {"median": middle, "q1": low, "q3": high, "min": min(values), "max": max(values)}


def shown(figures: dict[str, float], digits: int = 2) -> str:
    """A spread in a table: median and quartiles."""
    return f"{figures['median']:.{digits}f} ({figures['q1']:.{digits}f}-{figures['q3']:.{digits}f})"


def peak_memory_mib(device: torch.device) -> float:
    """The most memory that this process has held: on the GPU where it computes there, else resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def resident_mib(device: torch.device) -> float:
    """The memory that this process holds now: on the GPU where it computes there, else resident."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device) / 2**20
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 2**20


def machine(device: torch.device) -> dict[str, Any]:
    """What the figures depend on beside the code; the load tells whether something else was running."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {package: version(package) for package in PACKAGES},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
    values = {key.strip(): value.strip() for key, value in fields.items()}
    family = f" (family {values['cpu family']}, model {values['model']})" if "cpu family" in values else ""
    return values.get("model name", platform.machine()) + family


def store(folder: Path, name: str, content: dict[str, Any]) -> Path:
    """Write results under the benchmark's name and the time; nothing is overwritten."""
    now = datetime.now(UTC)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{now:%Y-%m-%d-%H%M%S}-{name}.json"
    content = {"benchmark": name, "date": now.isoformat(timespec="seconds"), "command": sys.argv[1:], **content}
    with path.open("x", encoding="utf-8") as file:
        file.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return path


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column names the row, the others are figures."""
    rule = [":--", *["--:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))
