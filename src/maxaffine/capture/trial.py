"""The trial of a graph that comes from a file: nothing that stands there is believed before a run has shown it."""

from collections.abc import Sequence
from math import isfinite, prod
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from maxaffine.arguments import sized
from maxaffine.capture import checks
from maxaffine.capture.example import ROWS
from maxaffine.capture.export import quiet
from maxaffine.errors import FileFormatError
from maxaffine.program.graph import Graph, Node, Size
from maxaffine.program.plan import Plan, operator_of

LIMIT = 2**30
"""Bytes that all values of one row together may take, the stored tensors aside, unless the file is trusted."""
PARTS = 2**16
"""Into how many parts a tensor may be cut."""
CPU = torch.device("cpu")
Span = tuple[float, float]


def tried(graph: Graph, tensors: Sequence[Tensor], dtype: torch.dtype, span: Span, trusted: bool) -> Graph:
    """The graph with its layouts, once shapes, sizes and the self-checks of the capture were seen to hold.

    span: lowest and highest value of the example it was captured on. trusted: its values may take more than LIMIT.
    Raises ValueError or whatever its operations raise, FileFormatError for too large values.
    """
    _check_places(graph, tensors)
    for rows in (1, ROWS):
        _check_shapes(graph, tensors, dtype, rows, None if trusted else LIMIT * rows)
    x = _variable(graph.nodes[graph.input], dtype, span)
    with torch.no_grad():
        graph = checks.with_layouts(graph, tensors, x)
        checks.check_rows(Plan(graph), tensors, x)
        checks.check_frozen(Plan(graph), tensors, x)
        _check_operators(Plan(graph), tensors, x)
    return graph


def _check_places(graph: Graph, tensors: Sequence[Tensor]) -> None:
    """Every number that points somewhere points at something."""
    nodes = graph.nodes
    for what, place in (("input", graph.input), ("output", graph.output)):
        if type(place) is not int or not 0 <= place < len(nodes):
            raise ValueError(f"there is no node {str(place)[:20]}, which is to be the {what}")
    for i, node in enumerate(nodes):
        stored = node.op in ("tensor", "rows")
        if stored and not (len(node.args) == 1 and type(node.args[0]) is int and 0 <= node.args[0] < len(tensors)):
            raise ValueError(f"node {i} reads a tensor that is not there")
        if type(node.floating) is not bool or not all(
            type(d) is Size or (type(d) is int and d >= 0) for d in node.shape
        ):
            raise ValueError(f"node {i} has no shape")


def _check_shapes(graph: Graph, tensors: Sequence[Tensor], dtype: torch.dtype, rows: int, limit: int | None) -> None:
    """Every needed node, run without memory, has the shape and kind that the file says; their sizes have a limit."""
    plan, total = Plan(graph), 0
    steps = {step.out: step for step in plan.steps}
    env: list[Any] = [None] * len(graph.nodes)
    with quiet(), FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        for i in sorted({*plan.fixed, plan.start, *steps}):
            node = graph.nodes[i]
            _check_parts(node, env)
            if i == plan.start:
                env[i] = torch.empty(node.sizes(rows), dtype=dtype)
            elif i in steps:
                env[i] = steps[i].call(env, rows, dtype, CPU)
            else:
                env[i] = plan.constant(i, env, tensors, rows, dtype, CPU)
            if tuple(env[i].shape) != node.sizes(rows) or env[i].is_floating_point() != node.floating:
                raise ValueError(f"{node.label[:80]} gives {tuple(env[i].shape)}, not {node.sizes(rows)}"[:200])
            total += 0 if node.op == "tensor" else env[i].numel() * env[i].itemsize
            if limit is not None and total > limit:
                raise FileFormatError(
                    f"the values of one row take more than {sized(limit / rows)}; if you made the file "
                    "yourself, pass trusted=True"
                )


CUTS = {
    "aten.unbind.int": lambda longest, _: longest,
    "aten.split.Tensor": lambda longest, size: longest // max(1, size),
    "aten.unsafe_split.Tensor": lambda longest, size: longest // max(1, size),
    "aten.chunk.default": lambda _, parts: parts,
    "aten.tensor_split.sections": lambda _, parts: parts,
}
"""Operation -> (longest axis, second argument) -> at most how many parts it makes."""


def _check_parts(node: Node, env: Sequence[Any]) -> None:
    """A cut into millions of parts would fill the memory even without their values."""
    if cut := CUTS.get(node.op.partition("#")[0]):
        longest = max((0, *(size for _, j in node.operands() for size in env[j].shape)))
        if cut(longest, (*node.args, 1, 1)[1]) > PARTS:
            raise ValueError(f"{node.label[:80]} cuts a tensor into more than {PARTS} parts")


def _variable(node: Node, dtype: torch.dtype, span: Span) -> Tensor:
    """Inputs of ROWS rows whose values span the range of the example."""
    low, high = span
    if not (isfinite(low) and isfinite(high) and low <= high):
        raise ValueError(f"its example ranged from {low} to {high}")
    sizes = node.sizes(ROWS)
    return checks.fresh_like(torch.linspace(low, high, max(1, prod(sizes)), dtype=dtype)[: prod(sizes)].reshape(sizes))


def _check_operators(plan: Plan, tensors: Sequence[Tensor], x: Tensor) -> None:
    """Every spline operator can be built, and has a name of its own."""
    env = plan.constants(tensors, 1, x.dtype, x.device)
    steps = [step for step in plan.steps if step.operator >= 0]
    for step in steps:
        operator_of(plan, step, step.arguments(env, 1, x.dtype, x.device))
    if len({step.node.label for step in steps}) < len(steps):
        raise ValueError("two of its spline operators have one name")
