"""Which layer of a network is the last: the linear map whose rows are those of the classes."""

from collections.abc import Sequence
from math import prod
from typing import Any

from torch import nn

from maxaffine.errors import InputError
from maxaffine.penalties.evaluating import captured_in_eval
from maxaffine.penalties.layers import Layer, layer_of
from maxaffine.program.graph import Graph, Node
from maxaffine.spline import Spline

PASSED = (
    *("aten.view.default", "aten._unsafe_view.default", "aten.reshape.default", "aten.flatten.using_ints"),
    *("aten.squeeze.default", "aten.squeeze.dim", "aten.squeeze.dims", "aten.unsqueeze.default", "aten.clone.default"),
    *("aten.permute.default", "aten.transpose.int", "aten.alias.default", "aten.contiguous.default"),
    *("aten.mean.default", "aten.mean.dim", "aten.avg_pool1d.default", "aten.avg_pool2d.default"),
    *("aten.adaptive_avg_pool1d.default", "aten.adaptive_avg_pool2d.default", "aten.adaptive_avg_pool3d.default"),
    *("aten.add.Tensor", "aten.add.Scalar", "aten.sub.Tensor", "aten.sub.Scalar", "aten._to_copy.default"),
    *("aten.softmax.int", "aten._softmax.default", "aten.log_softmax.int", "aten._log_softmax.default"),
    *("aten.dropout.default",),
)
"""What may stand between the last linear layer and the output; an average must not be one over its rows."""
POOLED = {
    "avg_pool1d": 1,
    "avg_pool2d": 2,
    "adaptive_avg_pool1d": 1,
    "adaptive_avg_pool2d": 2,
    "adaptive_avg_pool3d": 3,
}
"""Average pooling -> over how many of the last axes."""


def last_layer(model: nn.Module | Spline, example: Any = None) -> Layer:
    """The final linear layer: the linear map (or convolution) whose output is the logits, found in the graph.

    Reshapes, added constants, means over positions and a softmax may follow it; anything else between it and the
    output is refused. `.weight` is its live matrix (C, D), one row a class; `.path` the module that calls it.
    A model is captured for this, in eval mode and around `example` (see `maxaffine.Spline`); it is not changed.
    Raises InputError when there is no final linear layer or no example, CaptureError.

    >>> import torch
    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> head = last_layer(net, torch.zeros(1, 4))
    >>> head.path, tuple(head.weight.shape)
    ('2', (3, 8))
    """
    spline = captured_in_eval(model, example)
    graph = spline.captured.graph
    live, at, passed = graph.live(graph.input), graph.output, list[int]()
    while at != graph.input:
        node = graph.nodes[at]
        layer = layer_of(spline.captured, node, live)
        if layer is not None:
            at = _mixing(graph, at, passed, 1 if layer.convolution is not None else len(node.shape) - 1)
            if at < 0:
                return layer
            break
        operands = [j for _, j in node.operands() if live[j]]
        if node.op not in PASSED or len(operands) != 1:
            break
        passed.append(at)
        at = operands[0]
    node = graph.nodes[at]
    where = f"{node.op} in module {node.module!r}" if at != graph.input else "its input"
    raise InputError(
        f"the network has no final linear layer: its output comes from {where}; penalise on='all' or on='templates', "
        "or cut the network behind a linear layer with ma.Spline(model, example, until=...)"
    )


def _mixing(graph: Graph, at: int, passed: Sequence[int], axis: int | None) -> int:
    """The first of the nodes behind a layer that averages over its rows; -1 when none does.

    at: the layer's node; axis: that of its rows. Behind a reshape that merges or splits it nobody knows where rows are.
    """
    shape = graph.nodes[at].sizes(2)
    for i in reversed(passed):
        node = graph.nodes[i]
        gone = _averaged(node, len(shape))
        if gone and (axis is None or axis in gone):
            return i
        after = node.sizes(2)
        axis = None if axis is None else _moved(node, axis, shape, after, gone)
        shape = after
    return -1


def _averaged(node: Node, rank: int) -> list[int]:
    """The axes that a mean or a pooling averages over."""
    name = node.op.split(".")[1]
    if name == "mean":
        dims = node.args[1] if len(node.args) > 1 and node.op == "aten.mean.dim" else None
        return [d % rank for d in ([dims] if isinstance(dims, int) else dims or range(rank))]
    return list(range(rank - POOLED.get(name, 0), rank))


def _moved(node: Node, axis: int, before: Sequence[int], after: Sequence[int], gone: Sequence[int]) -> int | None:
    """Where the axis of the rows is after a node, None when it is no axis of its own."""
    if gone:
        return axis if len(after) == len(before) else axis - sum(d < axis for d in gone)
    if node.op == "aten.permute.default":
        return [d % len(before) for d in node.args[1]].index(axis)
    if node.op == "aten.transpose.int":
        a, b = (d % len(before) for d in node.args[1:3])
        return {a: b, b: a}.get(axis, axis)
    if tuple(before) == tuple(after):
        return axis
    ahead, places = prod(before[:axis]), range(len(after))
    return next((k for k in places if prod(after[:k]) == ahead and after[k] == before[axis]), None)
