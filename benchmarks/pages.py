"""The tables and pictures of docs/results, made of what ``benchmarks.side_by_side`` has stored.

    python -m benchmarks.pages

In a page, what stands between ``<!-- NAME -->`` and ``<!-- end -->`` is made of ``benchmarks/results/NAME-mini.json``:
of rows side by side, or, where the name is ``tokens``, of what was tried in pre-training.
"""

import json
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from benchmarks.measure import RESULTS, ROOT, markdown
from benchmarks.side_by_side import DEV, WORDS, averages_of, cell, corrected, paired
from benchmarks.step_times import STEP
from mirror.evaluation.sets.sts import AVERAGED
from mirror.runs.record import TRAINABLE

PAGES = ROOT / "docs" / "results"
MADE = re.compile(r"(<!-- (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
LEVEL = 0.05
Found = Mapping[str, Mapping[str, Any]]


def learns(result: Mapping[str, Any]) -> str:
    """Share of the weights that learn."""
    return f"{100 * result[TRAINABLE]['share']:.1f} %" if TRAINABLE in result else ""


def optimizer_memory(result: Mapping[str, Any]) -> str:
    """What the optimizer keeps."""
    return f"{result[TRAINABLE]['optimizer_bytes'] / 2**20:.2f}" if TRAINABLE in result else ""


def step_time(result: Mapping[str, Any]) -> str:
    """Of a step, over that of the reference."""
    return f"{result[STEP]['times_reference']:.2f}" if STEP in result else ""


def peak_memory(result: Mapping[str, Any]) -> str:
    """Of the whole process."""
    return f"{result['peak_memory_mib']:,.0f}"


COSTS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "learns": learns,
    "optimizer, MiB": optimizer_memory,
    "step": step_time,
    "peak, MiB": peak_memory,
}
"""By the head of the column."""


def main() -> None:
    """Write what can be made anew into each page."""
    for page in sorted(PAGES.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        made = MADE.sub(lambda part: f"{part[1]}\n{content(part[2])}\n\n{part[3]}", text)
        if made != text:
            page.write_text(made, encoding="utf-8")


def content(name: str) -> str:
    """A picture and its tables."""
    found = json.loads((RESULTS / f"{name}-mini.json").read_text(encoding="utf-8"))
    return tried(found) if name == "tokens" else rows_side_by_side(name, found)


def rows_side_by_side(name: str, found: Found) -> str:
    """A picture and two tables, the best row first."""
    reference = next(iter(found))
    averages = {row: averages_of(result) for row, result in found.items()}
    order = sorted(found, key=lambda row: -statistics.mean(averages[row].values()))
    ps = corrected({row: paired(averages[row], averages[reference]) for row in order if row != reference})
    draw(averages, order, reference, ps, PAGES / f"{name}.png")
    picture = f"![Averages of seven STS sets, with standard deviations]({name}.png)"
    return "\n\n".join([picture, markdown(*summary(found, averages, order, ps)), markdown(*sets_table(found, order))])


def tried(found: Sequence[Mapping[str, Any]]) -> str:
    """A picture of STS-B dev after tuning against the tokens of pre-training, and a table of all that was tried."""
    path = PAGES / "tokens.png"
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    for kind, marker in {"former": "s", "rate not yet fallen": "x", "rate fallen": "o"}.items():
        these = [row for row in found if row["kind"] == kind and row["tokens"]]
        axes.plot([row["tokens"] for row in these], [row["tuned"] for row in these], marker, label=kind)
        for row in these:
            point = (row["tokens"], row["tuned"])
            axes.annotate(row["mark"], point, (-6, -3), textcoords="offset points", ha="right", fontsize=8)
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks := [1, 2, 4, 8, 16, 32, 64], [str(tick) for tick in ticks])
    axes.set_xlabel("million tokens seen in pre-training")
    axes.set_ylabel("STS-B dev, tuned")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=110)
    plt.close(figure)
    cells = [
        [
            row["start"],
            f"{row['tokens']} M" if row["tokens"] else "0",
            row["bags"],
            f"{row['raw']:.1f}" if row["raw"] else "",
            f"{row['tuned']:.1f}",
            row["time"],
        ]
        for row in found
    ]
    table = markdown(["start", "tokens", "bags of words", "raw", "tuned", "time on one core"], cells)
    return f"![STS-B dev against tokens]({path.name})\n\n{table}"


def summary(
    found: Found, averages: Mapping[str, Mapping[str, float]], order: Sequence[str], ps: Mapping[str, float]
) -> tuple[list[str], list[list[str]]]:
    """A row for each choice, with what was chosen on STS-B dev, gain, significance and what it costs.

    What was measured of no row is left out.
    """
    first = statistics.mean(averages[next(iter(found))].values())
    costs = {head: cost for head, cost in COSTS.items() if any(cost(found[name]) for name in order)}
    rows = []
    for name in order:
        result, own = found[name], list(averages[name].values())
        chosen = ", ".join(f"{key.rpartition('.')[2]} {float(value):g}" for key, value in settings(result["chosen"]))
        dev = cell([scores[DEV] for scores in result["scores"].values()])
        gain = ["", ""]
        if name in ps:
            shown = f"{ps[name]:.3f}" if ps[name] >= 0.0005 else "< 0.001"
            gain = [f"{statistics.mean(own) - first:+.2f}".replace("-", "−"), shown]
        rows.append([name, chosen, str(len(own)), dev, cell(own), *gain, *(cost(result) for cost in costs.values())])
    return ["", "chosen on dev", "seeds", DEV, "average of 7", "gain", "p", *costs], rows


def settings(typed: Sequence[str]) -> list[list[str]]:
    """Names and values."""
    return [each.split("=") for each in typed]


def sets_table(found: Found, order: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Every set's score."""
    sets = [*AVERAGED, *WORDS]
    rows = [
        [name, *(cell([scores[one] for scores in found[name]["scores"].values() if one in scores]) for one in sets)]
        for name in order
    ]
    return ["", *sets], rows


def draw(
    averages: Mapping[str, Mapping[str, float]],
    order: Sequence[str],
    reference: str,
    ps: Mapping[str, float],
    path: Path,
) -> None:
    """A point for each row, in color where it differs from the reference beyond chance."""
    first = statistics.mean(averages[reference].values())
    figure, axes = plt.subplots(figsize=(8, 0.6 + 0.28 * len(order)), layout="constrained")
    for height, name in enumerate(reversed(order)):
        values = list(averages[name].values())
        color = "black" if name == reference else "tab:gray"
        if ps.get(name, 1) < LEVEL:
            color = "tab:green" if statistics.mean(values) > first else "tab:red"
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        axes.errorbar(statistics.mean(values), height, xerr=spread, fmt="o", color=color, capsize=3)
    axes.axvline(first, color="black", linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(order)), list(reversed(order)))
    axes.set_xlabel(f"average of seven STS sets\nin color where p < {LEVEL} against {reference}")
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
