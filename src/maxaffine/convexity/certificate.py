"""The certificate that a whole network is convex in its input (one MASO), or the reason why not."""

from dataclasses import dataclass
from functools import singledispatch

import torch
from torch import Tensor

from maxaffine import arguments
from maxaffine.convexity.curvature import (
    Curvature,
    Curvatures,
    changes,
    count,
    curvatures,
    operand,
    weight_place,
)
from maxaffine.operators.affine import Affine
from maxaffine.operators.elementwise import Elementwise
from maxaffine.operators.layers import concave_knot
from maxaffine.operators.maximum import Pair, Windows
from maxaffine.operators.registry import SplineOperator
from maxaffine.program.plan import Plan, Step, operator_of
from maxaffine.spline import Spline
from maxaffine.types import on_cpu


@dataclass(frozen=True)
class Certificate:
    """Whether every output is certified convex in the input, and why (not); as a bool it is `convex`."""

    convex: bool
    reason: str

    def __bool__(self) -> bool:
        return self.convex


def is_convex(spline: Spline) -> Certificate:
    """Certify that a network is globally convex in its input, that is one MASO (Theorem 2).

    Sufficient, and decided entry by entry along the graph: weights >= 0 wherever they meet something convex
    that is not affine, convex activations that do not decrease there, maxima and averages. The first layer,
    and whatever reads the input through affine operations only, is free. A false one names what breaks it.

    Raises:
        NotPiecewiseAffineError: the network has a smooth or discontinuous operation.

    >>> import maxaffine as ma
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    >>> _ = net[2].weight.data.abs_()
    >>> bool(is_convex(ma.Spline(net, torch.zeros(1, 2))))
    True
    >>> _ = net[2].weight.data[0, 1].fill_(-0.5)
    >>> is_convex(ma.Spline(net, torch.zeros(1, 2))).reason
    '2: weight[0, 1] = -0.5 is negative and meets a value that is convex but not affine'

    Source: Balestriero and Baraniuk, 2018, arXiv 1805.06576, Theorem 2.
    """
    arguments.require(spline, Spline, "spline", "maxaffine.Spline(model, example)")
    captured = spline.to(torch.float64).to("cpu").captured
    plan = Plan(captured.graph)
    plan.require_piecewise_affine("convexity")
    with on_cpu():
        known = curvatures(plan, [source.read().detach() for source in captured.sources])
        output = known.found.get(captured.graph.output)
        if output is None or not output.not_convex.any():
            return Certificate(True, "every output is a maximum of affine functions of the input")
        return Certificate(False, reason(known, captured.graph.output))


def reason(known: Curvatures, output: int) -> str:
    """Where convexity was lost: back along what is neither convex nor concave, then along what is concave."""
    steps = {step.out: step for step in known.plan.steps}
    step = origin(known, steps, output, neither=True)
    if found := blame(known, step):
        return found
    step = origin(known, steps, step.out, neither=False)
    return blame(known, step) or f"{place(step)}: its result is not certified convex"


def origin(known: Curvatures, steps: dict[int, Step], node: int, neither: bool) -> Step:
    """The earliest step on the way to a node whose result has the defect while its operands have not."""

    def defect(u: Curvature) -> bool:
        return bool((u.neither if neither else u.not_convex).any())

    while True:
        worse = [slot for _, slot in steps[node].live if slot in steps and defect(known.found[slot])]
        if not worse or not defect(known.found[node]):
            return steps[node]
        node = worse[0]


def place(step: Step) -> str:
    """Where a step is in the model."""
    return step.node.module or step.node.label or step.node.op


def blame(known: Curvatures, step: Step) -> str | None:
    """What a step does to lose convexity; None when its operand was concave already."""
    if type(step.rule) is not Affine:
        operator = operator_of(known.plan, step, known.arguments(step))
        said = objection(operator, *(operand(known, step, i) for i in range(count(operator))))
        return said and f"{place(step)}: {said}"
    weight = weight_place(step)
    bent = [known.found[slot] for _, slot in step.live]
    if any(bool(u.not_convex.any()) for u in bent):
        return None
    what = f"a negative factor of {step.node.op}"
    if weight is not None:
        what = worst_weight(known.arguments(step)[weight], bent[0].not_concave, step.node.op)
    return f"{place(step)}: {what} is negative and meets a value that is convex but not affine"


def worst_weight(weight: Tensor, bent: Tensor, op: str) -> str:
    """The first negative weight on a bent channel (linear, plain convolution), else the most negative."""
    negative = weight < 0
    if op == "aten.linear.default":
        negative = negative & bent.reshape(-1, bent.shape[-1]).any(0)
    elif op.startswith("aten.conv") and bent.shape[1] == weight.shape[1]:
        channels = bent.movedim(1, 0).flatten(1).any(1)
        negative = negative & channels.reshape(1, -1, *[1] * (weight.dim() - 2))
    at = (
        negative.nonzero()[0].tolist()
        if negative.any()
        else [int(i) for i in torch.unravel_index(weight.argmin(), weight.shape)]
    )
    return f"weight[{', '.join(map(str, at))}] = {weight[tuple(at)].item():g}"


@singledispatch
def objection(operator: SplineOperator, *operands: Curvature) -> str | None:  # noqa: ARG001
    """What a spline operator does to lose convexity; None when its operand was concave already."""
    return f"{operator.name} is an operator of which nothing is assumed"


@objection.register(Windows)
@objection.register(Pair)
def _(operator: Windows | Pair, *operands: Curvature) -> str | None:  # noqa: ARG001
    return f"{operator.name} is a minimum: concave" if operator.sign < 0 else None


@objection.register
def _(operator: Elementwise, u: Curvature) -> str | None:
    _, falls = changes(operator, u)
    shape = u.bent.shape
    if falls.any():
        unit = falls.nonzero()[0].tolist()
        knots, slopes = (
            torch.stack([torch.as_tensor(v, dtype=torch.float64).expand(shape)[tuple(unit)] for v in levels])
            for levels in (operator.knots, operator.slopes)
        )
        return f"{operator.name}: {concave_knot(knots, slopes, int((slopes.diff() < 0).nonzero()[0]))}"
    if (u.not_concave & ~u.not_convex).any():
        return f"{operator.name} decreases on a piece, and its operand is convex but not affine"
    return None
