"""The folder that a tuned encoder is taken away in: transformers and sentence-transformers both load it.

The pooling is stored once, in the files that sentence-transformers reads, and read back from there, so a saved
encoder cannot be pooled in another way by accident.
"""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from mirror.config import Pooling
from mirror.encoder.pooling import LAYERED, layer_weights
from mirror.errors import MirrorError

_MODE = {Pooling.cls: "cls", Pooling.mean: "mean", Pooling.max: "max"}
_MIRROR_FILE = "config_mirror.json"
"""What sentence-transformers has no place for: fixed padding."""


@dataclass
class PoolingFiles:
    """What the files beside the weights say of how texts become vectors."""

    pooling: Pooling
    max_tokens: int | None = None
    normalize: bool = False
    pad_to: int | None = None


def write_pooling(folder: Path, files: PoolingFiles, *, dimension: int, layers: int, cls_last: bool) -> None:
    """Write the files by which ``SentenceTransformer(folder)`` pools as this encoder does.

    Args:
        folder: where the backbone and the tokenizer are saved.
        files: what to write.
        dimension: size of the vectors.
        layers: layers of the backbone.
        cls_last: the CLS token ends the text (XLNet), which sentence-transformers calls ``lasttoken``.
    """
    steps: list[tuple[str, str, dict[str, Any]]] = []
    if files.pooling in LAYERED:
        settings = {"embedding_dimension": dimension, "layer_start": 1, "num_hidden_layers": layers}
        steps.append(("WeightedLayerPooling", "1_WeightedLayerPooling", settings))
        (folder / "1_WeightedLayerPooling").mkdir()
        weights = torch.tensor(layer_weights(files.pooling, layers))
        save_file({"layer_weights": weights}, folder / "1_WeightedLayerPooling" / "model.safetensors")
    mode = _MODE.get(files.pooling, "mean")
    if mode == "cls" and cls_last:
        mode = "lasttoken"
    name = f"{len(steps) + 1}_Pooling"
    pooling_settings = {"word_embedding_dimension": dimension}
    pooling_settings |= {f"pooling_mode_{key}": key == _LEGACY[mode] for key in _LEGACY.values()}
    steps.append(("Pooling", name, pooling_settings))
    if files.normalize:
        steps.append(("Normalize", f"{len(steps) + 1}_Normalize", {}))
    modules = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    for index, (kind, path, settings) in enumerate(steps, start=1):
        (folder / path).mkdir(exist_ok=True)
        _write(folder / path / "config.json", settings)
        modules.append({"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"})
    _write(folder / "modules.json", modules)
    _write(folder / "sentence_bert_config.json", {"max_seq_length": files.max_tokens, "do_lower_case": False})
    _write(folder / "config_sentence_transformers.json", {"similarity_fn_name": "cosine"})
    if files.pad_to is not None:
        _write(folder / _MIRROR_FILE, {"pooling": files.pooling.value, "pad_to": files.pad_to})


_LEGACY = {"cls": "cls_token", "mean": "mean_tokens", "max": "max_tokens", "lasttoken": "lasttoken"}
"""The names that every release of sentence-transformers reads."""


def read_pooling(folder: Path) -> PoolingFiles | None:
    """What a folder says of its pooling; None for a plain model.

    Raises:
        MirrorError: it has a module that only sentence-transformers can run, such as a dense layer.
    """
    if (folder / _MIRROR_FILE).exists():
        own = _read(folder / _MIRROR_FILE)
        return PoolingFiles(Pooling(own["pooling"]), own["pad_to"], pad_to=own["pad_to"])
    if not (folder / "modules.json").exists():
        return None
    pooling, normalize = Pooling.mean, False
    layered: Pooling | None = None
    for module in _read(folder / "modules.json"):
        kind, settings_file = module["type"].rsplit(".", 1)[-1], folder / module["path"] / "config.json"
        if kind == "WeightedLayerPooling":
            layered = _read_layered(folder / module["path"], _read(settings_file))
        elif kind == "Pooling":
            pooling = _read_mode(folder, _read(settings_file))
        elif kind == "Normalize":
            normalize = True
        elif kind != "Transformer":
            raise MirrorError(f"{folder} has a {kind} module, which mirror does not run: use sentence-transformers.")
    limits = folder / "sentence_bert_config.json"
    max_tokens = _read(limits).get("max_seq_length") if limits.exists() else None
    return PoolingFiles(layered or pooling, max_tokens, normalize)


def _read_mode(folder: Path, settings: dict[str, Any]) -> Pooling:
    mode = settings.get("pooling_mode")
    modes = [mode] if isinstance(mode, str) else list(mode or [])
    if mode is None:
        modes = [key.removeprefix("pooling_mode_") for key, on in settings.items() if on is True and "mode" in key]
    known = {
        "cls": Pooling.cls, "cls_token": Pooling.cls, "lasttoken": Pooling.cls,
        "mean": Pooling.mean, "mean_tokens": Pooling.mean, "max": Pooling.max, "max_tokens": Pooling.max,
    }  # fmt: skip
    if len(modes) != 1 or modes[0] not in known:
        raise MirrorError(f"{folder} pools by {modes}, which mirror does not run: use sentence-transformers.")
    return known[modes[0]]


def _read_layered(folder: Path, settings: dict[str, Any]) -> Pooling:
    from safetensors.torch import load_file

    weights = load_file(folder / "model.safetensors")["layer_weights"].tolist()
    for pooling in LAYERED:
        if settings["layer_start"] == 1 and weights == layer_weights(pooling, len(weights)):
            return pooling
    raise MirrorError(f"{folder} weighs the layers in a way that mirror does not run: use sentence-transformers.")


def write_whole(folder: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a folder that appears under its name only when it is complete.

    Raises:
        MirrorError: the folder exists already, or the disk is full or cannot be written; nothing is left behind.
    """
    if folder.exists():
        raise MirrorError(f"{folder} exists already: nothing is overwritten, choose another folder.")
    partial = folder.with_name(folder.name + ".partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        write(partial)
        shared = partial.stat().st_mode & 0o066
        for path in partial.rglob("*"):  # safetensors writes for the owner alone: whoever may enter may read
            path.chmod(path.stat().st_mode | shared)
        os.replace(partial, folder)
    except Exception as error:
        shutil.rmtree(partial, ignore_errors=True)
        # safetensors reports a full disk with an error of its own that names the system's.
        if isinstance(error, OSError) or "os error" in str(error).lower():
            raise MirrorError(
                f"{folder} cannot be written ({error}): free some space or choose another disk."
            ) from error
        raise
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MirrorError(f"{path} is missing or damaged ({error}): save the encoder again.") from error
