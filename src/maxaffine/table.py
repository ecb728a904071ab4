"""The composition of a network as a text table: operators, pieces, units, and the parameters before each."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from maxaffine.spline import Spline


def composition_rows(spline: "Spline") -> list[tuple[str, str, int, int, str, int]]:
    """(name, kind, pieces R, units, shape, parameters since the operator before) of each operator, then the output."""
    graph, sources = spline.captured.graph, spline.captured.sources
    reads = {i: node.args[0] for i, node in enumerate(graph.nodes) if node.op == "tensor"}
    needed, seen, rows, count = graph.needed([graph.output]), set(), [], 0
    operators = {o.name: o for o in spline.operators}
    live = graph.live(graph.input)
    pending: set[int] = set()
    for i, node in enumerate(graph.nodes):
        if not needed[i]:
            continue
        pending |= {reads[j] for _, j in node.operands() if j in reads} - seen
        if live[i] and node.label in operators:
            operator = operators[node.label]
            count = sum(sources[k].read().numel() for k in pending if sources[k].read().is_floating_point())
            seen |= pending
            pending = set()
            shape = " x ".join(map(str, operator.shape))
            rows.append((operator.name, operator.op, operator.pieces, operator.units, shape, count))
    count = sum(sources[k].read().numel() for k in pending if sources[k].read().is_floating_point())
    rows.append(("output", "affine", 1, _size(spline.out_shape), " x ".join(map(str, spline.out_shape)), count))
    return rows


def _size(shape: tuple[int, ...]) -> int:
    total = 1
    for side in shape:
        total *= side
    return total


def composition_table(spline: "Spline") -> str:
    """The composition as aligned text."""
    head = ("operator", "kind", "R", "units", "shape", "parameters before")
    rows = [head, *[tuple(map(str, row)) for row in composition_rows(spline)]]
    widths = [max(len(row[c]) for row in rows) for c in range(len(head))]
    right = (False, False, True, True, False, True)
    lines = [
        "  ".join(t.rjust(w) if r else t.ljust(w) for t, w, r in zip(row, widths, right, strict=True)).rstrip()
        for row in rows
    ]
    shapes = f"{tuple(spline.in_shape)} -> {tuple(spline.out_shape)}, {spline.dtype}"
    return "\n".join([f"Spline {shapes}, {sum(o.units for o in spline.operators)} spline units", *lines])
