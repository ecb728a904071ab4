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
from maxaffine.capture.trial import tried
from maxaffine.errors import CaptureError, FileFormatError
from maxaffine.operators import registry
from maxaffine.program.graph import BaseDtype, Device, Graph, Node, Ref, Size
from maxaffine.types import __version__

FORMAT = 1
SPECIAL = ("input", "tensor", "rows")
CONSTANT_OPS = frozenset(
    """
    aten.arange.default aten.arange.start aten.arange.start_step aten.linspace.default aten.zeros.default
    aten.ones.default aten.full.default aten.eye.default aten.scalar_tensor.default
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
        "span": network.span,
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


def load(path: Path, trusted: bool = False) -> Captured:
    """Read what `save` wrote, and repeat the self-checks of the capture.

    Whatever stands in the file, nothing in it executes, and no run takes more memory than `trial.LIMIT` unless it is
    trusted. Raises FileFormatError for anything else, a newer format, an unknown operation or a graph that fails.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise FileFormatError(f"cannot read {path.name}: {one_line(error)}") from None
    if "maxaffine" not in metadata:
        raise FileFormatError(f"{path.name} is a safetensors file, but not one that spline.save wrote")
    try:
        return _restore(json.loads(metadata["maxaffine"]), tensors, trusted)
    except FileFormatError as error:
        raise FileFormatError(f"{path.name}: {error}") from None
    except Exception as error:  # a graph of somebody else's making can fail in any operation of torch
        raise FileFormatError(f"{path.name} is damaged: {one_line(error)}") from None


def one_line(error: Exception) -> str:
    """What an error says, on one line and not endlessly."""
    said = " ".join(str(error).split())
    return said[:300] if type(error) in (CaptureError, ValueError) else f"{type(error).__name__} {said}"[:300].strip()


def _restore(header: dict[str, Any], tensors: dict[str, torch.Tensor], trusted: bool) -> Captured:
    if header["format"] != FORMAT:
        made = f"format {header['format']!s:.20} of maxaffine {header.get('version')!s:.20}"
        raise FileFormatError(f"{made}, this version reads format {FORMAT}; update maxaffine")
    if header["dtype"] not in ("float32", "float64"):
        raise ValueError(f"its dtype is {header['dtype']!s:.20}, not float32 or float64")
    dtype, raw = _torch(header["dtype"], torch.dtype), header["graph"]
    nodes = tuple(_node(item) for item in raw["nodes"])
    for i, node in enumerate(nodes):
        if not _allowed(node.op):
            hint = "; declare it first with maxaffine.declare" if node.op.startswith("module.") else ""
            raise FileFormatError(f"it contains the operation {node.op[:80]!r}, which is on no table{hint}")
        if not all(0 <= j < i for _, j in node.operands()):
            raise ValueError(f"node {i} reads a node that does not stand before it")
    if set(tensors) != {str(i) for i in range(len(tensors))}:
        raise ValueError(f"its tensors are not numbered from 0 to {len(tensors) - 1}")
    values = [tensors[str(i)] for i in range(len(tensors))]
    low, high = (float(value) for value in header["span"])
    graph = tried(Graph(nodes, raw["input"], raw["output"]), values, dtype, (low, high), trusted)
    return captured(graph, tuple(map(Fixed, values)), dtype, torch.device("cpu"), (low, high))


def _allowed(op: str) -> bool:
    return op in SPECIAL or op in CONSTANT_OPS or registry.rule_of(op) is not None


def _graph(graph: Graph) -> dict[str, Any]:
    nodes = [
        [n.op, _encode(n.args), _encode(n.kwargs), n.module, n.label, _encode(n.shape), n.floating] for n in graph.nodes
    ]
    return {"nodes": nodes, "input": graph.input, "output": graph.output}


def _node(item: list[Any]) -> Node:
    op, args, kwargs, module, label, shape, floating = item
    if {type(v) for v in (op, module, label)} != {str} or {type(v) for v in (args, kwargs, shape)} != {list}:
        raise ValueError(f"a node is not written as a node: {str(item)[:80]}")
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
        raise ValueError(f"{name!r} is no {kind.__name__}")
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
