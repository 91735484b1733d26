"""Runs MTEB's tasks and benchmarks with our encoders. What sentence-transformers has loaded, MTEB takes as it is."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mirror.encoder import hub
from mirror.errors import MirrorError, UnavailableError
from mirror.evaluation.sets.score import Encode, Vectors


def load_tasks(names: Sequence[str]) -> list[Any]:
    """MTEB's tasks of these names, each once; the name of a benchmark, such as ``MTEB(eng, v2)``, is all of its tasks.

    Raises:
        MirrorError: mteb is not installed, or a name is none of its tasks or benchmarks.
    """
    try:
        import mteb
    except ImportError:
        raise MirrorError("eval.mteb needs the package mteb: pip install 'mirror-encoders[mteb]'.") from None
    benchmarks = {benchmark.name for benchmark in mteb.get_benchmarks()}
    found: dict[str, Any] = {}
    for name in names:
        try:
            tasks = mteb.get_benchmark(name).tasks if name in benchmarks else [mteb.get_task(name)]
        except KeyError as error:
            raise MirrorError(
                f"eval.mteb has {name}, which is no task or benchmark of MTEB: give its names, as STS12 or "
                "'MTEB(eng, v2)'."
            ) from error
        found |= {task.metadata.name: task for task in tasks if task.metadata.name not in found}
    return list(found.values())


def run_tasks(
    tasks: Sequence[Any], encode: Encode, name: str, results: Path | None = None, revision: str | None = None
) -> dict[str, float]:
    """The main score of each task × 100, the mean of its splits and subsets, by the name of the task.

    Args:
        tasks: of MTEB.
        encode: texts to vectors.
        name: of the encoder; ``owner/name`` on the hub stays as it is in what MTEB writes.
        results: where MTEB keeps its results, in its own layout; a task that is there already is not run again.
        revision: tells this encoder from others of its name there.

    Raises:
        UnavailableError: the hub, where the tasks' data are, cannot be reached.
        MirrorError: MTEB cannot run a task.
    """
    import mteb

    found = {}
    cache = mteb.ResultCache(results) if results else None
    model = _Model(encode, name, revision)
    reachable = hub.go_offline_unless_reachable()
    for task in tasks:
        try:
            result = mteb.evaluate(model, task, cache=cache, show_progress_bar=False).task_results[0]
        except Exception as error:  # a task's data and its evaluator may raise anything
            where = f"eval.mteb={task.metadata.name}"
            if not reachable and not task.data_loaded:
                raise UnavailableError(f"{where} is on the hub, which cannot be reached: leave it out.") from error
            raise MirrorError(f"{where} cannot be run: {' '.join(str(error).split())[:300]}") from error
        found[task.metadata.name] = 100 * float(result.get_score())
    return found


class _Model:
    """An ``encode`` callable as MTEB's encoder protocol wants it."""

    def __init__(self, encode: Encode, name: str, revision: str | None) -> None:
        from mteb.models.model_meta import ModelMeta, ScoringFunction

        self._encode = encode
        # MTEB requires owner/name and makes folders of it.
        owned = name if name.count("/") == 1 and not hub.looks_local(name) else f"mirror/{name.replace('/', '_')}"
        self.mteb_model_meta = ModelMeta.create_empty(
            {"name": owned, "revision": revision, "similarity_fn_name": ScoringFunction.COSINE}
        )

    def encode(self, inputs: Iterable[Mapping[str, list[str]]], **_: Any) -> Vectors:
        """Vectors of the batches' texts, (N, D); prompts are for other models."""
        return self._encode([text for batch in inputs for text in batch["text"]])

    def similarity(self, left: Any, right: Any) -> Tensor:
        """Cosine similarity of every pair, (N, M)."""
        return _unit(left) @ _unit(right).T

    def similarity_pairwise(self, left: Any, right: Any) -> Tensor:
        """Cosine similarity of each with its counterpart, (N,)."""
        return (_unit(left) * _unit(right)).sum(dim=-1)


def _unit(vectors: Any) -> Tensor:
    """Tensors, as MTEB's protocol has them: it makes numbers of (1, 1), which NumPy refuses."""
    return F.normalize(torch.atleast_2d(torch.as_tensor(vectors, dtype=torch.float32)), dim=-1)
