"""Walking segments through a network: intervals of tau on which all that was computed so far is affine in tau.

Every live node of an interval (lo, hi) is carried as its value at the middle and its derivative with respect to tau,
so that nothing is lost when an interval is short. At a spline operator the walls of the piece that is active in the
middle say where a unit leaves it; intervals are cut there until no unit changes inside one. The input is embedded
once: all cuts are made on the same numbers, so neighbouring intervals always meet.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maxaffine.errors import DegenerateSliceError
from maxaffine.operators.registry import SplineOperator
from maxaffine.program.graph import Ref
from maxaffine.program.links import AffineLink, affine_link
from maxaffine.program.plan import Plan, Step, operand_count, operator_of
from maxaffine.program.record import layout_of
from maxaffine.spline import Spline

CHUNK = 64 * 2**20  # bytes of the largest activation that intervals may take at once
ZERO = 1e-12  # a wall whose value and derivative are below this share of its scale is zero along the interval
TOUCH = 1e-13  # a wall that is overstepped by less than this share of its scale at an end is only touched there
SMALL = 1e-6  # walls below this share of the operand's scale are judged by the scale of their own unit
RESOLUTION = 2.0**-50  # no two knots are closer than this
NUDGE = 1e-10  # relative change of an input that turns rounding noise into other noise
PROBES = 8  # random inputs that tell the scale of a unit

Cuts = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]
Seen = Callable[[int, "Pieces", Tensor], None]
Done = Callable[["Pieces", Tensor, Tensor], None]


@dataclass(frozen=True)
class Pieces:
    """n intervals of segments in their order; values and slopes: node -> what it is at the middle, and d/dtau."""

    segment: Tensor
    lo: Tensor
    hi: Tensor
    values: dict[int, Tensor]
    slopes: dict[int, Tensor]

    def __len__(self) -> int:
        return len(self.lo)

    @cached_property
    def middle(self) -> Tensor:
        """(n,): where the values are taken."""
        return self.lo + (self.hi - self.lo) / 2


@dataclass(frozen=True)
class Operands:
    """What a spline operator is given on n intervals: its operands' values and slopes, its code in the middle."""

    step: Step
    operator: SplineOperator
    values: list[Any]
    slopes: list[Any]
    code: Tensor


class Walk:
    """Walks segments x0 + tau (x1 - x0), given as rows (S, *in), through a float64 spline.

    seen(k, pieces, code): the k-th spline operator has this code (n, units) on the pieces, in the order of tau.
    done(pieces, value, slope): the output (n, *out) on them. Both are called once for every chunk of pieces.
    """

    def __init__(self, spline: Spline, x0: Tensor, x1: Tensor, seen: Seen, done: Done) -> None:
        self.plan = Plan(spline.captured.graph)
        self.plan.require_piecewise_affine("a partition")
        self.x0, self.x1, self.seen, self.done = x0, x1, seen, done
        self.tensors = [source.read().detach() for source in spline.captured.sources]
        self.links = [s if s.operator >= 0 else affine_link(s, self.plan.graph, set()) for s in self.plan.steps]
        self.rows = max(1, CHUNK // (8 * _largest(self.plan, spline)))
        self._known: list[Any] | None = None
        self._known = self.constants(1)
        self._scales: dict[tuple[int, int], Tensor] = {}

    def __call__(self) -> None:
        """Walk all segments, those of one chunk together."""
        into, start = layout_of(self.plan, self.plan.start), self.plan.start
        ends = torch.zeros(len(self.x0), dtype=torch.float64, device=self.x0.device)
        for rows in torch.arange(len(self.x0), device=self.x0.device).split(self.rows):
            a, b = self.x0[rows], self.x1[rows]
            middle, slope = into.from_rows(a + (b - a) / 2), into.from_rows(b - a)
            self.run(0, Pieces(rows, ends[rows], ends[rows] + 1, {start: middle}, {start: slope}))

    def constants(self, rows: int) -> list[Any]:
        """The nodes that do not vary, for that many rows."""
        return self.plan.constants(self.tensors, rows, torch.float64, self.x0.device, self._known)

    def run(self, first: int, pieces: Pieces, cut: bool = True) -> None:
        """Push pieces through the links from `first` on; cut: that link may still bend inside a piece."""
        n, env = first, self.constants(len(pieces))
        while n < len(self.links):
            link = self.links[n]
            if isinstance(link, AffineLink):
                value, slope = (self._affine(link, pieces, env, linear) for linear in (False, True))
                self._write(pieces, link.step, value, slope)
            else:
                here = self._operands(link, pieces, env)
                parts = self._chunked(self.cuts(pieces, here)) if cut else []
                if parts:
                    cut = here.operator.pieces > 2  # a unit of two pieces changes only once on a line
                    for part in parts[:-1]:
                        self.run(n, _part(self.plan, pieces, *part), cut)
                    pieces = _part(self.plan, pieces, *parts[-1])
                    env = self.constants(len(pieces))
                    continue
                self.seen(link.operator, pieces, layout_of(self.plan, link.out).to_rows(here.code).flatten(1))
                self._write(pieces, link, *_selected(here))
            n, cut = n + 1, True
        end, layout = self.plan.ends[0], layout_of(self.plan, self.plan.ends[0])
        self.done(pieces, layout.to_rows(pieces.values[end]), layout.to_rows(pieces.slopes[end]))

    def _write(self, pieces: Pieces, step: Step, value: Tensor, slope: Tensor) -> None:
        pieces.values[step.out], pieces.slopes[step.out] = value, slope
        for slot in step.dead:
            del pieces.values[slot], pieces.slopes[slot]

    def _chunked(self, cuts: Cuts | None) -> list[tuple[Tensor, Tensor, Tensor]]:
        """The new intervals (parent, lo, hi) in chunks that fit in memory; none where nothing is to be cut."""
        if cuts is None:
            return []
        parent, lo, hi = (torch.from_numpy(a).to(self.x0.device) for a in cuts)
        count = -(-len(lo) // self.rows)
        return list(zip(parent.chunk(count), lo.chunk(count), hi.chunk(count), strict=True))

    def _affine(self, link: AffineLink, pieces: Pieces, env: list[Any], linear: bool) -> Tensor:
        live = pieces.slopes if linear else pieces.values
        for _, slot in link.step.live:
            env[slot] = live[slot]
        value = link.forward(env, len(pieces), torch.float64, self.x0.device, linear)
        for _, slot in link.step.live:
            env[slot] = None
        return value

    def _operands(self, step: Step, pieces: Pieces, env: list[Any]) -> Operands:
        live, values, slopes = {slot for _, slot in step.live}, [], []
        for arg in step.node.args[: operand_count(step)]:
            if type(arg) is Ref and arg.index in live:
                values.append(pieces.values[arg.index])
                slopes.append(pieces.slopes[arg.index])
            else:
                values.append(env[arg.index] if type(arg) is Ref else arg)
                slopes.append(values[-1].new_zeros(()))
        operator = operator_of(self.plan, step, step.arguments(env, len(pieces), torch.float64, self.x0.device))
        return Operands(step, operator, values, slopes, operator.code(*values))

    def walls(self, here: Operands, operands: Sequence[Any], linear: bool) -> Tensor:
        """(W, n, units): the walls of the pieces that are active in the middle, or their derivatives."""
        walls, layout = here.operator.walls(here.code, *operands, linear=linear), layout_of(self.plan, here.step.out)
        rows = torch.stack([layout.to_rows(wall) for wall in walls]) if layout.axis or layout.repeat > 1 else walls
        return rows.flatten(2) if rows.dim() > 2 else rows.unsqueeze(2)

    def cuts(self, pieces: Pieces, here: Operands) -> Cuts | None:
        """Where units leave their piece inside an interval: the new intervals (parent, lo, hi); None without any."""
        value, slope = self.walls(here, here.values, False).clamp(min=0), self.walls(here, here.slopes, True)
        scale, speed = self._scale(here, len(pieces)), slope.abs()
        bound, half = SMALL * scale[:, None], (pieces.hi - pieces.lo)[:, None] / 2
        small = (value <= bound) & (speed <= bound) & ((value > 0) | (speed > 0))
        self._verify(pieces, here, (value == 0) & (speed == 0))
        found = small | (value < speed * half)
        _, row, unit = found.nonzero().unbind(1)
        if len(row) == 0:
            return None
        small, value, slope, scale = small[found], value[found], slope[found], scale[row]
        if bool(small.any()):
            scale[small] = self._own(pieces, here, row[small], unit[small])
            zero = small & (value <= ZERO * scale) & (slope.abs() <= ZERO * scale)
            if bool(zero.any()):
                raise _inside_a_wall(pieces, here, int(row[zero][0]), int(unit[zero][0]))
        at = pieces.middle[row] - value / slope
        room = torch.minimum(at - pieces.lo[row], pieces.hi[row] - at)
        blur = (TOUCH * scale / slope.abs()).clamp(min=RESOLUTION)
        kept = room > blur  # never for a slope of zero: its blur is infinite
        if not bool(kept.any()):
            return None
        knots = merged(*(t[kept].cpu().numpy() for t in (row, at, blur)))
        return divided(pieces.lo.cpu().numpy(), pieces.hi.cpu().numpy(), *knots)

    def _verify(self, pieces: Pieces, here: Operands, zero: Tensor) -> None:
        """Walls that are exactly zero on the first, long intervals must be so at other points of them too.

        A unit whose wall the segment lies in may round to zero in the middle, and to something else beside it.
        """
        if len(pieces) > PROBES or not bool(zero.any()):
            return
        for share in (0.0625, 0.3, 0.71875, 0.9):
            tau = (pieces.lo + share * (pieces.hi - pieces.lo)).reshape(-1, *[1] * (self.x0.dim() - 1))
            a, b = self.x0[pieces.segment], self.x1[pieces.segment]
            there = replace(self._at(here.step, a + tau * (b - a)), code=here.code)
            wrong = (self.walls(there, there.values, False) != 0) & zero
            if bool(wrong.any()):
                raise _inside_a_wall(pieces, here, *wrong.nonzero()[0, 1:].tolist())

    def _scale(self, here: Operands, rows: int) -> Tensor:
        """(rows,): the largest entry of the operands, or of their derivatives."""
        live = {place[0]: layout_of(self.plan, slot) for place, slot in here.step.live}
        largest = torch.zeros(rows, dtype=torch.float64, device=self.x0.device)
        for i, (value, slope) in enumerate(zip(here.values, here.slopes, strict=True)):
            if i in live:
                for part in (value, slope):
                    largest = torch.maximum(largest, live[i].to_rows(part).flatten(1).abs().amax(1))
            else:
                largest = largest.clamp(min=float(value.abs().max()))
        return largest

    def _own(self, pieces: Pieces, here: Operands, row: Tensor, unit: Tensor) -> Tensor:
        """The scales of those units in those rows."""
        segments, place = pieces.segment[row].unique(return_inverse=True)
        table = torch.stack([self.unit_scale(here.step, int(s)) for s in segments])
        return table[place, unit]

    def unit_scale(self, step: Step, segment: int) -> Tensor:
        """(units,): the largest wall of each unit at random inputs around the segment.

        A unit whose weights are tiny is tiny there too, one that vanishes on the segment only is not. Where a nudge
        of the input changes a wall out of proportion it is rounding noise everywhere (two equal candidates computed
        in different ways), and the operand's scale serves instead.
        """
        if (step.out, segment) not in self._scales:
            a, b = self.x0[segment], self.x1[segment]
            size = max(float(v.square().mean().sqrt()) for v in (a, b, b - a))
            random = torch.randn(2, PROBES, *a.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
            base, nudge = size * random.to(a.device)
            here = self._at(step, a + (b - a) / 2 + base)
            walls = self.walls(here, here.values, False)
            moved = self.walls(here, self._at(step, a + (b - a) / 2 + base + NUDGE * nudge).values, False)
            largest, change = (
                torch.where(walls.isfinite(), wall.abs(), 0).flatten(0, 1).amax(0) for wall in (walls, moved - walls)
            )
            noise = change > SMALL * largest
            self._scales[step.out, segment] = torch.where(noise, self._scale(here, PROBES).max(), largest)
        return self._scales[step.out, segment]

    def _at(self, step: Step, x: Tensor) -> Operands:
        """What an operator is given at inputs x, by running the network itself."""
        env, rows = self.constants(len(x)), len(x)
        env[self.plan.start] = layout_of(self.plan, self.plan.start).from_rows(x)
        for before in self.plan.steps:
            if before.out == step.out:
                break
            env[before.out] = before.call(env, rows, torch.float64, x.device)
        operands = [env[a.index] if type(a) is Ref else a for a in step.node.args[: operand_count(step)]]
        operator = operator_of(self.plan, step, step.arguments(env, rows, torch.float64, x.device))
        return Operands(step, operator, operands, operands, operator.code(*operands))


def merged(
    row: NDArray[np.int64], at: NDArray[np.float64], blur: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Knots in the order of (row, tau); those that rounding cannot tell apart are one, where it is known best.

    >>> merged(np.zeros(3, int), np.array([0.5, 0.25, 0.5 + 1e-15]), np.array([1e-14, 1e-14, 1e-15]))[1] - 0.5
    array([-2.50000000e-01,  9.99200722e-16])
    """
    order = np.lexsort((at, row))
    row, at, blur = row[order], at[order], blur[order]
    new = np.r_[True, (np.diff(row) > 0) | (np.diff(at) > np.maximum(blur[1:], blur[:-1]))]
    group = np.cumsum(new) - 1
    best = np.lexsort((blur, group))[np.flatnonzero(new)]
    return row[best], at[best]


def divided(lo: NDArray[np.float64], hi: NDArray[np.float64], row: NDArray[np.int64], at: NDArray[np.float64]) -> Cuts:
    """The intervals (lo, hi) divided at the knots `at` of their rows: parent, lo, hi of the new ones.

    >>> [a.tolist() for a in divided(np.zeros(2), np.ones(2), np.array([1]), np.array([0.25]))]
    [[0, 1, 1], [0.0, 0.0, 0.25], [1.0, 0.25, 1.0]]
    """
    parent = np.repeat(np.arange(len(lo)), 1 + np.bincount(row, minlength=len(lo)))
    left, right = lo[parent], hi[parent]
    behind = np.flatnonzero(np.r_[False, parent[1:] == parent[:-1]])  # pieces that begin at a knot
    left[behind], right[behind - 1] = at, at
    return parent, left, right


def _part(plan: Plan, pieces: Pieces, parent: Tensor, lo: Tensor, hi: Tensor) -> Pieces:
    """Smaller intervals of the parents' rows: values go to the new middle, slopes stay."""
    shift = lo + (hi - lo) / 2 - pieces.middle[parent]
    values, slopes = {}, {}
    for slot, value in pieces.values.items():
        layout = layout_of(plan, slot)
        slope = layout.to_rows(pieces.slopes[slot])[parent]
        moved = torch.addcmul(layout.to_rows(value)[parent], slope, shift.reshape(-1, *[1] * (slope.dim() - 1)))
        values[slot], slopes[slot] = layout.from_rows(moved), layout.from_rows(slope)
    return Pieces(pieces.segment[parent], lo, hi, values, slopes)


def _selected(here: Operands) -> tuple[Tensor, Tensor]:
    """Value and slope of the active piece."""
    frozen = here.operator.freeze(here.code, torch.float64)
    return here.operator.piece(frozen, *here.values), here.operator.piece(frozen, *here.slopes, linear=True)


def _largest(plan: Plan, spline: Spline) -> int:
    """Entries of the largest tensor that one interval needs: an activation, or all walls of an operator."""
    return max([1, *(prod(step.node.sizes(1)) for step in plan.steps), *(o.units * o.pieces for o in spline.operators)])


def _inside_a_wall(pieces: Pieces, here: Operands, row: int, unit: int) -> DegenerateSliceError:
    lo, hi, segment = float(pieces.lo[row]), float(pieces.hi[row]), int(pieces.segment[row])
    return DegenerateSliceError(
        f"segment {segment} lies inside a wall: unit {unit} of operator {here.step.node.label!r} is zero up to "
        f"rounding for tau in [{lo:.6g}, {hi:.6g}], its code is not defined there; move an end point off the wall"
    )
