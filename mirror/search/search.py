"""The texts nearest in meaning to a query, by the tuned encoder and by its base model."""

import copy
import json
import logging
from contextlib import suppress
from hashlib import sha256
from itertools import zip_longest
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mirror.config import SearchConfig, Task
from mirror.data.files import read_lines
from mirror.data.sources import pydocs
from mirror.data.texts import clean
from mirror.encoder.backbone import quiet
from mirror.encoder.device import place
from mirror.encoder.encoder import MirrorEncoder
from mirror.encoder.layout import check_characters
from mirror.errors import MirrorError
from mirror.report.console import new_table
from mirror.runs.atomic import written_whole
from mirror.runs.record import ENCODER, METRICS, TUNED
from mirror.runs.registry import read_run
from mirror.search.vectors import Hit, kept_vectors, nearest, unit_vectors

log = logging.getLogger(__name__)

STORE = "vectors"
"""Folder under ``outputs`` for the vectors of searched collections."""


def search(config: SearchConfig) -> None:
    """Print the nearest texts by the raw model and by the tuned encoder, side by side.

    Raises:
        MirrorError: there is no encoder or no text to search.
    """
    check_characters(config.query, "query")
    folder = newest_encoder(Path(config.outputs).expanduser()) if config.encoder is None else Path(config.encoder)
    if config.encoder is None:
        log.info("the newest encoder: %s", folder)
    if config.input is None:
        found = documented(Path(config.outputs).expanduser() / STORE) if config.keep else read_documentation()
        texts, shown = list(found.values()), [f"[bold]{name}[/]\n{escape(text)}" for name, text in found.items()]
    else:
        texts = list(dict.fromkeys(text for line in read_lines(config.input, "input") if (text := clean(line))))
        if not texts:
            raise MirrorError(f"input={config.input} holds nothing but empty lines: give a file with one text a line.")
        shown = [escape(text) for text in texts]
    tuned = MirrorEncoder.load(config.encoder or folder, setting="encoder")
    columns = {TUNED: tuned}
    raw = raw_model(folder, tuned)
    if raw is not None:
        columns = {f"raw {raw.pooling.name}": raw, **columns}

    out: Table = new_table(f"{escape(config.query)}  (among {len(texts):,} texts)")
    out.add_column("", justify="right")
    hits = []
    for name, encoder in columns.items():
        out.add_column(name, ratio=1)
        place(encoder, config.accelerator, config.precision)
        hits.append(_hits(encoder, texts, config))
    cells = [[f"{shown[text]} [dim]{cosine:.2f}[/]" for text, cosine in column] for column in hits]
    for rank, row in enumerate(zip_longest(*cells, fillvalue=""), start=1):
        out.add_row(str(rank), *row)
    Console().print(out)


def _hits(encoder: MirrorEncoder, texts: list[str], config: SearchConfig) -> list[Hit]:
    """The nearest texts of one encoder."""
    query = unit_vectors(encoder, [config.query])[0]  # (D,)
    if not config.keep:
        return nearest(unit_vectors(encoder, texts), query, config.top)
    name = Path(config.input).stem if config.input else "pydocs"
    vectors = kept_vectors(encoder, texts, name, Path(config.outputs).expanduser() / STORE)  # (N, D)
    return nearest(vectors, query, config.top)


def read_documentation() -> dict[str, str]:
    """What the documentation of this installation says of each function, by its name."""
    return {function.name: function.summary for function in pydocs.functions()}


def documented(store: Path) -> dict[str, str]:
    """The same, kept in ``store`` between questions: reading it imports every package whose functions it has."""
    reader = Path(pydocs.__file__).read_bytes()
    path = store / f"pydocs-{sha256(pydocs.origin().encode() + reader).hexdigest()[:12]}.json"
    try:
        found: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # not there yet, or damaged
        found = read_documentation()
        with suppress(OSError):  # where it cannot be kept it is read again
            store.mkdir(parents=True, exist_ok=True)
            with written_whole(path) as partial:
                partial.write_text(json.dumps(found), encoding="utf-8")
    return found


def newest_encoder(outputs: Path) -> Path:
    """The encoder of the newest finished run on sentences.

    Raises:
        MirrorError: there is none.
    """
    found = [path for path in outputs.glob(f"**/{METRICS}") if _is_sentence_run(path.parent)]
    if not found:
        raise MirrorError(
            f"There is no finished sentence encoder under outputs={outputs}: run scripts/train.py experiment=demo "
            "first, or give encoder=…"
        )
    return max(found, key=lambda path: path.stat().st_mtime).parent / ENCODER


def raw_model(folder: Path, tuned: MirrorEncoder) -> MirrorEncoder | None:
    """The base model of an encoder, with the encoder's pooling; None if its run is no longer known."""
    settings = (read_run(folder.parent) or {}).get("config", {})
    path = settings.get("model", {}).get("path")
    if path is None:
        return None
    pooling = copy.deepcopy(tuned.pooling)
    if settings.get("post"):  # fitted on the tuned vectors, it distorts others
        pooling = pooling.without_last()
    try:
        with quiet():
            return MirrorEncoder.load(path, pooling, setting="model.path")
    except MirrorError as error:
        log.warning("The untouched model is not shown: %s", error)
        return None


def _is_sentence_run(folder: Path) -> bool:
    run = read_run(folder)
    finished = run is not None and run["status"] == "finished" and run["config"].get("task") == Task.sentence.value
    return finished and (folder / ENCODER).is_dir()
