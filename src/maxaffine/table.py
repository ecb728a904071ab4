"""The composition of a network as a table: its spline operators, and the parameters before each."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from maxaffine.capture import Captured
from maxaffine.program.links import BATCH_NORM
from maxaffine.types import Shape

STATISTICS = ((3,), (4,))  # the running mean and variance among the operands of a batch norm: no parameters


@dataclass(frozen=True)
class Operator:
    """One spline operator of a network: its name, kind, number of pieces R, number of units and their shape."""

    name: str
    op: str
    pieces: int
    units: int
    shape: Shape


Row = tuple[str, str, int, int, str, int]


def composition_rows(network: Captured, operators: Sequence[Operator], out_shape: Shape) -> list[Row]:
    """(name, kind, pieces R, units, shape, parameters since the operator before) of each operator, then the output."""
    graph, by_name = network.graph, {o.name: o for o in operators}
    reads = {i: node.args[0] for i, node in enumerate(graph.nodes) if node.op == "tensor" and node.floating}
    needed, live = graph.needed([graph.output]), graph.live(graph.input)
    pending: set[int] = set()
    seen: set[int] = set()
    rows: list[Row] = []

    def parameters() -> int:
        count = sum(network.sources[k].read().numel() for k in pending)
        seen.update(pending)
        pending.clear()
        return count

    for i, node in enumerate(graph.nodes):
        learned = (j for place, j in node.operands() if not (node.op == BATCH_NORM and place in STATISTICS))
        pending |= {reads[j] for j in learned if needed[i] and j in reads} - seen
        if needed[i] and live[i] and node.label in by_name:
            o = by_name[node.label]
            rows.append((o.name, o.op, o.pieces, o.units, " x ".join(map(str, o.shape)), parameters()))
    return [*rows, ("output", "affine", 1, prod(out_shape), " x ".join(map(str, out_shape)), parameters())]


def composition_table(network: Captured, operators: Sequence[Operator], in_shape: Shape, out_shape: Shape) -> str:
    """The composition as aligned text."""
    head = ("operator", "kind", "R", "units", "shape", "parameters before")
    rows = [head, *[tuple(map(str, row)) for row in composition_rows(network, operators, out_shape)]]
    widths = [max(len(row[c]) for row in rows) for c in range(len(head))]
    right = (False, False, True, True, False, True)
    cells = [[t.rjust(w) if r else t.ljust(w) for t, w, r in zip(row, widths, right, strict=True)] for row in rows]
    units = sum(o.units for o in operators)
    title = f"Spline {in_shape} -> {out_shape}, {network.dtype}, {units} spline units"
    return "\n".join([title, *("  ".join(row).rstrip() for row in cells)])
