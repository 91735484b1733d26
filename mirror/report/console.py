"""What the tables printed to a terminal share."""

import io
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich import box
from rich.console import Console
from rich.table import Table


def time_line(seconds: Mapping[str, float]) -> str:
    """Where the time went, in one line."""
    return "  ".join(f"{name} {value:.1f} s" for name, value in seconds.items())


@contextmanager
def hushed(*loggers: str) -> Iterator[None]:
    """Errors alone are told by libraries' loggers that tell of every step."""
    levels = {name: logging.getLogger(name).level for name in loggers}
    for name in loggers:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def new_table(title: str) -> Table:
    """An empty table as all of ours look."""
    return Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)


def printed(table: Table) -> str:
    """The table as lines of text, 110 columns wide."""
    console = Console(file=io.StringIO(), width=110, record=True)
    console.print(table)
    return "\n".join(line.rstrip() for line in console.export_text(styles=False).rstrip().splitlines())
