"""``format=static``: a vector for each token in the place of the encoder, distilled by model2vec."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mirror.config import ExportConfig, Weights
from mirror.encoder.encoder import MirrorEncoder
from mirror.encoder.export import write_whole
from mirror.encoder.graph import refuse_graph
from mirror.errors import MirrorError
from mirror.report.console import hushed

KINDS = {Weights.fp32: "float32", Weights.fp16: "float16", Weights.int8: "int8"}


def check(config: ExportConfig, encoder: MirrorEncoder) -> None:
    """Refuse what cannot be distilled.

    Raises:
        MirrorError: model2vec is not installed, or the encoder has no weights.
    """
    refuse_graph(encoder.backbone, "encoder")
    _distill()


def save(encoder: MirrorEncoder, config: ExportConfig, folder: Path, beside: Mapping[str, str]) -> None:
    """A folder that model2vec and sentence-transformers load.

    Raises:
        MirrorError: model2vec cannot read this tokenizer or model.
    """
    try:
        with hushed("skeletoken"):
            static = _distill()(
                encoder.backbone,
                encoder.tokenizer,
                device="cpu",
                pca_dims=config.dimensions or "auto",
                quantize_to=KINDS[config.weights],
                pooling="first" if encoder.pooling.name.startswith("cls") else "mean",
            )
    except Exception as error:  # the library may raise anything for a tokenizer that it does not know
        reason = " ".join(str(error).split())[:200]
        raise MirrorError(f"format=static: model2vec cannot distil {encoder.name} ({reason}).") from error

    def write(partial: Path) -> None:
        with hushed("model2vec"):
            static.save_pretrained(partial)
        for name, content in beside.items():
            (partial / name).write_text(content, encoding="utf-8")

    write_whole(folder, write)


def note(config: ExportConfig) -> str:
    """How it is loaded."""
    return "\nDistilled by model2vec: sentence-transformers, model2vec and `mirror.MirrorEncoder.load` load it.\n"


def _distill() -> Any:
    try:
        from model2vec.distill import distill_from_model
    except ImportError as error:
        raise MirrorError(
            f"format=static needs the package model2vec ({error}): pip install 'mirror-encoders[static]'."
        ) from None
    return distill_from_model
