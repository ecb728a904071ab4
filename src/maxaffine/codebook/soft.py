"""A smooth stand-in for the code distance: differentiable, and not the distance."""

from collections.abc import Sequence
from functools import singledispatch
from itertools import pairwise

import torch
from torch import Tensor

from maxaffine import arguments
from maxaffine.codebook.steps import built, step_of
from maxaffine.errors import InputError
from maxaffine.operators.elementwise import Elementwise
from maxaffine.operators.maximum import Pair, Windows
from maxaffine.operators.registry import SplineOperator
from maxaffine.program.plan import Plan, operand_count
from maxaffine.program.record import layout_of
from maxaffine.spline import Spline
from maxaffine.types import Names, flat


def soft_distance(
    spline: Spline, x: Tensor, y: Tensor, operators: Names | None = None, *, temperature: float = 1.0
) -> Tensor:
    """A surrogate of the code distance that can be differentiated in x, y and the weights, (N,) from 0 to 1.

    Each unit's code is relaxed to probabilities p_r of its pieces: sigmoid(z / T) of the pre-activation for a ReLU,
    differences of sigmoids((z - knot) / T) for several knots, softmax(candidates / T) for a maximum. A unit counts
    1/2 sum_r |p_r(x) - p_r(y)|, the total variation. The result is NOT `distance`: it depends on the scale of
    pre-activations and on T, but not on being in one cell. It tends to `distance` as T -> 0 (where nothing is on a
    wall), and is 0 for x = y, symmetric, and obeys the triangle inequality. Between cells the gradient is exact.

    Raises InputError for an operator whose pieces cannot be relaxed, NotPiecewiseAffineError.

    >>> import maxaffine as ma
    >>> spline = ma.Spline(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.ReLU()), torch.zeros(1, 2))
    >>> x, y = torch.tensor([[3.0, 2.0]]), torch.tensor([[-3.0, 2.0]])
    >>> [round(soft_distance(spline, x, y, temperature=t).item(), 3) for t in (1.0, 0.1)]
    [0.453, 0.5]
    """
    sharpness = arguments.number(temperature, "temperature")
    if sharpness <= 0:
        raise InputError(f"temperature is {temperature}; give a number > 0 (maxaffine.distance is the limit 0)")
    if len(x) != len(y):
        raise InputError(f"x has {len(x)} inputs and y {len(y)}; they are compared row by row")
    every = [operator.name for operator in spline.operators]
    names = every if operators is None else arguments.names(operators, "operators")
    if not names:
        raise InputError("a distance needs at least one spline operator")
    total, units = torch.zeros(len(x), dtype=spline.dtype, device=spline.device), 0
    for name in names:
        p, q = (_relaxed(spline, rows, name, sharpness) for rows in (x, y))
        total = total + flat((p - q).abs().sum(0)).sum(1) / 2
        units += flat(p[0]).shape[1]
    return total / units


def _relaxed(spline: Spline, x: Tensor, name: str, temperature: float) -> Tensor:
    """(R, N, *units): the probabilities of the pieces at x."""
    plan = Plan(spline.captured.graph)
    step = step_of(spline, plan, name)
    live = {position[0]: slot for position, slot in step.live}
    if len(live) < operand_count(step):
        raise InputError(f"soft_distance: {name!r} compares with a constant; leave it out of operators")
    values = []
    for place, slot in sorted(live.items()):
        f = spline.at(x, output=(name, place), create_graph=True)
        values.append(layout_of(plan, slot).from_rows(f(x)))
    out = layout_of(plan, step.out)
    return torch.stack([out.to_rows(p) for p in probabilities(built(spline, plan, step), values, temperature)])


@singledispatch
def probabilities(operator: SplineOperator, operands: Sequence[Tensor], temperature: float) -> Sequence[Tensor]:  # noqa: ARG001
    """How probable each piece is when the choice is softened; they sum to 1 in every unit."""
    raise InputError(f"soft_distance: the pieces of {operator.name} cannot be relaxed; leave it out of operators")


@probabilities.register
def _(operator: Elementwise, operands: Sequence[Tensor], temperature: float) -> Sequence[Tensor]:
    z = operands[0]
    above = [torch.sigmoid((z - knot) / temperature) for knot in operator.knots]
    ends = [torch.ones_like(z), *above, torch.zeros_like(z)]
    return [a - b for a, b in pairwise(ends)]


@probabilities.register
def _(operator: Windows, operands: Sequence[Tensor], temperature: float) -> Sequence[Tensor]:
    entries = operator.flat(operands[0])
    place = operator.base[:, None] + operator.step
    last = entries.shape[-1] - 1
    candidates = entries[..., place.clamp(0, last).to(entries.device)]
    outside = ~operator.inside.to(entries.device)
    scores = (operator.sign * candidates / temperature).masked_fill(outside, -torch.inf)
    return [operator.shape_out(p) for p in scores.softmax(-1).unbind(-1)]


@probabilities.register
def _(operator: Pair, operands: Sequence[Tensor], temperature: float) -> Sequence[Tensor]:
    first, second = torch.broadcast_tensors(*operands)
    p = torch.sigmoid(operator.sign * (second - first) / temperature)
    return [1 - p, p]
