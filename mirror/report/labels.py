"""What settings and test sets are called: sets in tables, and both as a paper prints them."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from mirror.evaluation.sets.sts import AVERAGE

LABELS = {
    "loss.temperature": "τ",
    "optim.lr": "learning rate",
    "data.size": "training texts",
    "batch.size": "batch size",
    "aug": "augmentation",
    "aug.span_k": "masked span k",
    "model.pooling": "pooling",
    "model.path": "model",
    "sts12": "STS12", "sts13": "STS13", "sts14": "STS14", "sts15": "STS15", "sts16": "STS16",
    "stsb-dev": "STS-B dev", "stsb-test": "STS-B", "sickr-test": "SICK-R",
    "simlex999": "SimLex-999", "wordsim353": "WordSim-353",
    AVERAGE: "avg. of 7",
}  # fmt: skip
"""In figures and LaTeX; a user's own come before these."""


def short_names(sets: Iterable[str]) -> dict[str, str]:
    """Sets given as paths are called by their file's name, unless two would be called alike."""
    stems = {name: Path(name).stem if name.endswith(".tsv") else name for name in sets}
    names = [*stems.values()]
    return {name: stem if names.count(stem) == 1 else name for name, stem in stems.items()}


def printed_as(name: str, own: Mapping[str, str]) -> str:
    """A setting or a set as a paper prints it; what is not known keeps its name."""
    return own.get(name, LABELS.get(name, name))
