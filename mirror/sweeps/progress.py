"""Progress of a sweep, whatever the launcher."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from mirror.runs.registry import read_run


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
