"""The ONNX file: its nodes, constants and inputs as plain values, checked before anything runs.

Only the protobuf message is parsed; weights outside the file are read by us, from the model's folder alone.
"""

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from maxaffine.capture.onnx.external import line_of, load_external, read_bytes
from maxaffine.errors import CaptureError, FileFormatError, MissingExtraError

OPSETS = range(7, 23)
CONTROL_FLOW = frozenset({"If", "Loop", "Scan", "SequenceMap"})
STANDARD = frozenset({"", "ai.onnx"})


@dataclass(frozen=True)
class Node:
    """One ONNX node: op(inputs, **attributes) -> outputs; an absent optional input is the empty name."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    @property
    def casts(self) -> bool:
        """Whether it is a Cast of the file, read as a CastLike."""
        return self.op == "CastLike" and self.inputs[1].startswith("<type ")

    @property
    def label(self) -> str:
        """How messages call this node."""
        return f"node {'Cast' if self.casts else self.op} (output '{self.outputs[0]}')"


@dataclass(frozen=True)
class Input:
    """One graph input; `sizes[0]` is the batch, None where the file leaves it free."""

    name: str
    dtype: torch.dtype
    sizes: tuple[int | None, ...]


@dataclass(frozen=True)
class File:
    """All that is needed of an ONNX file, as torch values."""

    opset: int
    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    constants: Mapping[str, Tensor]


def read_file(path: str | Path) -> File:
    """Parse and check an .onnx or .onnx.gz file.

    Raises:
        FileFormatError: missing, broken, of an unsupported opset, or with data that is not in its folder.
        CaptureError: control flow, local functions or operators of another domain.
        MissingExtraError: the package `onnx` is not installed.
    """
    path = Path(path)
    onnx = _onnx()
    model = _parse(onnx, path)
    graph = model.graph
    if model.functions:
        raise CaptureError(f"{path} has local functions ({model.functions[0].name} ...): inline them first")
    if graph.sparse_initializer:
        raise FileFormatError(f"{path} has sparse initializers, which are not supported: store them dense")
    load_external(_stored(onnx, graph), path, onnx.TensorProto.EXTERNAL)
    opset = _opset(model, path)
    nodes = _needed([_node(onnx, node, path) for node in graph.node], [o.name for o in graph.output])
    constants = {tensor.name: _tensor(onnx, tensor, path) for tensor in graph.initializer}
    constants |= {name: torch.zeros((), dtype=dtype) for name, dtype in _cast_targets(nodes)}
    inputs = tuple(_input(value, path) for value in graph.input if value.name not in constants)
    file = File(opset, inputs, tuple(o.name for o in graph.output), nodes, constants)
    _check_links(file, path)
    return file


def _onnx() -> ModuleType:
    try:
        importlib.import_module("onnx.numpy_helper")
        return importlib.import_module("onnx")
    except ImportError:
        raise MissingExtraError('reading .onnx files needs the package onnx: pip install "maxaffine[onnx]"') from None


def _parse(onnx: ModuleType, path: Path) -> Any:
    data = read_bytes(path)
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # the protobuf back ends share no narrower class
        raise FileFormatError(f"{path} is not a whole ONNX file: {line_of(error)}") from None
    if not model.graph.output:
        raise FileFormatError(f"{path} is not an ONNX model: it holds no graph with an output")
    return model


def _stored(onnx: ModuleType, graph: Any) -> list[Any]:
    """Every tensor of the file: its initializers and the tensors among the attributes of its nodes."""
    attributes = [a for node in graph.node for a in node.attribute]
    one = [a.t for a in attributes if a.type == onnx.AttributeProto.TENSOR]
    return [*graph.initializer, *one, *(t for a in attributes for t in a.tensors)]


def _opset(model: Any, path: Path) -> int:
    """The version of the standard operators; a domain may be listed twice, and unused ones may be listed."""
    versions = [entry.version for entry in model.opset_import if entry.domain in STANDARD]
    if not versions or max(versions) not in OPSETS:
        found = max(versions) if versions else "none"
        supported = f"{OPSETS[0]} to {OPSETS[-1]}"
        raise FileFormatError(
            f"{path} has opset {found}, supported are {supported}: convert it with onnx.version_converter"
        )
    return max(versions)


# ---- nodes -------------------------------------------------------------------------------------
def _node(onnx: ModuleType, proto: Any, path: Path) -> Node:
    outputs = tuple(proto.output) or (proto.name,)
    where = f"node {proto.op_type} (output '{outputs[0]}') of {path}"
    if proto.op_type in CONTROL_FLOW:
        raise CaptureError(f"{where} is control flow, which has no fixed graph: export the model without it")
    if proto.domain not in STANDARD:
        raise CaptureError(f"{where} is of the domain '{proto.domain}': only standard ONNX operators are supported")
    attributes = {a.name: _attribute(onnx, a, path) for a in proto.attribute}
    inputs = tuple(proto.input)
    if proto.op_type == "Cast":  # a constant of the wanted type follows module.double(), a number would not
        return Node("CastLike", (*inputs, f"<type {attributes['to']}>"), outputs, {})
    if proto.op_type == "Split":
        attributes["num_outputs"] = len(outputs)
    return Node(proto.op_type, inputs, outputs, attributes)


def _attribute(onnx: ModuleType, attribute: Any, path: Path) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    if attribute.type == onnx.AttributeProto.TENSOR:
        return _tensor(onnx, value, path)
    return value.decode("utf-8", "replace") if attribute.type == onnx.AttributeProto.STRING else value


def _needed(nodes: list[Node], outputs: list[str]) -> tuple[Node, ...]:
    """The nodes that an output depends on, in the order of the file."""
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if wanted.intersection(node.outputs):
            wanted.update(node.inputs)
            kept.append(node)
    return tuple(reversed(kept))


def _cast_targets(nodes: tuple[Node, ...]) -> Iterator[tuple[str, torch.dtype]]:
    for node in nodes:
        if node.casts:
            code = int(node.inputs[1].removeprefix("<type ").removesuffix(">"))
            yield node.inputs[1], _dtype(code, node.label)


def _check_links(file: File, path: Path) -> None:
    """Every name that is read was written before."""
    known = {"", *file.constants, *(value.name for value in file.inputs)}
    for node in file.nodes:
        for name in node.inputs:
            if name not in known:
                raise FileFormatError(
                    f"{path}: '{name}', read by {node.label}, is no input, initializer or earlier output"
                )
        known.update(node.outputs)
    for name in file.outputs:
        if name not in known:
            raise FileFormatError(f"{path}: the output '{name}' is computed by no node")


# ---- values ------------------------------------------------------------------------------------
DTYPES: Mapping[int, torch.dtype] = {  # the numbers of onnx.TensorProto.DataType
    1: torch.float32, 2: torch.uint8, 3: torch.int8, 5: torch.int16, 6: torch.int32, 7: torch.int64,
    9: torch.bool, 10: torch.float16, 11: torch.float64, 16: torch.bfloat16,
}  # fmt: skip


def _dtype(code: int, what: str) -> torch.dtype:
    if code not in DTYPES:
        raise FileFormatError(f"{what} has the ONNX element type {code}, which is not supported")
    return DTYPES[code]


def _tensor(onnx: ModuleType, proto: Any, path: Path) -> Tensor:
    dtype = _dtype(proto.data_type, f"the tensor '{proto.name}' of {path}")
    try:
        array = onnx.numpy_helper.to_array(proto)
        # numpy has no bfloat16 of its own: go through float32, which holds it exactly
        return torch.tensor(array.astype("float32") if dtype == torch.bfloat16 else array).to(dtype)
    except Exception as error:  # wrong length, wrong shape: onnx raises many classes
        raise FileFormatError(f"{path}: the tensor '{proto.name}' is broken: {line_of(error)}") from None


def _input(value: Any, path: Path) -> Input:
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not kind.HasField("shape") or not kind.shape.dim:
        raise FileFormatError(f"{path}: the input '{value.name}' is not a tensor of known rank with a batch axis")
    sizes = tuple(dim.dim_value if dim.dim_value > 0 else None for dim in kind.shape.dim)
    if None in sizes[1:]:
        shown = [dim.dim_value or dim.dim_param or "?" for dim in kind.shape.dim]
        raise FileFormatError(
            f"{path}: the input '{value.name}' has sizes {shown}; only the first may be free, fix the others"
        )
    return Input(value.name, _dtype(kind.elem_type, f"the input '{value.name}' of {path}"), sizes)
