"""Texts per second of ``MirrorEncoder.encode`` against ``SentenceTransformer.encode``, same weights and texts.

    python -m benchmarks.encoding
    python -m benchmarks.encoding --precision bf16

Both read the same saved folder, encode with their own batching, and take turns; the ratio is taken within a round.
sentence-transformers encodes in single precision, mirror too unless it is told otherwise. The vectors are compared, and
the scores on STS: a speed is worth nothing where the results differ.
"""

import argparse
import random
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from benchmarks.measure import (
    DATA,
    DRAFT,
    SENTENCES,
    add_common_arguments,
    machine,
    markdown,
    seconds,
    shown,
    spread,
    store,
)
from mirror.config import Accelerator, DataConfig, Precision
from mirror.data.texts import read_texts
from mirror.encoder.device import place
from mirror.encoder.encoder import MirrorEncoder
from mirror.evaluation.sets import TestSet, load_sets
from mirror.evaluation.sets.sts import AVERAGED

SETS = ("stsb-dev", *AVERAGED)
LONGEST = 12
"""Sentences in the longest of the mixed texts."""


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=DRAFT, help="an encoder, or a model folder, pooled by CLS")
    parser.add_argument("--data", type=Path, default=SENTENCES, help="texts, one a line")
    parser.add_argument("--texts", type=int, default=2000, help="texts encoded in a round")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--st-batch", type=int, default=32, help="sentence-transformers' batch_size; 32 is its default")
    parser.add_argument("--precision", type=Precision, default=Precision.fp32, choices=[Precision.fp32, Precision.bf16])
    add_common_arguments(parser, rounds=7)
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    device = torch.device(arguments.device)
    described = machine(device)
    table = read_texts(DataConfig(path=str(arguments.data), size=arguments.texts), seed=42)
    short = [text for text, _ in table.pairs]
    with tempfile.TemporaryDirectory() as scratch:
        mirror = MirrorEncoder.load(arguments.model).to(device)
        mirror.save(Path(scratch) / "encoder")
        other = SentenceTransformer(str(Path(scratch) / "encoder"), trust_remote_code=False, device=arguments.device)

    tests = load_sets(SETS, str(DATA))
    before = _scores(mirror, tests)
    place(mirror, Accelerator.gpu if device.type == "cuda" else Accelerator.cpu, arguments.precision)
    after = _scores(mirror, tests)

    def theirs(texts: Sequence[str]) -> NDArray[np.float32]:
        vectors: NDArray[np.float32] = other.encode(list(texts), batch_size=arguments.st_batch, show_progress_bar=False)
        return vectors

    results = {}
    for name, texts in {"short": short, "mixed": mixed(short)}.items():
        results[name] = compare(mirror, theirs, texts, arguments.rounds, device)
    print(_table(results))
    own = arguments.precision.value
    rows = [[name, f"{before[name]:.2f}", f"{after[name]:.2f}", f"{after[name] - before[name]:+.3f}"] for name in SETS]
    rows.append(["mean", *(f"{fmean(found.values()):.2f}" for found in (before, after))])
    rows[-1].append(f"{fmean(after.values()) - fmean(before.values()):+.3f}")
    print(f"\n{markdown(['Spearman × 100', 'fp32', own, 'difference'], rows)}")
    content = {
        "machine": described,
        "model": arguments.model.name,
        "rounds": arguments.rounds,
        "precision": own,
        "scores": {"fp32": before, own: after},
        "sentence_transformers_batch_size": arguments.st_batch,
        "results": results,
    }
    print(f"\n{store(arguments.results, f'encoding-{arguments.model.name}-{device.type}', content)}")


def _scores(encoder: MirrorEncoder, tests: Sequence[TestSet]) -> dict[str, float]:
    found = {}
    for test in tests:
        texts = test.texts()
        found[test.name] = test.score_vectors(dict(zip(texts, encoder.encode(texts), strict=True))).value
    return found


def mixed(short: Sequence[str]) -> list[str]:
    """Texts from one sentence to ``LONGEST`` sentences, as in a collection of passages."""
    rng = random.Random(0)
    return [" ".join(rng.choices(short, k=rng.randint(1, LONGEST))) for _ in short]


def compare(
    mirror: MirrorEncoder,
    theirs: Callable[[Sequence[str]], NDArray[np.float32]],
    texts: Sequence[str],
    rounds: int,
    device: torch.device,
) -> dict[str, Any]:
    """Speeds of the two in turns, the vectors' difference, and the texts' lengths."""
    difference = float(np.abs(mirror.encode(texts) - theirs(texts)).max())  # warms both up as well
    times: dict[str, list[float]] = {"mirror": [], "sentence_transformers": []}
    for _ in range(rounds):
        times["mirror"].append(seconds(lambda: mirror.encode(texts), device)[0])
        times["sentence_transformers"].append(seconds(lambda: theirs(texts), device)[0])
    lengths = [len(ids) for ids in mirror.layout.tokenize(texts)["input_ids"]]
    pairs = zip(times["sentence_transformers"], times["mirror"], strict=True)
    return {
        "texts": len(texts),
        "tokens": {"mean": float(np.mean(lengths)), "min": min(lengths), "max": max(lengths)},
        "seconds": {name: spread(taken) for name, taken in times.items()},
        "texts_per_second": {name: spread([len(texts) / time for time in taken]) for name, taken in times.items()},
        "times_mirror": spread([other / own for other, own in pairs]),
        "largest_difference": difference,
    }


def _table(results: dict[str, dict[str, Any]]) -> str:
    head = [
        "texts",
        "mean tokens",
        "mirror texts/s",
        "sentence-transformers texts/s",
        "time ÷ mirror's",
        "max abs diff",
    ]
    rows = []
    for name, result in results.items():
        speeds = [shown(result["texts_per_second"][who], 0) for who in ("mirror", "sentence_transformers")]
        tokens, ratio = f"{result['tokens']['mean']:.1f}", shown(result["times_mirror"])
        rows.append([name, tokens, *speeds, ratio, f"{result['largest_difference']:.1e}"])
    return markdown(head, rows)


if __name__ == "__main__":
    main()
