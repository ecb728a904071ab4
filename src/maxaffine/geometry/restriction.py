"""A spline on a plane as a ReluNet: the graph is run once on the coefficients of (1, s, t) and of the units so far.

Every value is carried as rows (3 + u, *shape): its coefficients of 1, s, t and of relu(z_0) ... relu(z_{u-1}), the
units that can switch in the domain. Affine operations act row by row. At a spline operator the units that sound bounds
prove to stay on one piece act as that piece; the others are lowered to ReLUs, which become units:

    sigma(z) = s_p z + o_p + sum over knots i that z can cross of (s_{i+1} - s_i) relu(z - t_i),
    max(a, b) = a + relu(b - a),   a maximum over R candidates by a tournament of those that can win.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maxaffine.errors import InputError
from maxaffine.geometry.convolving import fast_links
from maxaffine.geometry.relunet import PAIR, RESIDUE, ReluNet, Units
from maxaffine.geometry.rows import Rows, spread
from maxaffine.geometry.scales import SMALL, ZERO
from maxaffine.geometry.tournament import play
from maxaffine.operators.elementwise import Elementwise
from maxaffine.operators.maximum import Pair, Windows
from maxaffine.program.links import AffineLink
from maxaffine.program.plan import Plan, Step, operand_count, operator_of
from maxaffine.program.record import layout_of
from maxaffine.types import Level, flat


class Beside(Protocol):
    """What the units are beside the slice: see vanishing.Surroundings."""

    def scale(self, operator: int) -> Tensor:
        """(units,): how large each unit of an operator is there."""
        ...

    def require_no_wall(self, operator: int, points: NDArray[np.float64], units: NDArray[np.int64]) -> None:
        """Raise DegenerateSliceError where a unit, zero at points (n, 2) of the plane, changes beside the plane."""
        ...


def restrict(plan: Plan, tensors: Sequence[Tensor], embedding: Tensor, corners: Tensor, beside: Beside) -> ReluNet:
    """The network of the plan on the points e_0 + s e_1 + t e_2 with (s, t) in the convex hull of the corners.

    embedding: (3, *in) rows e_0, e_1, e_2. corners: (C, 2). All float64. Raises InputError for an operator that was
    registered without knots and slopes, DegenerateSliceError when the slice lies inside a wall up to rounding.
    """
    units = Units(torch.cat([torch.ones(len(corners), 1, dtype=torch.float64), corners], 1))
    device = embedding.device
    shared = plan.constants(tensors, 1, torch.float64, device)
    env: dict[int, Rows] = {plan.start: Rows(embedding)}
    last = _last_use(plan)
    for link in fast_links(plan, shared):
        if isinstance(link, AffineLink):
            env[link.out] = _affine(plan, tensors, link, env, shared)
        else:
            env[link.out] = _spline(plan, link, env, shared, units, beside)
        for slot in last.get(link.out, ()):
            env.pop(slot, None)
    return _net(units, flat(env[plan.ends[0]].full()))


def _net(units: Units, out: Tensor) -> ReluNet:
    total, count = units.count, units.count + out.shape[1]
    A, V = np.zeros((count, 3)), np.zeros((count, total))
    first = 0
    for rows in [*units.rows, out]:
        stop = first + rows.shape[1]
        A[first:stop], V[first:stop, : len(rows) - 3] = rows[:3].T.numpy(), rows[3:].T.numpy()
        first = stop
    meaning = _joined(units.meaning, torch.zeros(4, 0, dtype=torch.int64), 1)
    return ReluNet(
        A,
        V,
        np.array(units.levels),
        _joined(units.magnitude, torch.zeros(0, dtype=torch.float64)),
        *meaning,
        last=_joined(units.last, torch.zeros(0, dtype=torch.int64)),
        kind=_joined(units.kind, torch.zeros(0, dtype=torch.int64)),
        roots=_joined(units.roots, torch.zeros(0, 3, dtype=torch.int64)),
        base=tuple(b.numpy() for b in units.base),
    )


def _joined(parts: list[Tensor], empty: Tensor, dim: int = 0) -> Any:
    return torch.cat([empty, *parts], dim).numpy()


def _last_use(plan: Plan) -> dict[int, list[int]]:
    last = {slot: step.out for step in plan.steps for _, slot in step.live}
    dead: dict[int, list[int]] = {}
    for slot, out in last.items():
        if slot not in plan.ends:
            dead.setdefault(out, []).append(slot)
    return dead


def _affine(plan: Plan, tensors: Sequence[Tensor], link: AffineLink, env: dict[int, Rows], shared: list[Any]) -> Rows:
    """The affine operation on the constant row, its linear part on the others."""
    slots = [slot for _, slot in link.step.live]
    into, out = layout_of(plan, slots[0]), layout_of(plan, link.out)
    single = env[slots[0]] if len(slots) == 1 and into.plain and out.plain and not link.per_row else None
    tail = None
    if single is not None and len(single.places):
        args = link.step.arguments(_with(shared, slots[0]), 1, torch.float64, single.dense.device)
        args = [link.overrides.get(i, a) for i, a in enumerate(args)]
        tail = spread(link.step.node.op, single, args, out.unit_shape(plan.graph.nodes[link.out].shape))
    count = max(len(env[slot]) for slot in slots) if tail is None else len(env[slots[0]].dense)
    found = []
    for rows, linear in ((slice(0, 1), False), (slice(1, count), True)):
        n = rows.stop - rows.start
        full = plan.constants(tensors, n, torch.float64, env[slots[0]].dense.device, shared)
        for slot in slots:
            value = env[slot].dense if tail is not None else env[slot].full(count)
            full[slot] = layout_of(plan, slot).from_rows(value[rows])
        found.append(out.to_rows(link.forward(full, n, torch.float64, env[slots[0]].dense.device, linear)))
    if isinstance(tail, Rows):
        return Rows(torch.cat(found), tail.places, tail.values)
    return Rows(torch.cat(found if tail is None else [*found, tail]))


def _with(shared: list[Any], slot: int) -> list[Any]:
    known = list(shared)
    known[slot] = torch.zeros(())
    return known


def _padded(rows: Tensor, count: int) -> Tensor:
    return rows if len(rows) == count else torch.cat([rows, rows.new_zeros(count - len(rows), *rows.shape[1:])])


def _spline(plan: Plan, step: Step, env: dict[int, Rows], shared: list[Any], units: Units, beside: Beside) -> Rows:
    known = list(shared)
    for _, slot in step.live:
        known[slot] = layout_of(plan, slot).from_rows(env[slot].dense[:1])
    arguments = step.arguments(known, 1, torch.float64, torch.device("cpu"))
    operator = operator_of(plan, step, arguments)
    live = {place[0]: slot for place, slot in step.live}
    shape = layout_of(plan, step.out).unit_shape(step.node.shape)
    if isinstance(operator, Elementwise):
        rows = env[live[0]].full()  # bounds may be larger than it
        out = _elementwise(plan, step, operator, flat(rows.expand(len(rows), *shape)), units, beside)
        return Rows(out.dense.reshape(-1, *shape), out.places, out.values)
    if isinstance(operator, Pair):
        count = max(len(env[slot]) for slot in live.values())
        operands = [env[live[i]].full() if i in live else None for i in range(operand_count(step))]
        sides = [_side(plan, step, arguments[i], rows, count) for i, rows in enumerate(operands)]
        return Rows(_pair(step, operator, *sides, units=units).reshape(-1, *shape))
    if isinstance(operator, Windows):
        index, inside = _candidates(plan, step, live[0], operator)
        best = play(units, step.operator, operator.sign * flat(env[live[0]].full()), index, inside)
        return Rows((operator.sign * best).reshape(-1, *shape))
    raise InputError(
        f"{step.node.label}: the operator {operator.name!r} is registered without knots and slopes, so it cannot be "
        "cut on a plane; declare it with maxaffine.declare(knots, slopes)"
    )


def _side(plan: Plan, step: Step, value: Any, rows: Tensor | None, count: int) -> Tensor:
    """One operand of a maximum of two as rows (count, n); a constant one has a constant row only."""
    shape = layout_of(plan, step.out).unit_shape(step.node.shape)
    if rows is None:
        whole = torch.as_tensor(value, dtype=torch.float64).expand(step.node.sizes(1))
        rows = layout_of(plan, step.out).to_rows(whole)
    return _padded(rows.expand(len(rows), *shape).reshape(len(rows), -1), count)


def _levels(plan: Plan, step: Step, levels: Sequence[Level]) -> Tensor:
    """(len(levels), n): numbers or broadcast tensors, unit by unit."""
    layout, sizes = layout_of(plan, step.out), step.node.sizes(1)
    spread = [torch.as_tensor(v, dtype=torch.float64).expand(sizes) for v in levels]
    return torch.stack([layout.to_rows(v).flatten() for v in spread])


def _elementwise(plan: Plan, step: Step, operator: Elementwise, rows: Tensor, units: Units, beside: Beside) -> Rows:
    knots, slopes, offsets = (_levels(plan, step, v) for v in (operator.knots, operator.slopes, operator.offsets))
    low, high = units.enclosure.bounds(rows)
    floor, noise = _next_to_nothing(step, rows, knots, low, high, units, beside)
    first = ((knots < low) & ~noise).sum(0)  # knots surely passed
    can = (knots >= low) & (knots < high) & ~noise  # knots that may be crossed
    units.base.append(first)
    place, unit = can.nonzero(as_tuple=True)
    operands = rows[:, unit].clone()
    operands[0] -= knots[place, unit]
    before = units.count
    units.add(operands, step.operator, unit, floor=floor[place, unit])
    dense = torch.zeros(3 + before, rows.shape[1], dtype=torch.float64)
    dense[: len(rows)] = rows * slopes.gather(0, first[None])
    dense[0] += offsets.gather(0, first[None])[0]
    return Rows(dense, unit, (slopes[1:] - slopes[:-1])[place, unit])


def _next_to_nothing(
    step: Step, rows: Tensor, knots: Tensor, low: Tensor, high: Tensor, units: Units, beside: Beside
) -> tuple[Tensor, Tensor]:
    """(k, n) the least magnitude of each unit's distance from each knot, and where that is zero but for rounding.

    What is left when all but rounding cancelled knows nothing of its own rounding; its scale beside the slice does.
    """
    floor, noise = torch.zeros_like(knots), torch.zeros_like(knots, dtype=torch.bool)
    reach = torch.maximum(high - knots, knots - low)
    place, unit = (reach < SMALL * torch.maximum(-low, high).max()).nonzero(as_tuple=True)
    rest = rows[:, unit].clone()
    rest[0] -= knots[place, unit]
    some = (rest != 0).any(0)
    if not bool(some.any()):
        return floor, noise
    place, unit, rest = place[some], unit[some], rest[:, some]
    own = beside.scale(step.operator)[unit]
    floor[place, unit] = RESIDUE * own
    below, above = units.enclosure.bounds(rest)
    nothing = torch.maximum(-below, above) <= ZERO * own
    zero = unit[nothing].numpy()
    if len(zero):
        middle = units.enclosure.corners[:, 1:].mean(0).numpy()
        beside.require_no_wall(step.operator, np.tile(middle, (len(zero), 1)), zero)
    noise[place[nothing], unit[nothing]] = True
    return floor, noise


def _pair(step: Step, operator: Pair, a: Tensor, b: Tensor, units: Units) -> Tensor:
    """max(a, b) = a + relu(b - a), min(a, b) = a - relu(a - b)."""
    difference, floor = units.difference(operator.sign * a, operator.sign * b)
    low, high = units.enclosure.bounds(difference)
    wins, can = low > 0, (low <= 0) & (high > 0)
    units.base.append(wins.long())
    unit = can.nonzero(as_tuple=True)[0]
    numbers = units.add(difference[:, unit], step.operator, unit, kind=PAIR, floor=floor[unit])
    out = torch.zeros(3 + units.count, a.shape[1], dtype=torch.float64)
    out[: len(a)] = torch.where(wins, b, a)
    out[3 + numbers, unit] = float(operator.sign)
    return out


def _candidates(plan: Plan, step: Step, slot: int, windows: Windows) -> tuple[Tensor, Tensor]:
    """(W, R) for each window: flat positions of its candidates in a row of the operand, and which are inside."""
    into, out = layout_of(plan, slot), layout_of(plan, step.out)
    shape = into.unit_shape(plan.graph.nodes[slot].shape)
    numbers = torch.arange(torch.Size(shape).numel()).reshape(1, *shape)
    flat = windows.flat(into.from_rows(numbers))
    index, inside = [], []
    for r in range(windows.pieces):
        position = (windows.base + windows.step[r]).clamp(0, flat.shape[-1] - 1)
        real = windows.inside[:, r].expand(*flat.shape[:-1], -1)
        index.append(out.to_rows(windows.shape_out(flat[..., position])).flatten())
        inside.append(out.to_rows(windows.shape_out(real)).flatten())
    return torch.stack(index, 1), torch.stack(inside, 1)
