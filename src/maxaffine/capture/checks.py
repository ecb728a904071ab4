"""The self-checks of a capture: rows are independent, runs agree, the graph is the model. They cannot be turned off."""

from collections.abc import Sequence
from dataclasses import replace
from math import inf, isnan
from typing import Any

import torch
from torch import Tensor

from maxaffine.errors import CaptureError
from maxaffine.operators.registry import Opaque
from maxaffine.program.frozen import Codes
from maxaffine.program.graph import Graph, Layout, Node, Size
from maxaffine.program.local import Local
from maxaffine.program.plan import Plan, said
from maxaffine.program.record import layout_of, record
from maxaffine.types import flat

TOLERANCE = {torch.float32: 2e-4, torch.float64: 1e-9, torch.float16: 2e-3, torch.bfloat16: 2e-2}


def relative_error(found: Tensor, wanted: Tensor) -> float:
    """Max |found - wanted| over the largest |wanted|, where both are finite; infinite where they differ otherwise."""
    finite = wanted.isfinite()
    if not finite.all():
        if not torch.equal(found[~finite].nan_to_num(), wanted[~finite].nan_to_num()):
            return inf
        found, wanted = found[finite], wanted[finite]
    scale = float(wanted.abs().max()) if wanted.numel() else 0.0
    return float((found - wanted).abs().max()) / max(scale, 1e-12) if wanted.numel() else 0.0


def assert_same(found: Tensor, wanted: Tensor, what: str) -> None:
    """Raise CaptureError unless the two agree to rounding."""
    if found.shape != wanted.shape:
        raise CaptureError(f"{what}: shapes {tuple(found.shape)} and {tuple(wanted.shape)} differ")
    if not wanted.is_floating_point():  # classes, masks
        error, allowed = float((found != wanted).any()), 0.0
    else:
        error, allowed = relative_error(found, wanted), TOLERANCE[wanted.dtype]
    if not error <= allowed:
        raise CaptureError(
            f"{what}: relative difference {error:.1e}; the capture would be wrong, so it is refused"
            + _precision(wanted.dtype, wanted.device.type)
        )


def _precision(dtype: torch.dtype, kind: str) -> str:
    """What to do where convolutions are rounded to TF32 (11 bits of 24), torch's default on a GPU."""
    cudnn: Any = torch.backends.cudnn
    rounded = kind == "cuda" and dtype == torch.float32 and cudnn.conv.fp32_precision == "tf32"
    return ": convolutions are in TF32 there; set torch.backends.cudnn.allow_tf32 = False first" if rounded else ""


def with_layouts(graph: Graph, tensors: Sequence[Tensor], x: Tensor) -> Graph:
    """Find where the rows of every live node are, by marking one row with NaN; refuse nodes in which rows mix.

    x: the variable at 3 rows. Raises CaptureError naming the first node whose rows depend on another row, or whose
    values are not numbers.
    """
    live = graph.live(graph.input)
    needed = graph.needed([graph.output], graph.input)
    ends = [i for i in range(len(graph.nodes)) if live[i] and needed[i]]
    plan = Plan(graph, ends)
    batch = _row_axis(graph.nodes[graph.input], x)
    _check_numbers(plan, plan.run(plan.constants(tensors, batch[1], x.dtype, x.device), x, x.dtype, batch[1]))
    runs = [_marked(plan, tensors, x, batch, row) for row in range(batch[1])]
    layouts: list[Layout | None] = [None] * len(graph.nodes)
    for i in ends:
        layouts[i] = _layout(graph.nodes[i], [run[i] for run in runs])
    for end, word in ((graph.input, "variable"), (graph.output, "output")):
        layout = layouts[end]
        if layout is None or (layout.axis, layout.repeat) != (0, 1):
            shape = "(" + ", ".join("batch" if type(d) is Size else str(d) for d in graph.nodes[end].shape) + ")"
            raise CaptureError(
                f"the {word} ({graph.nodes[end].label}) does not have the batch as its first axis; its shape is {shape}"
            )
    return replace(graph, layouts=tuple(layouts))


def _check_numbers(plan: Plan, values: Sequence[Any]) -> None:
    """Infinite values may be masks; in the output, and NaN anywhere, nothing could be compared."""
    for i in plan.ends:
        value = values[i]
        bad = value.isnan() if i != plan.graph.output else ~value.isfinite()
        if value.is_floating_point() and bool(bad.any()):
            raise CaptureError(
                f"{said(plan.graph.nodes[i])} gives {'NaN' if bool(value.isnan().any()) else 'infinite values'} on the "
                "example: look for NaN among the weights, take an example on which the network is finite, or cut it "
                "before with until="
            )


def _row_axis(node: Node, x: Tensor) -> tuple[int, int]:
    axes = [i for i, d in enumerate(node.shape) if type(d) is Size]
    if len(axes) != 1 or node.shape[axes[0]] != Size((0, 1)):
        raise CaptureError(f"the variable ({node.label}) has no axis that is the batch; its shape is {tuple(x.shape)}")
    return axes[0], x.shape[axes[0]]


def _marked(plan: Plan, tensors: Sequence[Tensor], x: Tensor, batch: tuple[int, int], row: int) -> list[Any]:
    marked = x.clone()
    marked.select(batch[0], row).fill_(torch.nan)
    env = plan.constants(tensors, batch[1], x.dtype, x.device)
    return plan.run(env, marked, x.dtype, batch[1])


def _layout(node: Node, runs: Sequence[Tensor]) -> Layout | None:
    axes = [i for i, d in enumerate(node.shape) if type(d) is Size]
    rows = len(runs)
    if len(axes) != 1:
        raise CaptureError(
            _mixed(node, "has no batch axis of its own" if not axes else "has several axes with the batch")
        )
    axis, size = axes[0], runs[0].shape[axes[0]]
    if size % rows or type(node.shape[axis]) is not Size or node.shape[axis] != Size((0, size // rows)):
        raise CaptureError(_mixed(node, "has a size that is no multiple of the batch"))
    repeat = size // rows
    spots = [
        torch.isnan(r).movedim(axis, 0).reshape(size, -1).any(1) if r.is_floating_point() and r.dim() else None
        for r in runs
    ]
    candidates = [Layout(axis, repeat, True)] + ([Layout(axis, repeat, False)] if repeat > 1 else [])
    for layout in candidates:
        if all(spot is None or _only(layout, spot, row, rows) for row, spot in enumerate(spots)):
            return layout
    raise CaptureError(_mixed(node, "mixes the rows of the batch"))


def _only(layout: Layout, spot: Tensor, row: int, rows: int) -> bool:
    """Whether the marked entries all belong to that row."""
    owners = (
        torch.arange(rows).repeat_interleave(layout.repeat)
        if layout.outer
        else torch.arange(rows).repeat(layout.repeat)
    )
    return bool((owners.to(spot.device)[spot] == row).all())


def _mixed(node: Node, what: str) -> str:
    where = f" in module {node.module!r}" if node.module else ""
    return f"{node.label} ({node.op}){where} {what}: row i of the output must depend on row i of the input alone"


def check_rows(plan: Plan, tensors: Sequence[Tensor], x: Tensor) -> None:
    """Two runs agree, and a row alone gives what it gives in a batch."""
    dtype, axis = x.dtype, _row_axis(plan.graph.nodes[plan.start], x)[0]
    layout = plan.graph.layouts[plan.ends[0]]
    assert layout is not None

    def run(values: Tensor) -> Tensor:
        rows = values.shape[axis]
        env = plan.constants(tensors, rows, dtype, x.device)
        return layout.to_rows(plan.run(env, values, dtype, rows)[plan.ends[0]])

    fresh = fresh_like(x)
    whole = run(fresh)
    assert_same(run(fresh), whole, "two runs on the same input disagree (the model draws random numbers?)")
    for row in range(fresh.shape[axis]):
        alone = run(fresh.narrow(axis, row, 1))
        assert_same(alone, whole[row : row + 1], "a row alone gives another output than the same row in a batch")


def check_frozen(plan: Plan, tensors: Sequence[Tensor], x: Tensor) -> None:
    """The map frozen at fresh inputs is the network there, affine on long segments, and its adjoint is one."""
    if any(type(step.rule) is Opaque for step in plan.steps):
        return
    fresh, into = fresh_like(x), layout_of(plan, plan.start)
    units = [step.out for step in plan.steps if step.operator >= 0]
    recording = Plan(plan.graph, (*units, *plan.held), plan.start, tuple(plan.held)) if units or plan.held else None
    codes = Codes({}, {}) if recording is None else record(recording, tensors, fresh)
    rows = into.to_rows(fresh)
    local = Local(plan, tensors, codes, len(rows), x.dtype, x.device)
    step = 4 * (rows.roll(1, 0) - rows)
    near, far, change = local.value(rows), local.value(rows + step), local.tangent(step)
    env = plan.constants(tensors, len(rows), x.dtype, x.device)
    end = layout_of(plan, plan.ends[0])
    _assert_close(near, end.to_rows(plan.run(env, fresh, x.dtype, len(rows))[plan.ends[0]]), near, "is not the network")
    _assert_close(far - near, change, torch.maximum(near.abs(), far.abs()), "is not affine with its linear part")
    u = fresh_like(change)
    pushed, pulled = flat(u * change), flat(local.cotangent(u) * step)
    _assert_close(pushed.sum(1), pulled.sum(1), pulled.abs().sum(1) + pushed.abs().sum(1), "has another adjoint")


def _assert_close(found: Tensor, wanted: Tensor, size: Tensor, what: str) -> None:
    scale = max(float(size.abs().max()), float(wanted.abs().max())) if wanted.numel() else 0.0
    error = float((found - wanted).abs().max()) / max(scale, 1e-12) if wanted.numel() else 0.0
    if not error <= TOLERANCE[wanted.dtype]:
        advice = _precision(wanted.dtype, wanted.device.type)
        if isnan(error):
            advice = (
                "; NaN or infinite values appear inside the network: write a large finite number for a constant inf"
            )
        raise CaptureError(f"the frozen map {what}: relative difference {error:.1e}; the capture is refused{advice}")


def fresh_like(x: Tensor) -> Tensor:
    """Other inputs of the same kind: uniform over the example's range, from a generator of our own."""
    if not x.numel():
        raise CaptureError(
            f"the inputs or outputs of the network hold no values: one row has shape {tuple(x.shape[1:])}"
        )
    generator = torch.Generator().manual_seed(20180517)
    low, high = float(x.min()), float(x.max())
    spread = max(high - low, 1.0)
    noise = torch.rand(x.shape, generator=generator, dtype=torch.float64).to(x.dtype).to(x.device)
    return (low + high) / 2 + spread * (noise - 0.5)
