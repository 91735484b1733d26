"""The model card of a pre-trained model."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mirror.config import BatchConfig, DataConfig, Pooling, PretrainConfig
from mirror.config.compose import quoted
from mirror.config.parts import described
from mirror.config.suited import CARRIED, by_config, suited
from mirror.data.texts import TextTable

CURVE_ROWS = 12
PLAIN = re.compile(r"[\w./:-]+")
"""What Hydra takes as it is."""


def model_card(
    config: PretrainConfig,
    table: TextTable,
    record: Mapping[str, Any],
    curve: Sequence[tuple[int, float]],
    *,
    fills: bool = True,
) -> str:
    """Recipe, text, loss curve and limits; Markdown with the hub's front matter. ``fills`` says whether the saved model
    fills in masks; else another one did, which is left behind.
    """
    model, masking = config.model, config.masking
    command = " ".join(["python scripts/pretrain.py", *record["command"][1:]])
    seconds = record.get("earlier_seconds", 0) + record["seconds"].get("train", 0)
    rest = 1 - masking.masked - masking.random
    share = f"{masking.share:.0%}"
    if masking.final_share is not None:
        share += f" at the first step, evenly to {masking.final_share:.0%} at the last,"
    shown = f"{masking.masked:.0%} masked, {masking.random:.0%} random, {rest:.0%} as they are"
    stored = f"{record['hardware']['precision']}, stored in {'half' if config.half else 'single'} precision"
    begin = f"continued from {model.path}" if model.path else f"from nothing (embeddings: {model.start.value})"
    if model.grow_from:
        begin = f"grown from {model.grow_from}"
    bags = ""
    if config.bag_of_words:
        held = "of each text"
        if config.bags.neighbours:
            held += " and its neighbours"
        if config.bags.sample is not None:
            held += f", words of a larger share than {config.bags.sample:g} left out at random"
        bags = f"\n| bag of words | {held}, predicted by its mean vector; weight {config.bag_of_words} |"
    average = ""
    if config.average_last:
        over = f"{config.average_last:g}" if config.average_last >= 1 else f"{config.average_last:.0%}"
        average = f"\n| weights | mean over the last {over} of the steps |"
    tag, title, whose = "fill-mask", "A masked language model", "Cross"
    if not fills:
        tag, title = "feature-extraction", "A discriminator of replaced tokens"
        whose = "Of the generator, which is left behind: cross"
    return f"""---
library_name: transformers
pipeline_tag: {tag}
tags: [{tag}, mirror-bert]
---

# {title} of {record["parameters"] / 1e6:.1f}M parameters

Trained on {datetime.now(UTC):%Y-%m-%d} with `scripts/pretrain.py`, {begin}. It is raw: for vectors of texts, tune it
with `{tuning_command(config, "this/folder")}`, best with one sentence a
line in `data.path`: whole paragraphs can leave it worse than it is.

| | |
|---|---|
| text | {table} |
| tokens seen | {record["tokens"] / 1e6:.1f}M, in {record["steps"]} steps of {config.batch.tokens} |
| objective | {described(config.objective)} |
| masking | {share} of the tokens, unit: {masking.unit.value}; {shown} |{bags}{average}
| pieces | at most {config.batch.max_tokens} tokens |
| optimizer | {described(config.optim)} |
| schedule | {described(config.schedule)} |
| precision | {stored} |
| hardware | {record["hardware"]["device"]} |
| time | {seconds / 60:.0f} minutes |
| seed | {config.seed} |

```
{command}
```

## Loss

{whose} entropy of the masked tokens in nats while training; perplexity on {record["data"]["held out"]} held-out texts.

{_curve_table(curve, record["perplexity"])}

## What {"it" if fills else "the generator"} fills in

{chr(10).join(f"- {line}" for line in record["fill"]) or "-"}

## Limits

It knows what its text knows, in the language and the years of that text, with its gaps and its prejudices. Longer
texts than {config.batch.max_tokens} tokens were never seen as a whole.
"""


def tuning_settings(config: PretrainConfig, architecture: Any, pooling: Pooling) -> dict[str, Any]:
    """What a new model is to be tuned with: what suits its shape, and its objective; an adapted model keeps what suited
    it.

    Args:
        config: of the run.
        architecture: the model's configuration, of ``transformers``.
        pooling: what the objective has taught.
    """
    if config.model.path:
        found = suited(config.model.path)
    else:
        found = replace(by_config(architecture.to_dict()), pooling=pooling.value)
    return {name: getattr(found, name) for name in CARRIED}


def tuning_command(config: PretrainConfig, folder: Path | str) -> str:
    """A command that tunes the model on the text it has read, to be typed as it is."""
    data, usual = config.data, DataConfig()
    settings = {"model.path": str(folder), "data.path": data.path}
    for name in ("name", "split", "column", "pair_column", "pair_separator"):
        if getattr(data, name) != getattr(usual, name):
            settings[f"data.{name}"] = getattr(data, name)
    if not config.model.path and config.model.positions < BatchConfig.max_tokens:
        settings["batch.max_tokens"] = str(config.model.positions)
    words = [
        f"{name}={value if PLAIN.fullmatch(value) else quoted(value)}" for name, value in settings.items() if value
    ]
    return shlex.join(["python", "scripts/train.py", *words])


def _curve_table(curve: Sequence[tuple[int, float]], perplexity: Mapping[str, float]) -> str:
    """A few points of the curve; the perplexity is the last one measured until then."""
    if not curve:
        return ""
    chosen = sorted({round(i * (len(curve) - 1) / (CURVE_ROWS - 1)) for i in range(CURVE_ROWS)})
    rows = ["| step | loss | perplexity |", "|---:|---:|---:|"]
    for i in chosen:
        step, loss = curve[i]
        known = [value for at, value in perplexity.items() if int(at) <= step + 1]
        rows.append(f"| {step + 1} | {loss:.3f} | {f'{known[-1]:.2f}' if known else ''} |")
    return "\n".join(rows)
