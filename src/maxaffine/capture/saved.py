"""Our own file: weights as safetensors, the graph as JSON of table operations in its metadata; nothing can execute."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from maxaffine.capture import Captured, captured
from maxaffine.capture.lower import Fixed
from maxaffine.errors import CaptureError, FileFormatError
from maxaffine.operators import registry
from maxaffine.program.graph import BaseDtype, Device, Graph, Layout, Node, Ref, Size
from maxaffine.types import __version__

FORMAT = 1
SPECIAL = ("input", "tensor", "rows")
CONSTANT_OPS = frozenset(
    """
    aten.arange.default aten.arange.start aten.arange.start_step aten.linspace.default aten.zeros.default
    aten.ones.default aten.full.default aten.empty.default aten.eye.default aten.scalar_tensor.default
    aten._weight_norm.default aten._weight_norm_interface.default#0 aten.bitwise_and.Tensor
    aten.vdot.default
    """.split()  # noqa: SIM905
)
"""Constants a file may contain beside the operations of the rule table; anything else in a file is refused."""


def save(network: Captured, path: Path) -> None:
    """Write the captured network to path (.safetensors), completely or not at all.

    Raises FileFormatError for another ending or a place that cannot be written, CaptureError for an operation
    that is on no table.
    """
    if path.suffix != ".safetensors":
        raise FileFormatError(f"a spline is saved as .safetensors, got {path.name!r}")
    for node in network.graph.nodes:
        if not _allowed(node.op):
            raise CaptureError(
                f"{node.label} ({node.op}) computes a constant by an operation that a file may not contain"
            )
    tensors = {str(i): s.read().detach().cpu().contiguous().clone() for i, s in enumerate(network.sources)}
    header = {
        "format": FORMAT,
        "version": __version__,
        "dtype": _name(network.dtype),
        "graph": _graph(network.graph),
    }
    _write(tensors, {"maxaffine": json.dumps(header)}, path)


def _write(tensors: dict[str, torch.Tensor], metadata: dict[str, str], path: Path) -> None:
    part = path.with_name(f".{path.name}.part")
    try:
        save_file(tensors, part, metadata=metadata)
        os.replace(part, path)
    except (OSError, SafetensorError) as error:
        part.unlink(missing_ok=True)
        raise FileFormatError(f"cannot write {path}: {error}") from None


def load(path: Path) -> Captured:
    """Read what `save` wrote. Raises FileFormatError for anything else, a newer format or an unknown operation."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise FileFormatError(f"cannot read {path.name}: {error}") from None
    if "maxaffine" not in metadata:
        raise FileFormatError(f"{path.name} is a safetensors file, but not one that spline.save wrote")
    try:
        return _restore(json.loads(metadata["maxaffine"]), tensors, path)
    except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        if isinstance(error, FileFormatError):
            raise
        raise FileFormatError(f"{path.name} is damaged: {error}") from None


def _restore(header: dict[str, Any], tensors: dict[str, torch.Tensor], path: Path) -> Captured:
    if header["format"] != FORMAT:
        raise FileFormatError(
            f"{path.name} has format {header['format']}, this version reads {FORMAT}; update maxaffine"
        )
    raw = header["graph"]
    nodes = tuple(_node(item) for item in raw["nodes"])
    for i, node in enumerate(nodes):
        if not _allowed(node.op):
            hint = "; declare it first with maxaffine.declare" if node.op.startswith("module.") else ""
            raise FileFormatError(f"{path.name} contains the operation {node.op!r}, which is on no table{hint}")
        if any(j >= i for _, j in node.operands()):
            raise FileFormatError(f"{path.name} is damaged: node {i} reads a later node")
    layouts = tuple(None if item is None else Layout(*item) for item in raw["layouts"])
    sources = tuple(Fixed(tensors[str(i)]) for i in range(len(tensors)))
    graph = Graph(nodes, raw["input"], raw["output"], layouts)
    return captured(graph, sources, _torch(header["dtype"], torch.dtype), torch.device("cpu"))


def _allowed(op: str) -> bool:
    return op in SPECIAL or op in CONSTANT_OPS or registry.rule_of(op) is not None


def _graph(graph: Graph) -> dict[str, Any]:
    layouts = [None if lay is None else [lay.axis, lay.repeat, lay.outer] for lay in graph.layouts]
    nodes = [
        [n.op, _encode(n.args), _encode(n.kwargs), n.module, n.label, _encode(n.shape), n.floating] for n in graph.nodes
    ]
    return {"nodes": nodes, "input": graph.input, "output": graph.output, "layouts": layouts}


def _node(item: list[Any]) -> Node:
    op, args, kwargs, module, label, shape, floating = item
    return Node(op, _decode(args), _decode(kwargs), module, label, _decode(shape), floating)


def _name(value: Any) -> str:
    return str(value).removeprefix("torch.")


_ENCODE = {
    Ref: lambda v: {"node": v.index},
    Size: lambda v: {"size": list(v.coefficients)},
    BaseDtype: lambda _: {"dtype": "own"},
    Device: lambda _: {"device": "own"},
    torch.dtype: lambda v: {"dtype": _name(v)},
    torch.layout: lambda v: {"layout": _name(v)},
    torch.memory_format: lambda v: {"memory_format": _name(v)},
}
_DECODE = {
    "node": lambda v: Ref(int(v)),
    "size": lambda v: Size(tuple(int(c) for c in v)),
    "dtype": lambda v: BaseDtype() if v == "own" else _torch(v, torch.dtype),
    "device": lambda _: Device(),
    "layout": lambda v: _torch(v, torch.layout),
    "memory_format": lambda v: _torch(v, torch.memory_format),
}


def _torch(name: str, kind: type) -> Any:
    value = getattr(torch, name, None)
    if type(value) is not kind:
        raise FileFormatError(f"{name!r} is no {kind.__name__}")
    return value


def _encode(value: Any) -> Any:
    if type(value) in (tuple, list):
        return [_encode(v) for v in value]
    if type(value) in _ENCODE:
        return _ENCODE[type(value)](value)
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise CaptureError(f"an argument of type {type(value).__name__} cannot be saved")


def _decode(value: Any) -> Any:
    if type(value) is list:
        return tuple(_decode(v) for v in value)
    if type(value) is dict:
        (key, inner), *_ = value.items()
        return _DECODE[key](inner)
    return value
