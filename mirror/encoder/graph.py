"""A backbone as a graph of ONNX or OpenVINO, such as ``scripts/export.py`` writes, in the place of one of torch."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoConfig
from transformers.modeling_outputs import BaseModelOutput

from mirror.errors import MirrorError

GRAPHS = {"onnx": "onnx/model.onnx", "openvino": "openvino/openvino_model.xml"}
"""Where sentence-transformers looks for a graph, by the name of its backend."""
STATES = "last_hidden_state"
"""The graph's output, (R, W, D)."""

Run = Callable[[dict[str, NDArray[np.int64]]], NDArray[np.float32]]


def graph_in(folder: Path) -> str | None:
    """The kind of the graph in a folder that has no weights for torch."""
    if any(folder.glob("*.safetensors")) or any(folder.glob("*.bin")):
        return None
    return next((kind for kind, path in GRAPHS.items() if (folder / path).is_file()), None)


class GraphBackbone(nn.Module):
    """Runs a graph on the CPU and is called as a ``transformers`` encoder is. It cannot be trained.

    Args:
        folder: of the encoder; ``graph_in`` has found one there.
        kind: ``onnx`` or ``openvino``.

    Raises:
        MirrorError: the library is not installed.
    """

    def __init__(self, folder: Path, kind: str) -> None:
        super().__init__()
        self.folder, self.kind = folder, kind
        self.config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        self.nothing = nn.Parameter(torch.empty(0), requires_grad=False)  # says on which device the vectors are wanted
        self.dtype = torch.float32
        self._run: Run | None = None
        self.runner()

    def __getstate__(self) -> dict[str, Any]:
        """A session can neither be copied nor sent to another process, which opens its own."""
        return self.__dict__ | {"_run": None}

    def runner(self) -> Run:
        """What runs the graph, opened once."""
        if self._run is None:
            self._run = _OPEN[self.kind](self.folder / GRAPHS[self.kind])
        return self._run

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,
        *,
        output_hidden_states: bool = False,
        return_dict: bool = True,
    ) -> BaseModelOutput:
        """The states of the last layer, (R, W, D), or of the mixture of layers that the graph ends with.

        Raises:
            MirrorError: other layers are asked for.
        """
        if output_hidden_states:
            raise MirrorError(
                f"{self.folder} holds a graph of {self.kind}, which gives no other layers: leave the pooling as it is."
            )
        given = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
        arrays = {name: tensor.cpu().numpy() for name, tensor in given.items() if tensor is not None}
        return BaseModelOutput(last_hidden_state=torch.from_numpy(self.runner()(arrays)).to(input_ids.device))


def _open_onnx(path: Path) -> Run:
    runtime = imported("onnxruntime", "onnx")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    known = {node.name for node in session.get_inputs()}

    def run(arrays: dict[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        states: NDArray[np.float32] = session.run(
            [STATES], {name: array for name, array in arrays.items() if name in known}
        )[0]
        return states

    return run


def _open_openvino(path: Path) -> Run:
    # On a CPU with bf16 units OpenVINO rounds to them unless it is told what is wanted.
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    model = imported("openvino", "openvino").Core().compile_model(path, "CPU", settings)
    known = {name for node in model.inputs for name in node.get_names()}

    def run(arrays: dict[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        outputs = model({name: array for name, array in arrays.items() if name in known})
        return np.array(outputs[0], dtype=np.float32)

    return run


_OPEN = {"onnx": _open_onnx, "openvino": _open_openvino}


def imported(package: str, extra: str) -> Any:
    """A library that graphs need.

    Raises:
        MirrorError: it is not installed.
    """
    try:
        return import_module(package)
    except ImportError as error:
        raise MirrorError(
            f"A graph of {extra} needs the package {package} ({error}): pip install 'mirror-encoders[{extra}]'."
        ) from None


def refuse_graph(backbone: Any, setting: str) -> None:
    """Refuse a graph where weights for torch are needed.

    Raises:
        MirrorError: ``backbone`` is a graph; ``setting`` gave it.
    """
    if isinstance(backbone, GraphBackbone):
        raise MirrorError(
            f"{setting}={backbone.folder} holds a graph of {backbone.kind} and no weights: give the encoder that was "
            "made smaller."
        )
