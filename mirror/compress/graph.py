"""``format=onnx`` and ``format=openvino``: the backbone as a graph, which sentence-transformers' backends run."""

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mirror.config import ExportConfig, Format, Weights
from mirror.encoder.encoder import MirrorEncoder
from mirror.encoder.export import save_tokenizer, write_pooling, write_whole
from mirror.encoder.graph import GRAPHS, STATES, imported, refuse_graph
from mirror.encoder.pooling import TextPooling
from mirror.encoder.stages import LayerMix
from mirror.errors import MirrorError
from mirror.report.console import hushed

OPSET = 18


def check(config: ExportConfig, encoder: MirrorEncoder) -> None:
    """Refuse what a graph cannot hold.

    Raises:
        MirrorError: a library is not installed, or the pooling looks at several layers in a way of its own.
    """
    refuse_graph(encoder.backbone, "encoder")
    for package in ("onnx", "onnxscript", "onnxruntime"):
        imported(package, "onnx")
    if config.format is Format.openvino:
        os.environ.setdefault("NNCF_CI", "1")  # else nncf reports each call to its makers
        imported("openvino", "openvino")
        if config.weights is Weights.int8:
            imported("nncf", "openvino")
    if any(stage.layered and not isinstance(stage, LayerMix) for stage in encoder.pooling.stages):
        raise MirrorError(
            f"format={config.format.value} holds one state of each token, and {encoder.pooling.name} pools several "
            "layers: use format=torch."
        )


def save(encoder: MirrorEncoder, config: ExportConfig, folder: Path, beside: Mapping[str, str]) -> None:
    """A folder without weights for torch, so that nothing else is loaded by accident.

    Raises:
        MirrorError: torch cannot trace this backbone.
    """

    def write(partial: Path) -> None:
        encoder.backbone.config.output_hidden_states = False  # what a layered pooling mixes, the graph has mixed
        encoder.backbone.config.save_pretrained(partial)
        save_tokenizer(encoder.tokenizer, partial)
        stages = [stage for stage in encoder.pooling.stages if not isinstance(stage, LayerMix)]
        pooling = TextPooling(stages, encoder.pooling.name, encoder.pooling.hidden)  # type: ignore[arg-type]
        write_pooling(partial, pooling, max_tokens=encoder.max_tokens, pad_to=encoder.layout.pad_to)
        for name, content in beside.items():
            (partial / name).write_text(content, encoding="utf-8")
        for kind in ("onnx", config.format.value):
            (partial / GRAPHS[kind]).parent.mkdir(exist_ok=True)
        path = partial / GRAPHS["onnx"]
        _trace(encoder, path)
        if config.format is Format.openvino:
            _to_openvino(path, partial / GRAPHS["openvino"], config.weights)
            path.unlink()
            path.parent.rmdir()
        elif config.weights is Weights.int8:
            _quantise(path)

    write_whole(folder, write)


def note(config: ExportConfig) -> str:
    """How it is loaded."""
    backend = config.format.value
    return (
        f'\nLoad it by `SentenceTransformer(folder, backend="{backend}")` or by `mirror.MirrorEncoder.load(folder)`: '
        "there are no weights for torch in this folder.\n"
    )


class _Traced(nn.Module):
    """The backbone, and the mixture of its layers if the pooling begins with one."""

    def __init__(self, backbone: Any, mix: LayerMix | None) -> None:
        super().__init__()
        self.backbone, self.mix = backbone, mix

    def forward(self, *inputs: Tensor) -> Tensor:
        """(R, W) each to (R, W, D)."""
        named = dict(zip(("input_ids", "attention_mask", "token_type_ids"), inputs, strict=False))
        output = self.backbone(**named, output_hidden_states=self.mix is not None, return_dict=True)
        if self.mix is None:
            states: Tensor = output.last_hidden_state
            return states
        return self.mix(output.last_hidden_state, None, output.hidden_states[1:])  # type: ignore[no-any-return]


def _trace(encoder: MirrorEncoder, path: Path) -> None:
    sample = encoder.layout.tokenize(["a sentence", "and a longer sentence"])
    longest = max(map(len, sample["input_ids"]))
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if "token_type_ids" in sample else [])]
    pad_id = encoder.tokenizer.pad_token_id
    rows = {"input_ids": [ids + [pad_id] * (longest - len(ids)) for ids in sample["input_ids"]]}
    rows["attention_mask"] = [[1] * len(ids) + [0] * (longest - len(ids)) for ids in sample["input_ids"]]
    rows["token_type_ids"] = [[0] * longest] * len(sample["input_ids"])
    inputs = tuple(torch.tensor(rows[name]) for name in names)  # (R, W) each
    mix = next((stage for stage in encoder.pooling.stages if isinstance(stage, LayerMix)), None)
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence")}
    try:
        # They warn of torchvision, which nothing here needs, and tell of each step.
        with warnings.catch_warnings(action="ignore"), hushed("torch.onnx", "onnx_ir", "onnxscript"):
            torch.onnx.export(
                _Traced(encoder.backbone, mix).eval(),
                inputs,
                path,
                input_names=names,
                output_names=[STATES],
                dynamic_shapes={"inputs": tuple(axes for _ in names)},
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # torch may raise anything for a model that it cannot trace
        reason = " ".join(str(error).split())[:200]
        raise MirrorError(f"{encoder.name} cannot be made a graph ({reason}): use format=torch.") from error


def _quantise(path: Path) -> None:
    """Weights of the linear layers and embeddings in int8, activations as they come (dynamic quantisation)."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    whole = path.with_name("whole.onnx")
    path.rename(whole)
    with hushed("root"):  # where it advises a step for convolutions
        quantize_dynamic(whole, path, weight_type=QuantType.QInt8, per_channel=True)
    whole.unlink()


def _to_openvino(source: Path, path: Path, weights: Weights) -> None:
    import openvino

    model = openvino.Core().read_model(source)
    if weights is Weights.int8:
        from nncf import CompressWeightsMode, compress_weights

        model = compress_weights(model, mode=CompressWeightsMode.INT8_ASYM)
    openvino.save_model(model, path, compress_to_fp16=weights is Weights.fp16)
