"""The folder of a saved encoder, which transformers and sentence-transformers both load.

The pooling is stored once, in the files that sentence-transformers reads, and read back from there, so a saved
encoder cannot be pooled in another way by accident.
"""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError

from mirror.config import Pooling
from mirror.encoder.backbone import FEWEST, quiet
from mirror.encoder.dense import Dense, Normalize
from mirror.encoder.layout import Layout
from mirror.encoder.pooling import TextPooling, stage_name
from mirror.encoder.stages import SETTINGS, LayerMix, Stage, TokenPooling, read_json, write_json
from mirror.errors import MirrorError
from mirror.runs.atomic import reason_of, scratch_beside

log = logging.getLogger(__name__)

MODULES = "modules.json"
THEIRS = "sentence_transformers.models."
STAGES: dict[str, type[Stage]] = {
    "WeightedLayerPooling": LayerMix,
    "Pooling": TokenPooling,
    "Dense": Dense,
    "Normalize": Normalize,
}
"""By the name of sentence-transformers' module."""
_MIRROR_FILE = "config_mirror.json"
"""For what sentence-transformers cannot express: fixed padding."""

WIDTHS = ("word_embedding_dimension", "embedding_dimension", "in_features")
"""What the files of the stages call the length of the vectors that they get."""
_THEIR_CONFIG = {
    "__version__": {"transformers": transformers.__version__, "pytorch": torch.__version__},
    "default_prompt_name": None,
    "model_type": "SentenceTransformer",
    "prompts": {},
    "similarity_fn_name": "cosine",
}
"""What sentence-transformers saves of a model as a whole, but for its own version."""


@dataclass
class Saved:
    """How texts become vectors, as the files next to the weights say."""

    pooling: TextPooling
    max_tokens: int | None = None
    pad_to: int | None = None


def save_encoder(
    given: str | Path,
    backbone: Any,
    tokenizer: Any,
    pooling: TextPooling,
    layout: Layout,
    beside: Mapping[str, str],
    *,
    replace: bool,
) -> None:
    """See ``MirrorEncoder.save``."""
    if not isinstance(given, str | Path):
        raise MirrorError(f"folder={given!r:.80} is no folder: give its path.")
    folder = Path(given).expanduser()
    if own := [type(stage).__name__ for stage in pooling.stages if type(stage) not in STAGES.values()]:
        log.warning("%s: sentence-transformers has no %s, the folder loads with mirror alone.", folder, ", ".join(own))
    elif _padded(pooling, layout.pad_to):
        log.warning("%s: sentence-transformers averages no padding, the folder loads with mirror alone.", folder)

    def write(partial: Path) -> None:
        # sentence-transformers averages layers only if the configuration asks the backbone for them.
        backbone.config.output_hidden_states = pooling.layered
        with quiet():
            backbone.save_pretrained(partial)
            save_tokenizer(tokenizer, partial)
        write_pooling(partial, pooling, max_tokens=layout.max_tokens, pad_to=layout.pad_to)
        for name, content in beside.items():
            (partial / name).write_text(content, encoding="utf-8")

    write_whole(folder, write, replace=replace)


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Write its files; a tokenizer without a class of its own by the name that transformers 4 knows it by, too."""
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    settings = read_json(path)
    if settings.get("tokenizer_class") == "TokenizersBackend":
        write_json(path, settings | {"tokenizer_class": "PreTrainedTokenizerFast"})


def write_pooling(folder: Path, pooling: TextPooling, *, max_tokens: int | None, pad_to: int | None) -> None:
    """Write the files by which ``SentenceTransformer(folder)`` pools as this encoder does.

    Args:
        folder: where the backbone and the tokenizer are saved.
        pooling: of the encoder.
        max_tokens: longer texts are cut.
        pad_to: fixed padding.
    """
    modules = [{"idx": 0, "name": "0", "path": "", "type": f"{THEIRS}Transformer"}]
    theirs = {kind: name for name, kind in STAGES.items()}
    stages: list[Any] = list(pooling.stages)
    padded = _padded(pooling, pad_to)
    for number, stage in enumerate(stages, start=1):
        kind = type(stage)
        path = f"{number}_{theirs.get(kind, kind.__name__)}"
        (folder / path).mkdir()
        stage.save(folder / path)
        # What averages padding is named as ours, for sentence-transformers to refuse it and not to average otherwise.
        full = THEIRS + theirs[kind] if kind in theirs and not padded else f"{kind.__module__}.{kind.__qualname__}"
        modules.append({"idx": number, "name": str(number), "path": path, "type": full})
    write_json(folder / MODULES, modules)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": max_tokens, "do_lower_case": False})
    write_json(folder / "config_sentence_transformers.json", _THEIR_CONFIG)
    if padded:
        write_json(folder / _MIRROR_FILE, {"pooling": pooling.name, "pad_to": pad_to})


def portable(pooling: TextPooling) -> bool:
    """Whether sentence-transformers pools so too."""
    named = pooling.name.partition("+")[0] != Pooling.mean_padded.value
    return named and all(type(stage) in STAGES.values() for stage in pooling.stages)


def _padded(pooling: TextPooling, pad_to: int | None) -> bool:
    return pooling.name == Pooling.mean_padded.value and pad_to is not None


def read_folder(folder: Path, config: Any) -> Saved | None:
    """The pooling that a folder describes; None for a plain model.

    Args:
        folder: of the encoder.
        config: of its backbone.

    Raises:
        MirrorError: it has a module that mirror cannot run, or a file is damaged.
    """
    try:
        return _saved(folder, config)
    except MirrorError:
        raise
    except (OSError, LookupError, TypeError, ValueError, AttributeError, RuntimeError, SafetensorError) as error:
        raise MirrorError(
            f"{folder} does not say how it pools: its {MODULES} or a file that this names is damaged, save the encoder "
            "again."
        ) from error


def _saved(folder: Path, config: Any) -> Saved | None:
    if (folder / _MIRROR_FILE).exists():
        own = read_json(folder / _MIRROR_FILE)
        if own["pooling"] != Pooling.mean_padded.value:
            raise MirrorError(
                f"{folder} does not say how it pools: its {_MIRROR_FILE} names {own['pooling']!r:.40}, save the "
                "encoder again."
            )
        stage = TokenPooling(own["pooling"])
        width = _limit(folder / _MIRROR_FILE, "pad_to", own["pad_to"])
        return Saved(TextPooling([stage], own["pooling"], config.hidden_size), width, width)
    if not (folder / MODULES).exists():
        return None
    stages: list[Stage] = []
    width = config.hidden_size
    for module in read_json(folder / MODULES, list):
        name = module["type"].rpartition(".")[2]
        if name == "StaticEmbedding":
            stages.append(TokenPooling("mean"))
        elif name != "Transformer":
            _check_width(folder / module["path"] / SETTINGS, width)
            stages.append(_stage_class(folder, module["type"]).load(folder / module["path"]))
            width = stages[-1].size(width)
    _check_order(folder, stages, config.num_hidden_layers)
    if not stages:  # what sentence-transformers does where nothing is said
        stages = [TokenPooling("mean")]
    pooling = TextPooling(stages, stage_name(stages, config.num_hidden_layers), config.hidden_size)
    limits = folder / "sentence_bert_config.json"
    if not limits.exists():
        return Saved(pooling)
    return Saved(pooling, _limit(limits, "max_seq_length", read_json(limits).get("max_seq_length")))


def _limit(path: Path, key: str, value: Any) -> int | None:
    if value is not None and (type(value) is not int or value < FEWEST):
        raise MirrorError(
            f"{path} is damaged: {key} is {value!r:.40}, and should be a number of tokens, at least {FEWEST}, or null."
        )
    return value


def _check_order(folder: Path, stages: Sequence[Stage], layers: int) -> None:
    """Of sentence-transformers' stages one pools, and the layers are mixed before that; a stage of one's own may do
    both."""
    kinds = [type(stage) for stage in stages]
    mixed = [len(stage.fixed) for stage in stages if isinstance(stage, LayerMix)]
    fits = kinds.count(TokenPooling) == 1 and LayerMix not in kinds[kinds.index(TokenPooling) :]
    if any(count != layers for count in mixed) or (stages and not fits and {*kinds} <= {*STAGES.values()}):
        told = ", ".join(kind.__name__ for kind in kinds)
        raise MirrorError(
            f"{folder} does not say how it pools: the stages {told} of its {MODULES} make no vector of a text of "
            f"{layers} layers, save the encoder again."
        )


def _check_width(path: Path, width: int) -> None:
    """The length of the vectors that a stage gets, where its file says it."""
    settings = read_json(path) if path.exists() else {}
    for key in WIDTHS:
        if settings.get(key, width) != width:
            raise MirrorError(
                f"{path} is damaged: {key} is {settings[key]!r:.40}, and the vectors that come there have {width} "
                "numbers: save the encoder again."
            )


def _stage_class(folder: Path, full: str) -> type[Stage]:
    """The class behind a line of ``modules.json``: one of ours, or one of an installed package that is a ``Stage``.

    A module within the folder is never imported: loading a model runs no code that came with it.
    """
    module, _, name = full.rpartition(".")
    package = module.partition(".")[0]
    if package == "sentence_transformers":
        if name in STAGES:
            return STAGES[name]
    else:
        spec = find_spec(package) if package else None
        if spec is None:
            raise MirrorError(f"{folder} pools by {full}, which cannot be imported: install its package.")
        for place in (spec.origin, *(spec.submodule_search_locations or ())):
            if place and Path(place).resolve().is_relative_to(folder.resolve()):
                raise MirrorError(
                    f"{folder} pools by {full}, code that lies in the folder itself, which is not run: if you trust "
                    "it, install it as a package."
                )
        try:
            found = getattr(import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise MirrorError(
                f"{folder} pools by {full}, which cannot be imported ({error}): install its package."
            ) from error
        if isinstance(found, type) and issubclass(found, Stage):
            return found
    raise MirrorError(f"{folder} has a {name} module, which mirror does not run: use sentence-transformers.")


def write_whole(folder: Path, write: Callable[[Path], None], *, replace: bool = False) -> None:
    """Let ``write`` fill a folder that appears under its name only when it is complete; with ``replace``, in the place
    of the one that is there.

    Raises:
        MirrorError: the folder exists already, or the disk is full or cannot be written; nothing is left behind.
    """
    if folder.exists() and not replace:
        raise MirrorError(f"{folder} exists already: nothing is overwritten, choose another folder.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with scratch_beside(folder) as partial:
            partial.mkdir()
            write(partial)
            shared = partial.stat().st_mode & 0o066
            for path in partial.rglob("*"):  # safetensors writes for the owner alone: whoever may enter may read
                path.chmod(path.stat().st_mode | shared)
            if folder.exists():
                os.replace(folder, partial.with_name("replaced"))
            os.replace(partial, folder)
    except Exception as error:
        # safetensors reports a full disk with an error of its own that names the system's.
        if isinstance(error, OSError) or "os error" in str(error).lower():
            raise MirrorError(
                f"{folder} cannot be written ({reason_of(error)}): choose another folder, or free some space."
            ) from error
        raise
