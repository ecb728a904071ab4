"""Curvature: where each tensor of a network may fail to be convex, or concave, as a function of the input.

Two bits an entry are carried from the input (affine: neither bit) to the output, with the rules of Theorem 2:
a sum is convex if its terms are convex where their weight is positive and concave where it is negative; a
convex function may be applied to an affine operand, to a convex one if it does not decrease, to a concave one
if it does not increase; a maximum keeps convexity, a minimum concavity.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import singledispatch
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from maxaffine.operators.affine import Affine
from maxaffine.operators.elementwise import Elementwise
from maxaffine.operators.maximum import Pair, Windows
from maxaffine.operators.registry import SplineOperator
from maxaffine.program.links import affine_link
from maxaffine.program.plan import Plan, Step, operator_of
from maxaffine.program.record import layout_of

ROWS = 256  # basis vectors that are pushed through an operation at a time
CPU, F64 = torch.device("cpu"), torch.float64

WEIGHTED = {
    **{f"aten.conv{d}d.{kind}": (0, 1) for d in (1, 2, 3) for kind in ("default", "padding")},
    **{f"aten.conv_transpose{name}": (0, 1) for name in ("1d.default", "2d.input", "3d.input")},
    **{f"aten.{name}.default": (0, 1) for name in ("linear", "mm", "matmul", "bmm", "mv")},
    **{f"aten.{name}.default": (1, 2) for name in ("addmm", "baddbmm")},
}
"""Operation -> its two factors: each entry of the result is a sum of products of their entries."""

ONE_SIGN = """
    add.Tensor add.Scalar sub.Tensor sub.Scalar rsub.Tensor rsub.Scalar neg.default mul.Tensor
    mul.Scalar div.Tensor div.Scalar _native_batch_norm_legit_no_training.default mean.default mean.dim
    sum.default sum.dim_IntList avg_pool1d.default avg_pool2d.default avg_pool3d.default
    adaptive_avg_pool1d.default adaptive_avg_pool2d.default adaptive_avg_pool3d.default
    _adaptive_avg_pool2d.default pad.default constant_pad_nd.default view.default _unsafe_view.default
    reshape.default unsqueeze.default squeeze.default squeeze.dim squeeze.dims flatten.using_ints
    unflatten.int clone.default detach.default alias.default contiguous.default _to_copy.default
    to.dtype permute.default transpose.int t.default expand.default repeat.default select.int
    slice.Tensor split.Tensor split.sizes split_with_sizes.default chunk.default unbind.int index.Tensor
    index_select.default cat.default stack.default where.self upsample_nearest1d.vec
    upsample_nearest2d.vec upsample_bilinear2d.vec cumsum.default
"""
"""Operations in whose matrix every row has entries of one sign only (each operand by itself)."""


@dataclass(frozen=True, eq=False)
class Curvature:
    """Of one tensor, entry by entry: True where convexity, where concavity, in the input is lost."""

    not_convex: Tensor
    not_concave: Tensor

    @property
    def neither(self) -> Tensor:
        """Where it is neither convex nor concave."""
        return self.not_convex & self.not_concave

    @property
    def bent(self) -> Tensor:
        """Where it is not affine."""
        return self.not_convex | self.not_concave


def flat(shape: Sequence[int]) -> Curvature:
    """The curvature of an affine tensor."""
    return Curvature(torch.zeros(*shape, dtype=torch.bool), torch.zeros(*shape, dtype=torch.bool))


@dataclass(frozen=True)
class Curvatures:
    """A plan in float64 on the CPU, its constants for one row, and the curvature of each live node so far."""

    plan: Plan
    tensors: Sequence[Tensor]
    constants: list[Any]
    found: dict[int, Curvature]

    def arguments(self, step: Step) -> list[Any]:
        """The arguments of a step, None in the place of the live ones."""
        env = list(self.constants)
        for _, slot in step.live:
            env[slot] = None
        return list(step.arguments(env, 1, F64, CPU))


def curvatures(plan: Plan, tensors: Sequence[Tensor]) -> Curvatures:
    """The curvature of every live node of a plan; tensors are float64 on the CPU."""
    start = flat(plan.graph.nodes[plan.start].sizes(1))
    known = Curvatures(plan, tensors, plan.constants(tensors, 1, F64, CPU), {plan.start: start})
    for step in plan.steps:
        if type(step.rule) is Affine:
            known.found[step.out] = through_affine(known, step)
        else:
            operator = operator_of(plan, step, known.arguments(step))
            known.found[step.out] = bend(operator, *(operand(known, step, i) for i in range(count(operator))))
    return known


def count(operator: SplineOperator) -> int:
    """How many operands a spline operator has."""
    return 2 if type(operator) is Pair else 1


def operand(known: Curvatures, step: Step, place: int) -> Curvature:
    """The curvature of one operand of a spline operator; a constant one is affine."""
    slot = next((j for position, j in step.live if position == (place,)), None)
    if slot is not None:
        return known.found[slot]
    value = known.arguments(step)[place]
    return flat(value.shape if isinstance(value, Tensor) else ())


# --- spline operators ------------------------------------------------------------------------------------


@singledispatch
def bend(operator: SplineOperator, *operands: Curvature) -> Curvature:  # noqa: ARG001
    """The curvature of a spline operator's output; of an operator not known here nothing is assumed."""
    everywhere = torch.ones_like(operands[0].not_convex)
    return Curvature(everywhere, everywhere)


@bend.register
def _(operator: Elementwise, u: Curvature) -> Curvature:
    rises, falls = changes(operator, u)
    slopes = [torch.as_tensor(s, dtype=F64) for s in operator.slopes]
    up, down = (all_of([sign * s >= 0 for s in slopes]) for sign in (1, -1))
    convex_of = ~u.bent | (up & ~u.not_convex) | (down & ~u.not_concave)
    concave_of = ~u.bent | (up & ~u.not_concave) | (down & ~u.not_convex)
    return Curvature(~(~falls & convex_of), ~(~rises & concave_of))


def changes(operator: Elementwise, u: Curvature) -> tuple[Tensor, Tensor]:
    """Units whose slope rises at some knot, and whose slope falls at some knot."""
    slopes = [torch.as_tensor(s, dtype=F64) for s in operator.slopes]
    steps = [after - before for before, after in pairwise(slopes)]
    rises, falls = (~all_of([sign * s <= 0 for s in steps]) for sign in (1, -1))
    return rises.expand(u.bent.shape), falls.expand(u.bent.shape)


def all_of(conditions: Sequence[Tensor]) -> Tensor:
    """Whether all conditions hold, unit by unit."""
    result = torch.ones((), dtype=torch.bool)
    for condition in conditions:
        result = result & condition
    return result


@bend.register
def _(operator: Windows, u: Curvature) -> Curvature:
    kept = u.not_convex if operator.sign > 0 else u.not_concave
    value, _ = operator.value_and_code(operator.sign * kept.to(F64))  # is any candidate of the window marked?
    kept = operator.sign * value > 0
    return keeping(operator.sign, kept)


@bend.register
def _(operator: Pair, a: Curvature, b: Curvature) -> Curvature:
    return keeping(operator.sign, a.not_convex | b.not_convex if operator.sign > 0 else a.not_concave | b.not_concave)


def keeping(sign: int, lost: Tensor) -> Curvature:
    """A maximum (sign 1) keeps what convexity there is and is not taken for concave; a minimum mirrors it."""
    other = torch.ones_like(lost)
    return Curvature(lost, other) if sign > 0 else Curvature(other, lost)


# --- affine operations -----------------------------------------------------------------------------------


def through_affine(known: Curvatures, step: Step) -> Curvature:
    """The curvature behind an affine operation: which entries reach which with which sign."""
    weight = weight_place(step)
    if weight is not None:
        return through_weight(known, step, weight)
    result = flat(known.plan.graph.nodes[step.out].sizes(1))
    for slot in dict.fromkeys(j for _, j in step.live):
        one_sign = step.node.op.partition("#")[0].removeprefix("aten.") in ONE_SIGN.split()
        part = (through_one_sign if one_sign else through_basis)(known, step, slot)
        result = Curvature(result.not_convex | part.not_convex, result.not_concave | part.not_concave)
    return result


def weight_place(step: Step) -> int | None:
    """The position of the constant factor of a product, if the step is one."""
    factors, live = WEIGHTED.get(step.node.op, ()), [place for place, _ in step.live]
    if len(live) != 1 or len(live[0]) != 1 or live[0][0] not in factors:
        return None
    return next(place for place in factors if place != live[0][0])


def through_weight(known: Curvatures, step: Step, place: int) -> Curvature:
    """With 1 for each positive (or each negative) weight, the operation counts the terms of that sign."""
    weight, u = known.arguments(step)[place], known.found[step.live[0][1]]
    lost = []
    for same, other in ((u.not_convex, u.not_concave), (u.not_concave, u.not_convex)):
        terms = [
            linear(known, step, {step.live[0][1]: which.to(F64)}, 1, {place: (sign * weight > 0).to(F64)})
            for sign, which in ((1, same), (-1, other))
        ]
        lost.append((terms[0] + terms[1]) > 0.5)
    return Curvature(*lost)


def through_one_sign(known: Curvatures, step: Step, slot: int) -> Curvature:
    """All terms of an output have one sign, so the sign of the sum tells which bit is handed on as it is."""
    u = known.found[slot]
    first, second = (linear(known, step, {slot: bit.to(F64)}) for bit in (u.not_convex, u.not_concave))
    return Curvature((first > 0) | (second < 0), (second > 0) | (first < 0))


def through_basis(known: Curvatures, step: Step, slot: int) -> Curvature:
    """Any affine operation: the matrix column of each bent entry, a few at a time."""
    u, layout, out = known.found[slot], layout_of(known.plan, slot), layout_of(known.plan, step.out)
    not_convex, not_concave = (layout.to_rows(bit)[0] for bit in (u.not_convex, u.not_concave))
    shape = out.to_rows(flat(known.plan.graph.nodes[step.out].sizes(1)).bent).shape[1:]
    lost = [torch.zeros(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool)]
    for entries in (not_convex | not_concave).flatten().nonzero()[:, 0].split(ROWS):
        basis = torch.zeros(len(entries), not_convex.numel(), dtype=F64)
        basis[torch.arange(len(entries)), entries] = 1
        value = layout.from_rows(basis.reshape(-1, *not_convex.shape))
        columns = out.to_rows(linear(known, step, {slot: value}, len(entries)))
        for i, (same, other) in enumerate(((not_convex, not_concave), (not_concave, not_convex))):
            chosen = [bit.flatten()[entries].reshape(-1, *[1] * len(shape)) for bit in (same, other)]
            lost[i] |= ((columns > 0) & chosen[0] | (columns < 0) & chosen[1]).any(0)
    return Curvature(*(out.from_rows(bit[None]) for bit in lost))


def linear(
    known: Curvatures,
    step: Step,
    values: dict[int, Tensor],
    rows: int = 1,
    overrides: dict[int, Any] | None = None,
) -> Tensor:
    """The linear part of an affine step at these operands, the other live ones being zero."""
    env = known.constants if rows == 1 else known.plan.constants(known.tensors, rows, F64, CPU)
    env = list(env)
    for _, slot in step.live:
        env[slot] = values.get(slot, torch.zeros(known.plan.graph.nodes[slot].sizes(rows), dtype=F64))
    return affine_link(step, known.plan.graph, set(), overrides).forward(env, rows, F64, CPU, linear=True)
