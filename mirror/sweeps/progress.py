"""Progress of a sweep, whatever the launcher."""

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mirror.runs.record import TUNED, headline
from mirror.runs.registry import read_run

SETS = 3
"""Most test sets whose scores are told of each run; the table at the end has all."""


@contextmanager
def progress(folders: Sequence[Path], *, shown: bool) -> Iterator[None]:
    """A progress bar over the runs in ``folders``, whatever process or machine runs them."""
    over = threading.Event()

    def watch() -> None:
        with tqdm(total=len(folders), unit="run", desc="sweep") as bar:
            while True:
                last = over.wait(1.0)
                states = [run["status"] if (run := read_run(folder)) else "" for folder in folders]
                failed = states.count("failed")
                bar.set_postfix_str(f"{states.count('running')} running, {failed} failed", refresh=False)
                bar.n = sum(states.count(state) for state in ("finished", "failed", "interrupted", "pruned"))
                bar.refresh()
                if last:
                    return

    thread = threading.Thread(target=watch, daemon=True)
    if shown:
        thread.start()
    try:
        yield
    finally:
        over.set()
        if shown:
            thread.join()


def outcome(run: Mapping[str, Any]) -> str:
    """How a run ended, in one line: its scores, or why it has none."""
    if run["status"] != "finished":
        return str(run.get("error", "it did not end"))
    scores = run.get("scores", {}).get(TUNED, {})
    told = [f"{name} {score[headline(run, name, score)]:.2f}" for name, score in list(scores.items())[:SETS]]
    more = [f"{len(scores) - SETS} more sets"] if len(scores) > SETS else []
    return f"finished in {run['seconds'].get('total', 0.0):.0f} s" + ": " * bool(told) + ", ".join([*told, *more])


def duration(seconds: float) -> str:
    """Hours and minutes, rounded up; at least one minute."""
    hours, minutes = divmod(max(1, math.ceil(seconds / 60)), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
