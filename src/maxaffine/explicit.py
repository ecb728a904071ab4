"""One operator of a captured network as an explicit MASO of what it reads: its parameters A and B."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import singledispatch
from itertools import pairwise
from math import prod

import torch
from torch import Tensor

from maxaffine.arguments import budget, require
from maxaffine.errors import InputError
from maxaffine.operators.composition import MEMORY, require_memory
from maxaffine.operators.elementwise import Elementwise
from maxaffine.operators.layers import concave_knot
from maxaffine.operators.maso import MASO
from maxaffine.operators.maximum import Pair, Windows
from maxaffine.operators.registry import Opaque, SplineOperator
from maxaffine.program.plan import Plan, Step, operand_count, operator_of
from maxaffine.program.record import layout_of
from maxaffine.spline import Spline
from maxaffine.types import Shape


@dataclass(frozen=True, eq=False)
class Operand:
    """One operand as U affine functions of D inputs: A (U, D), b (U,), and the number of each entry."""

    A: Tensor
    b: Tensor
    number: Tensor


@dataclass(frozen=True, eq=False)
class Piece:
    """A piece of every unit, shaped like the output: slope times an operand's entry `number`, plus offset."""

    operand: int
    number: Tensor
    slope: Tensor
    offset: Tensor


def maso_of(spline: Spline, name: str, *, memory: int = MEMORY) -> MASO:
    """An operator and the affine operations before it as one explicit MASO.

    Its input is the flattened output of the one spline operator that is read (or the network's input), its
    output the flattened units: linear + ReLU has R = 2, a max-pooling right behind a ReLU R = #R_k. The
    pieces are numbered as in spline.code, except that windows with padding count real candidates only.

    Raises:
        InputError: no such operator; it reads several spline operators; or it is not convex (a minimum, or a
            concave knot, which is named).
        MemoryBudgetError: A would need more than `memory` bytes.
        NotPiecewiseAffineError: what it reads is smooth or discontinuous.

    >>> import maxaffine as ma
    >>> net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU())
    >>> maso = maso_of(ma.Spline(net, torch.zeros(1, 3)), "1")
    >>> (maso.K, maso.R, maso.D), torch.equal(maso.A[:, 1], net[0].weight)
    ((4, 2, 3), True)

    Source: Balestriero and Baraniuk, 2018, arXiv 1805.06576, section 4.
    """
    require(spline, Spline, "spline", "maxaffine.Spline(model, example)")
    require(name, str, "name", "the name of a spline operator")
    plan = Plan(spline.captured.graph)
    step = next((s for s in plan.steps if s.operator >= 0 and s.node.label == name), None)
    if step is None:
        known = ", ".join(operator.name for operator in spline.operators)
        raise InputError(f"maso_of: {name!r} is no spline operator of this network; there are: {known}")
    source = the_source(plan, step)
    arguments = constants(spline, plan, step)
    operator = operator_of(plan, step, arguments)
    size = prod(plan.graph.nodes[step.out].sizes(1)) * operator.pieces
    inputs = prod(plan.graph.nodes[source].sizes(1))
    K, R = size // operator.pieces, operator.pieces
    require_memory(float(size * inputs * spline.dtype.itemsize), K, R, inputs, budget(memory, MEMORY))
    reads = [operand(spline, plan, step, source, place, arguments[place]) for place in range(operand_count(step))]
    slopes, offsets = [], []
    for part in pieces(operator, *(read.number for read in reads)):
        read, number = reads[part.operand], flat(plan, step, part.number).long()
        slope, offset = (flat(plan, step, value).to(read.A.dtype) for value in (part.slope, part.offset))
        slopes.append(slope[:, None] * read.A[number])
        offsets.append(slope * read.b[number] + offset)
    return MASO(torch.stack(slopes, dim=1), torch.stack(offsets, dim=1))


def the_source(plan: Plan, step: Step) -> int:
    """The one node (a spline operator's output, or the input) that a step reads through affine operations."""
    steps = {s.out: s for s in plan.steps}
    found, waiting = set(), [slot for _, slot in step.live]
    while waiting:
        slot = waiting.pop()
        if slot in steps and type(steps[slot].rule) is Opaque:
            Plan(plan.graph, [step.out]).require_piecewise_affine(f"the MASO of {step.node.label!r}")
        if slot not in steps or steps[slot].operator >= 0:
            found.add(slot)
        else:
            waiting += [j for _, j in steps[slot].live]
    if len(found) > 1:
        names = " and ".join(steps[j].node.label if j in steps else "the input" for j in sorted(found))
        raise InputError(f"maso_of: {step.node.label!r} reads {names}: it is no MASO of one operator's output")
    return found.pop()


def constants(spline: Spline, plan: Plan, step: Step) -> list:
    """The arguments of a step, None in the place of the live ones."""
    tensors = [source.read().detach() for source in spline.captured.sources]
    env = plan.constants(tensors, 1, spline.dtype, spline.device)
    for _, slot in step.live:
        env[slot] = None
    return list(step.arguments(env, 1, spline.dtype, spline.device))


def operand(spline: Spline, plan: Plan, step: Step, source: int, place: int, value: Tensor | float | None) -> Operand:
    """One operand as affine functions of the source; a constant one has A = 0."""
    slot = next((j for position, j in step.live if position == (place,)), None)
    inputs = prod(plan.graph.nodes[source].sizes(1))
    if slot is None:
        b = torch.as_tensor(value, dtype=spline.dtype, device=spline.device).detach()
        return Operand(b.new_zeros(b.numel(), inputs), b.flatten(), numbers(b.shape).to(b.device))
    x = torch.zeros(1, *spline.in_shape, dtype=spline.dtype, device=spline.device)
    start = None if source == plan.start else step_name(plan, source)
    f = spline.at(x, input=start, output=(step.node.label, place))
    layout = layout_of(plan, slot)
    number = layout.from_rows(numbers((1, *layout.unit_shape(plan.graph.nodes[slot].shape))))
    return Operand(f.A.reshape(-1, inputs), f.b.flatten(), number.to(x.device))


def step_name(plan: Plan, node: int) -> str:
    """The name of the operator whose output a node is."""
    return plan.graph.nodes[node].label


def numbers(shape: Shape) -> Tensor:
    """0, 1, 2 ... in that shape; float64, so that every operator takes it."""
    return torch.arange(prod(shape), dtype=torch.float64).reshape(shape)


def flat(plan: Plan, step: Step, value: Tensor) -> Tensor:
    """(*out) of one row -> (K,)."""
    shape = plan.graph.nodes[step.out].sizes(1)
    return layout_of(plan, step.out).to_rows(value.expand(shape)).flatten()


@singledispatch
def pieces(operator: SplineOperator, *numbers: Tensor) -> Iterator[Piece]:
    """The pieces of an operator, given the numbers of its operands' entries."""
    raise InputError(f"maso_of: {operator.name} is neither an elementwise function nor a maximum over {len(numbers)}")


@pieces.register
def _(operator: Elementwise, number: Tensor) -> Iterator[Piece]:
    knots, slopes, offsets = (
        [torch.as_tensor(v, dtype=number.dtype, device=number.device).detach().expand(number.shape) for v in levels]
        for levels in (operator.knots, operator.slopes, operator.offsets)
    )
    for r, (before, after) in enumerate(pairwise(slopes)):
        if (falls := after < before).any():
            unit = tuple(falls.nonzero()[0].tolist())
            at, through = (torch.stack([v[unit] for v in levels]) for levels in (knots, slopes))
            raise InputError(f"maso_of: {operator.name}: {concave_knot(at, through, r)}")
    yield from (Piece(0, number, s, o) for s, o in zip(slopes, offsets, strict=True))


@pieces.register
def _(operator: Windows, number: Tensor) -> Iterator[Piece]:
    refuse_minimum(operator)
    inside, entries = operator.inside.to(number.device), operator.flat(number)
    order = (~inside).long().argsort(dim=1, stable=True)  # the real candidates first
    last = inside.sum(1, keepdim=True)
    for r in range(int(last.max())):
        chosen = order[:, r : r + 1].where(r < last, order[:, :1])  # a short window repeats its first candidate
        place = (operator.base.to(number.device) + operator.step.to(number.device)[chosen[:, 0]]).expand(
            *entries.shape[:-1], -1
        )
        picked = operator.shape_out(entries.gather(-1, place))
        yield Piece(0, picked, torch.ones_like(picked), torch.zeros_like(picked))


@pieces.register
def _(operator: Pair, first: Tensor, second: Tensor) -> Iterator[Piece]:
    refuse_minimum(operator)
    for place, number in enumerate(torch.broadcast_tensors(first, second)):
        yield Piece(place, number, torch.ones_like(number), torch.zeros_like(number))


def refuse_minimum(operator: Windows | Pair) -> None:
    """A minimum is concave."""
    if operator.sign < 0:
        raise InputError(f"maso_of: {operator.name} is a minimum, concave: take the MASO of the negated values")
