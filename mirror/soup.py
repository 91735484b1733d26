"""One encoder of several: the mean of their weights, or what lies between it and the untouched model."""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor

from mirror.config import SoupConfig, plain
from mirror.encoder.dense import Dense
from mirror.encoder.device import choose_device
from mirror.encoder.encoder import MirrorEncoder
from mirror.encoder.export import portable
from mirror.errors import MirrorError
from mirror.evaluation.sets import TestSet, load_sets
from mirror.report.console import new_table, printed
from mirror.runs.record import ENCODER, RunRecord

log = logging.getLogger(__name__)

State = dict[str, Tensor]


def soup(config: SoupConfig, folder: Path) -> MirrorEncoder:
    """Mix encoders, score what is mixed, and save it under ``folder/encoder`` (Wortsman et al. 2022, model soups).

    Raises:
        MirrorError: a part cannot be loaded, or two do not go together; or the validation set cannot be had.
    """
    with RunRecord(folder, plain(config)) as record:
        with record.phase("load"):
            sets, setting = config.eval, "eval.validation"
            (test,) = load_sets([sets.validation], sets.data_dir, kinds=sets.kinds, setting=setting)
            encoder = _load(config.parts[0]).to(choose_device(config.accelerator))
            states = [_state(encoder, encoder, config.parts[0])]
            states += [_state(encoder, _load(name), name) for name in config.parts[1:]]
            base = _state(encoder, _load(config.untouched, "untouched"), config.untouched) if config.untouched else None
        scores: dict[str, float] = {}
        with record.phase("evaluate"):
            for name, state in zip(config.parts, states, strict=True):
                scores[name] = _score(encoder, state, test)
            chosen = list(range(len(states)))
            if config.greedy:
                scored = list(scores.values())
                chosen = greedy(scored, lambda few: _score(encoder, mean([states[i] for i in few]), test))
            mixed, label = mean([states[i] for i in chosen]), f"mean of {len(chosen)}"
            scores[label] = _score(encoder, mixed, test)
            if base is not None:
                mixed, label = _between(encoder, base, mixed, config.weights, test, scores, label)
            encoder.load_state_dict(mixed)
        parts = [config.parts[i] for i in chosen]
        record["scores"] = {name: {test.name: {"all": score}} for name, score in scores.items()}
        record["soup"] = {"parts": parts, "untouched": config.untouched, "saved": label}
        log.info("\n%s", _table(scores, label, test.name))
        with record.phase("save"):
            card = _card(parts, config, scores, label, test.name, portable(encoder.pooling))
            encoder.cpu().save(folder / ENCODER, {"README.md": card})
        log.info("parts: %s; encoder saved in %s", ", ".join(parts), folder / ENCODER)
        return encoder


def mean(states: Sequence[State], shares: Sequence[float] | None = None) -> State:
    """The mean of weights, by name; with ``shares``, which add up to 1, a weighted one. Numbers that are no weights are
    those of the first."""
    shares = shares or [1 / len(states)] * len(states)
    mixed = dict(states[0])
    for name, first in states[0].items():
        if first.is_floating_point():
            total = torch.zeros_like(first, dtype=torch.float64)
            for state, share in zip(states, shares, strict=True):
                total += state[name].double() * share
            mixed[name] = total.to(first.dtype)
    return mixed


def greedy(scores: Sequence[float], score: Callable[[Sequence[int]], float]) -> list[int]:
    """The greedy soup (Wortsman et al. 2022): from the best part down, each stays in whose mean with those before it
    scores no less than they did without it.

    Args:
        scores: of the parts.
        score: of the mean of some parts, by their numbers.

    Returns:
        The parts that stay, the best one first.
    """
    best, *others = sorted(range(len(scores)), key=lambda i: -scores[i])
    chosen, highest = [best], scores[best]
    for part in others:
        found = score([*chosen, part])
        if found >= highest:
            chosen, highest = [*chosen, part], found
    return chosen


def _between(
    encoder: MirrorEncoder,
    base: State,
    mixed: State,
    shares: Sequence[float],
    test: TestSet,
    scores: dict[str, float],
    label: str,
) -> tuple[State, str]:
    """The best of the soup and what lies between it and the untouched model; each score is added to ``scores``."""
    best, state = label, mixed
    for share in shares:
        between = mean([mixed, base], [share, 1 - share])
        name = f"{share:g} of the {label}, {1 - share:g} untouched"
        scores[name] = _score(encoder, between, test)
        if scores[name] > scores[best]:
            best, state = name, between
    return state, best


def _load(name: str, setting: str = "parts") -> MirrorEncoder:
    """An encoder, or that of a run's folder."""
    inside = Path(name) / ENCODER
    return MirrorEncoder.load(str(inside) if inside.is_dir() else name, setting=setting)


def _state(first: MirrorEncoder, other: MirrorEncoder, name: str) -> State:
    """The weights of an encoder that goes with the first one.

    Raises:
        MirrorError: it does not.
    """
    state = {key: weights.cpu().clone() for key, weights in other.state_dict().items()}
    if any(isinstance(stage, Dense) for stage in other.pooling.stages):
        raise MirrorError(
            f"{name} has a linear layer behind its pooling, of which a mean means nothing: mix encoders without post=."
        )
    if other.saved_pooling is None:  # an untouched model: pooled as the encoders are
        own = {key: weights for key, weights in state.items() if re.match(r"backbone\.(?!pooler\.)", key)}
        state = own | {key: w.cpu().clone() for key, w in first.state_dict().items() if key not in own}
    elif other.pooling.name != first.pooling.name:
        raise MirrorError(
            f"{name} is pooled by {other.pooling.name}, {first.name} by {first.pooling.name}: a soup has one pooling."
        )
    kinds = [(type(one.backbone).__name__, _shapes(one.backbone.state_dict())) for one in (first, other)]
    if kinds[0] != kinds[1] or first.tokenizer.get_vocab() != other.tokenizer.get_vocab():
        raise MirrorError(
            f"{name} has another architecture or vocabulary than {first.name}: only encoders tuned from one model mix."
        )
    return state


def _shapes(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: weights.shape for name, weights in state.items()}


def _score(encoder: MirrorEncoder, state: State, test: TestSet) -> float:
    encoder.load_state_dict(state)
    return float(test.score(encoder.encode).value)


def _table(scores: Mapping[str, float], saved: str, test: str) -> str:
    table = new_table(f"Soup, {test} × 100 (Spearman)")
    for column, justify in (("", "left"), (test, "right"), ("", "left")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for name, score in scores.items():
        table.add_row(name, f"{score:.2f}", "saved" if name == saved else "")
    return printed(table)


def _card(
    parts: Sequence[str], config: SoupConfig, scores: Mapping[str, float], saved: str, test: str, theirs: bool
) -> str:
    """``theirs``: whether sentence-transformers loads it."""
    library, loader = ("sentence_transformers", "SentenceTransformer") if theirs else ("mirror", "MirrorEncoder")
    rows = "\n".join(f"| {name} | {score:.2f} |" for name, score in scores.items())
    untouched = f"; untouched model: {config.untouched}" if config.untouched else ""
    way = "greedy" if config.greedy else "plain"
    return f"""---
library_name: sentence-transformers
pipeline_tag: sentence-similarity
tags: [sentence-transformers, feature-extraction, mirror-bert, model-soup]
---

# A soup of {len(parts)} encoders

The {saved}, of the weights of: {", ".join(parts)}{untouched}. Mixed on {datetime.now(UTC):%Y-%m-%d} as a {way} model
soup (Wortsman et al. 2022, arXiv 2203.05482). It was chosen by {test}, whose score below is therefore no test.

| | {test} |
|---|---:|
{rows}

## Use

```python
from {library} import {loader}

encoder = {loader}{"" if theirs else ".load"}("this/folder")
```
"""
