"""What the networks really compute: the original module or file, run without the package."""

from __future__ import annotations

import copy
import gzip
from collections.abc import Callable

import numpy as np
import torch
from assets import asset
from torch import Tensor, nn

Function = Callable[[Tensor], Tensor]


def module_oracle(
    model: nn.Module, dtype: torch.dtype, until: str | None = None, select: int | None = None
) -> Function:
    """x -> output of a copy of the model in `dtype`, of its submodule `until`, or one item of a tuple."""
    model, seen = copy.deepcopy(model).to(dtype), []
    if until is not None:
        model.get_submodule(until).register_forward_hook(lambda _module, _inputs, output: seen.append(output))

    def run(x: Tensor) -> Tensor:
        with torch.no_grad():
            y = model(x.to(dtype))
        y = y if until is None else seen.pop()
        return y if select is None else y[select]

    return run


def onnx_bytes(path: str) -> bytes:
    """The serialised ONNX model in a file, gunzipped if need be."""
    raw = asset(path).read_bytes()
    return gzip.decompress(raw) if path.endswith(".gz") else raw


def row_by_row(run: Callable[[np.ndarray], np.ndarray]) -> Function:
    """A batch run as batches of one: many files are exported with a fixed batch of 1."""
    return lambda x: torch.from_numpy(np.concatenate([run(row[None]) for row in x.detach().numpy()]))


def onnxruntime_oracle(path: str) -> Function:
    """x -> output of onnxruntime in float32, one row at a time."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # some files list initializers as inputs: a warning for each
    session = onnxruntime.InferenceSession(onnx_bytes(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return row_by_row(lambda row: session.run(None, {name: row.astype(np.float32)})[0])


def onnx_float64_oracle(path: str) -> Function:
    """x -> output of onnx's own reference evaluator, every float32 tensor of the file widened to float64."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    model = onnx.load_from_string(onnx_bytes(path))
    tensors = list(model.graph.initializer)
    tensors += [a.t for node in model.graph.node for a in node.attribute if a.HasField("t")]
    for tensor in tensors:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            wide = onnx.numpy_helper.to_array(tensor).astype(np.float64)
            tensor.CopyFrom(onnx.numpy_helper.from_array(wide, tensor.name))
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT:
            value.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    evaluator, constants = ReferenceEvaluator(model), {t.name for t in model.graph.initializer}
    name = next(v.name for v in model.graph.input if v.name not in constants)
    return row_by_row(lambda row: np.asarray(evaluator.run(None, {name: row.astype(np.float64)})[0]))
