"""Runs MTEB tasks with our encoders. The reverse needs no code: MTEB loads a saved encoder directly."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mirror.encoder import hub
from mirror.errors import MirrorError, UnavailableError
from mirror.evaluation.sets.score import Encode, Vectors


def load_tasks(names: Sequence[str]) -> list[Any]:
    """MTEB's tasks of these names.

    Raises:
        MirrorError: mteb is not installed, or a name is none of its tasks.
    """
    try:
        import mteb
    except ImportError:
        raise MirrorError("eval.mteb needs the package mteb: pip install 'mirror-encoders[mteb]'.") from None
    try:
        return [mteb.get_task(name) for name in names]
    except KeyError as error:
        unknown = str(error.args[0]).split("'")[1:2] or list(names)
        raise MirrorError(f"eval.mteb has {unknown[0]}, which is no task of MTEB: give its names, as STS12.") from error


def run_tasks(tasks: Sequence[Any], encode: Encode, name: str) -> dict[str, float]:
    """The main score of each task × 100, the mean of its splits and subsets, by the name of the task.

    Raises:
        UnavailableError: the hub, where the tasks' data are, cannot be reached.
        MirrorError: MTEB cannot run a task.
    """
    import mteb

    found = {}
    reachable = hub.go_offline_unless_reachable()
    for task in tasks:
        try:
            results = mteb.evaluate(_Model(encode, name), task, cache=None, show_progress_bar=False)
        except Exception as error:  # a task's data and its evaluator may raise anything
            where = f"eval.mteb={task.metadata.name}"
            if not reachable and not task.data_loaded:
                raise UnavailableError(f"{where} is on the hub, which cannot be reached: leave it out.") from error
            raise MirrorError(f"{where} cannot be run: {' '.join(str(error).split())[:300]}") from error
        (result,) = results.task_results
        found[task.metadata.name] = 100 * float(result.get_score())
    return found


class _Model:
    """An ``encode`` callable as MTEB's encoder protocol wants it."""

    def __init__(self, encode: Encode, name: str) -> None:
        from mteb.models.model_meta import ModelMeta

        self._encode = encode
        # MTEB requires owner/name and makes folders of it.
        overwrites = {"name": f"mirror/{name.replace('/', '_')}", "similarity_fn_name": "cosine"}
        self.mteb_model_meta = ModelMeta.create_empty(overwrites)

    def encode(self, inputs: Iterable[Mapping[str, list[str]]], **_: Any) -> Vectors:
        """Vectors of the batches' texts, (N, D); prompts are for other models."""
        return self._encode([text for batch in inputs for text in batch["text"]])

    def similarity(self, left: Any, right: Any) -> NDArray[np.float32]:
        """Cosine similarity of every pair, (N, M)."""
        cosines: NDArray[np.float32] = _unit(left) @ _unit(right).T
        return cosines

    def similarity_pairwise(self, left: Any, right: Any) -> NDArray[np.float32]:
        """Cosine similarity of each with its counterpart, (N,)."""
        cosines: NDArray[np.float32] = (_unit(left) * _unit(right)).sum(axis=-1)
        return cosines


def _unit(vectors: Any) -> NDArray[np.float32]:
    stacked = np.atleast_2d(np.asarray(vectors, dtype=np.float32))
    scaled: NDArray[np.float32] = stacked / np.linalg.norm(stacked, axis=-1, keepdims=True)
    return scaled
