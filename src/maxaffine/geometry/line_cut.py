"""Walking segments through a network: intervals of tau are cut until no unit of the next operator changes inside one.

At a spline operator the walls of the piece that is active in the middle of an interval say where each unit leaves it.
The input is embedded once: all cuts are made on the same numbers, so neighbouring intervals always meet.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maxaffine.errors import DegenerateSliceError
from maxaffine.geometry.line_network import Network, Operands, Pieces
from maxaffine.geometry.line_scan import Near, near_knot, simple
from maxaffine.geometry.scales import PROBES, SMALL, ZERO, unit_scale
from maxaffine.program.links import AffineLink
from maxaffine.program.plan import Step
from maxaffine.program.record import layout_of
from maxaffine.spline import Spline
from maxaffine.types import flat

CHUNK = 16 * 2**20  # bytes of the largest activation that intervals may take at once
TOUCH = 1e-13  # a wall that is overstepped by less than this share of its scale at an end is only touched there
RESOLUTION = 2.0**-50  # no two knots are closer than this

Cuts = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]
Seen = Callable[[int, Pieces, Tensor], None]
Done = Callable[[Pieces, Tensor, Tensor], None]


class Walk:
    """Walks segments x0 + tau (x1 - x0), given as rows (S, *in), through a float64 spline.

    seen(k, pieces, code): the k-th spline operator has this code (n, units) on the pieces, in the order of tau.
    done(pieces, value, slope): the output (n, *out) on them. Both are called once for every chunk of pieces.
    """

    def __init__(self, spline: Spline, x0: Tensor, x1: Tensor, seen: Seen, done: Done) -> None:
        self.net, self.x0, self.x1, self.seen, self.done = Network(spline), x0, x1, seen, done
        self.rows = max(1, CHUNK // (8 * self.net.largest))
        self._scales: dict[tuple[int, int], Tensor] = {}

    def __call__(self) -> None:
        """Walk all segments, those of one chunk together."""
        for rows in torch.arange(len(self.x0), device=self.x0.device).split(self.rows):
            a, b = self.x0[rows], self.x1[rows]
            self.run(0, self.net.begin(rows, a + (b - a) / 2, b - a))

    def run(self, first: int, pieces: Pieces, cut: bool = True) -> None:
        """Push pieces through the links from `first` on; cut: that link may still bend inside a piece."""
        net, n, env = self.net, first, self.net.constants(len(pieces))
        while n < len(net.links):
            link = net.links[n]
            if isinstance(link, AffineLink):
                net.affine(link, pieces, env)
            else:
                here = net.operands(link, pieces, env)
                settled, cuts = self.cuts(pieces, here) if cut else (here, None)
                if cuts is not None:
                    cut = here.operator.pieces > 2 or settled is not here  # two pieces change once on a line
                    *parts, last = self._chunked(cuts)
                    for part in parts:
                        self.run(n, net.part(pieces, *part), cut)
                    pieces = net.part(pieces, *last)
                    env = net.constants(len(pieces))
                    continue
                self.seen(link.operator, pieces, flat(net.rows(link.out, settled.code)))
                net.select(settled, pieces)
            n, cut = n + 1, True
        end = net.plan.ends[0]
        self.done(pieces, net.rows(end, pieces.values[end]), net.rows(end, pieces.slopes[end]))

    def _chunked(self, cuts: Cuts) -> list[tuple[Tensor, ...]]:
        """The new intervals (parent, lo, hi) in chunks that fit in memory."""
        count = -(-len(cuts[0]) // self.rows)
        return list(zip(*(torch.from_numpy(a).to(self.x0.device).chunk(count) for a in cuts), strict=True))

    def cuts(self, pieces: Pieces, here: Operands) -> tuple[Operands, Cuts | None]:
        """Where units leave their piece inside an interval: the new intervals, None without any.

        The operands come back with the code of units that vanish along an interval settled.
        """
        wall, near, chance = self._near(pieces, here)
        row, unit, value, slope, small = near.row, near.unit, near.value, near.slope, near.small
        if len(row) == 0:
            return here, None
        scale, speed = near.scale[row], slope.abs()
        if bool(small.any()):
            scale[small] = self._own(pieces, here, row[small], unit[small])
        zero = (small & (value <= ZERO * scale) & (speed <= ZERO * scale)) | chance
        if bool(zero.any()):
            here = self._settled(pieces, here, wall[zero], row[zero], unit[zero])
        at = pieces.middle[row] - value / slope
        room = torch.minimum(at - pieces.lo[row], pieces.hi[row] - at)
        blur = (TOUCH * scale / speed).clamp(min=RESOLUTION)
        kept = (room > blur) & ~zero  # never for a slope of zero: its blur is infinite
        if not bool(kept.any()):
            return here, None
        knots = merged(*(t[kept].cpu().numpy() for t in (row, at, blur)))
        return here, divided(pieces.lo.cpu().numpy(), pieces.hi.cpu().numpy(), *knots)

    def _near(self, pieces: Pieces, here: Operands) -> tuple[Tensor, Near, Tensor]:
        """The walls that are crossed or tiny, or zero by chance: which of the unit's, where, and whether by chance."""
        net = self.net
        if simple(here.operator) and here.code.is_cpu:
            z, dz = (net.rows(here.step.out, t) for t in (*here.values, *here.slopes))
            near = near_knot(here.operator, z, dz, pieces.half[:, 0], SMALL)
            if near.zeros == 0 or len(pieces) > PROBES:
                return torch.zeros_like(near.row), near, torch.zeros_like(near.small)
        value, slope = net.walls(here, here.values, False).clamp(min=0), net.walls(here, here.slopes, True)
        scale, speed = net.scale(here, len(pieces)), slope.abs()
        bound, nothing = SMALL * scale[:, None], (value == 0) & (speed == 0)
        small = (value <= bound) & (speed <= bound) & ~nothing
        chance = self._by_chance(pieces, here, nothing)
        found = small | chance | (value < speed * pieces.half)
        wall, row, unit = found.nonzero().unbind(1)
        near = Near(row, unit, value[found], slope[found], small[found], scale, int(nothing.sum()))
        return wall, near, chance[found]

    def _by_chance(self, pieces: Pieces, here: Operands, zero: Tensor) -> Tensor:
        """Which walls that are exactly zero are not so at other points of their interval; looked at on long ones only.

        A unit whose wall the segment lies in may round to zero in the middle, and to something else beside it.
        """
        wrong = torch.zeros_like(zero)
        if len(pieces) > PROBES or not bool(zero.any()):
            return wrong
        for share in (0.0625, 0.3, 0.71875, 0.9):
            x = self._embed(pieces.segment, pieces.lo + share * (pieces.hi - pieces.lo))
            there = replace(self.net.at(here.step, x, torch.zeros_like(x)), code=here.code)
            wrong |= (self.net.walls(there, there.values, False) != 0) & zero
        return wrong

    def _settled(self, pieces: Pieces, here: Operands, wall: Tensor, row: Tensor, unit: Tensor) -> Operands:
        """The code where those walls are zero along their intervals: of the pieces that tie, the lowest.

        Such a unit has no wall there when it vanishes in every direction of the input space, in the whole region
        (equal candidates, a difference of equal functions). Otherwise the segment lies inside its wall.
        """
        net, (rows, place) = self.net, row.unique(return_inverse=True)
        x = self._embed(pieces.segment[rows], pieces.middle[rows])
        aside = self._random(int(pieces.segment[rows[0]]), 1).expand_as(x)
        there = net.at(here.step, x, aside)
        there = replace(there, code=self._code(here, net.rows(here.step.out, here.code)[rows]))
        speed = net.walls(there, there.slopes, True).abs()[wall, place, unit]
        inside = speed > ZERO * net.scale(there, len(rows))[place]
        if bool(inside.any()):
            raise _inside_a_wall(pieces, here, int(row[inside][0]), int(unit[inside][0]))
        codes = flat(net.rows(here.step.out, here.code))
        tied, room = torch.zeros_like(codes, dtype=torch.bool), ZERO * net.scale(here, len(pieces))[:, None]
        tied[row, unit] = True
        lowest = codes
        for piece in reversed(range(here.operator.pieces)):
            other = replace(here, code=torch.full_like(here.code, piece))
            reach = net.walls(other, other.slopes, True).abs() * pieces.half
            valid = (net.walls(other, other.values, False) - reach >= -room).all(0)
            lowest = torch.where(tied & valid, torch.full_like(codes, piece), lowest)
        code = lowest.reshape(net.rows(here.step.out, here.code).shape)
        return replace(here, code=self._code(here, code))

    def _code(self, here: Operands, rows: Tensor) -> Tensor:
        """Codes (n, *units) in the operator's own layout."""
        return layout_of(self.net.plan, here.step.out).from_rows(rows)

    def _embed(self, segment: Tensor, tau: Tensor) -> Tensor:
        """The inputs at those places of those segments."""
        a, b = self.x0[segment], self.x1[segment]
        return a + tau.reshape(-1, *[1] * (a.dim() - 1)) * (b - a)

    def _random(self, segment: int, count: int) -> Tensor:
        """(count, *in): random directions of the size of a segment's inputs, always the same."""
        a, b = self.x0[segment], self.x1[segment]
        size = max(float(v.square().mean().sqrt()) for v in (a, b, b - a))
        generator = torch.Generator().manual_seed(0)
        return size * torch.randn(count, *a.shape, generator=generator, dtype=torch.float64).to(a.device)

    def _own(self, pieces: Pieces, here: Operands, row: Tensor, unit: Tensor) -> Tensor:
        """The scales of those units in those rows."""
        segments, place = pieces.segment[row].unique(return_inverse=True)
        table = torch.stack([self.unit_scale(here.step, int(s)) for s in segments])
        return table[place, unit]

    def unit_scale(self, step: Step, segment: int) -> Tensor:
        """(units,): the largest wall of each unit at random inputs around the segment."""
        if (step.out, segment) not in self._scales:
            base, nudge = self._random(segment, 2 * PROBES).chunk(2)
            x = self.x0[segment] + (self.x1[segment] - self.x0[segment]) / 2 + base
            self._scales[step.out, segment] = unit_scale(self.net, step, x, nudge)
        return self._scales[step.out, segment]


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


def _inside_a_wall(pieces: Pieces, here: Operands, row: int, unit: int) -> DegenerateSliceError:
    lo, hi, segment = float(pieces.lo[row]), float(pieces.hi[row]), int(pieces.segment[row])
    return DegenerateSliceError(
        f"segment {segment} lies inside a wall: unit {unit} of operator {here.step.node.label!r} is zero up to "
        f"rounding for tau in [{lo:.6g}, {hi:.6g}], its code is not defined there; move an end point off the wall"
    )
