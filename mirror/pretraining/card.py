"""The model card of a pre-trained model."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from mirror.config import PretrainConfig
from mirror.config.parts import described
from mirror.data.texts import TextTable

CURVE_ROWS = 12


def model_card(
    config: PretrainConfig, table: TextTable, record: Mapping[str, Any], curve: Sequence[tuple[int, float]]
) -> str:
    """Recipe, text, loss curve and limits; Markdown with the hub's front matter."""
    model, masking = config.model, config.masking
    command = " ".join(["python scripts/pretrain.py", *record["command"][1:]])
    seconds = record.get("earlier_seconds", 0) + record["seconds"].get("train", 0)
    rest = 1 - masking.masked - masking.random
    shown = f"{masking.masked:.0%} masked, {masking.random:.0%} random, {rest:.0%} as they are"
    stored = f"{record['hardware']['precision']}, stored in {'half' if config.half else 'single'} precision"
    begin = f"continued from {model.path}" if model.path else f"from nothing (embeddings: {model.start.value})"
    bags = ""
    if config.bag_of_words:
        bags = f"\n| bag of words | of each text, predicted by its mean vector; weight {config.bag_of_words} |"
    return f"""---
library_name: transformers
pipeline_tag: fill-mask
tags: [fill-mask, mirror-bert]
---

# A masked language model of {record["parameters"] / 1e6:.1f}M parameters

Trained on {datetime.now(UTC):%Y-%m-%d} with `scripts/pretrain.py`, {begin}. It is raw: for vectors of texts, tune it
with `python scripts/train.py model.path=this/folder`.

| | |
|---|---|
| text | {table} |
| tokens seen | {record["tokens"] / 1e6:.1f}M, in {record["steps"]} steps of {config.batch.tokens} |
| masking | {masking.share:.0%} of the tokens, unit: {masking.unit.value}; {shown} |{bags}
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

Cross entropy of the masked tokens in nats while training; perplexity on {record["data"]["held out"]} held-out texts.

{_curve_table(curve, record["perplexity"])}

## What it fills in

{chr(10).join(f"- {line}" for line in record["fill"]) or "-"}

## Limits

It knows what its text knows, in the language and the years of that text, with its gaps and its prejudices. Longer
texts than {config.batch.max_tokens} tokens were never seen as a whole.
"""


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
