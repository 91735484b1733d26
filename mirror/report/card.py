"""The model card in a saved encoder's README.md."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

from huggingface_hub import EvalResult, ModelCardData

from mirror.config import Pooling, TrainConfig
from mirror.config.parts import described, located
from mirror.data.sources import pydocs
from mirror.data.texts import TextTable
from mirror.encoder.export import STAGES
from mirror.evaluation.contamination import Overlap
from mirror.evaluation.sets import Score
from mirror.losses.teacher import folders
from mirror.runs.record import TUNED

LAYERED = (Pooling.first_last.value, Pooling.last_two.value, Pooling.layers.value)
"""Poolings that transformers' last layer does not give."""


def model_card(
    config: TrainConfig,
    table: TextTable,
    before: Mapping[str, Mapping[str, Score]],
    after: Mapping[str, Score],
    steps: int,
    views: str,
    loss: str,
    overlaps: Mapping[str, Overlap] = MappingProxyType({}),
) -> str:
    """Base model, data, recipe, scores before and after, date; Markdown with the hub's front matter.

    ``views`` and ``loss`` are these parts' own descriptions.
    """
    pooling = described(config.model.pooling) if isinstance(config.model.pooling, Mapping) else config.model.pooling
    own = config.model.pooling == Pooling.mean_padded.value or (
        isinstance(config.model.pooling, Mapping)
        and located(config.model.pooling, "model.pooling") not in STAGES.values()
    )
    first = ""
    if own:
        first = "**Loads with mirror alone**: sentence-transformers has no such pooling.\n\n"
    elif config.model.pooling in LAYERED:
        first = "**Pools several layers**: load it by sentence-transformers or mirror, not by its last layer.\n\n"
    rates = "".join(f", {name} {value:g}" for name, value in config.perturbation_rates.items() if value)
    kept = config.model.keep_layers
    layers = f"{', '.join(map(str, kept))}, counted from 0" if kept else "all"
    title, made = (
        "Mirror-tuned",
        "by mirror tuning (Liu et al. 2021,\narXiv 2104.08027) from raw text alone, without labels",
    )
    if config.loss.get("teacher"):
        teachers = " and ".join(folders(config.loss["teacher"]))
        title, made = (
            "Distilled",
            f"from raw text to follow\n{teachers}, without labels of its own: the rest is in the teacher's card",
        )
    card = f"""---
{front_matter(config, after)}
---

# {title} {config.model.path}

{first}A {config.task.value} encoder, tuned on {datetime.now(UTC):%Y-%m-%d} {made}.

| | |
|---|---|
| base model | {config.model.path} |
| layers | {layers} |
| pooling | {pooling} (stored in this folder) |
| texts | {table} |
| steps | {steps} of {config.batch.size} texts, {config.trainer.max_epochs} epoch(s) |
| augmentation | {views}{rates} |
| loss | {loss} |
| projection head | {described(config.head)} |
| post-processing | {described(config.post)} |
| adaptation | {described(config.adapt) if config.adapt else "Full"} |
| optimizer | {described(config.optim)} |
| schedule | {described(config.schedule)} |
| seed | {config.seed} |

The head that guesses masked tokens is not kept: `AutoModelForMaskedLM` begins with a random one.
"""
    if after:
        names = [*before, TUNED]
        card += "\n## Scores\n\n× 100; Spearman's correlation, all pairs of a set ranked together, unless named.\n\n"
        card += f"| set | {' | '.join(names)} |\n|---|{'---:|' * len(names)}\n"
        for name, score in after.items():
            cells = [f"{scores[name].value:.2f}" for scores in before.values()]
            label = name if score.headline == "all" else f"{name} ({score.headline})"
            seen = " †" if name in overlaps and overlaps[name].transductive else ""
            card += f"| {label}{seen} | {' | '.join([*cells, f'{score.value:.2f}'])} |\n"
        shares = [f"{name} {100 * found.share:.1f} %" for name, found in overlaps.items() if found.transductive]
        if shares:
            card += (
                "\n† transductive: of this set's texts some were trained on, without their scores: "
                f"{', '.join(shares)}.\n"
            )
        if "pydocs" in after:
            card += f"\npydocs is the documentation of {pydocs.origin()}; another installation gives another set.\n"
    load = "from mirror import MirrorEncoder" if own else "from sentence_transformers import SentenceTransformer"
    card += f"""
## Use

```python
{load}

encoder = {"MirrorEncoder.load" if own else "SentenceTransformer"}("this/folder")
```
"""
    if config.model.pooling == Pooling.mean_padded.value:
        card += (
            "\nThis encoder averages padding, as the Mirror-BERT authors' code does. sentence-transformers averages "
            "real tokens only and gives other vectors: load it with `mirror.MirrorEncoder.load`.\n"
        )
    return card


def front_matter(config: TrainConfig, scores: Mapping[str, Score]) -> str:
    """What the hub reads of the card: base model, data set, and the scores as its ``model-index``, from 0 to 1."""
    results = [
        EvalResult(
            task_type="semantic-similarity" if score.headline == "all" else "retrieval",
            dataset_type=name,
            dataset_name=name,
            metric_type="spearman_cosine" if score.headline == "all" else score.headline,
            metric_value=round(score.value / 100, 4),
        )
        for name, score in scores.items()
    ]
    path = config.data.path
    data = ModelCardData(
        library_name="sentence-transformers",
        pipeline_tag="sentence-similarity",
        tags=["sentence-transformers", "feature-extraction", "mirror-bert"],
        base_model=config.model.path,
        datasets=[path] if path and not Path(path).exists() else None,  # of the hub
        model_name=f"{'Distilled' if config.loss.get('teacher') else 'Mirror-tuned'} {config.model.path}"
        if results
        else None,
        eval_results=results or None,
    )
    return data.to_yaml()
