"""The exact partition of a segment: every knot of a network along it, and the affine map and code between knots."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maxaffine.code import Code, Signature
from maxaffine.errors import InputError
from maxaffine.geometry.line_cut import Walk
from maxaffine.geometry.line_network import Pieces
from maxaffine.slice import Segment
from maxaffine.spline import Spline

SHORTEST = 1e-10  # of the size of its ends: the length of a segment on which float64 still tells knots apart
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Switches:
    """M changes of piece: at knot[m] unit[m] of the operator with number operator[m] goes change[m] pieces up.

    Sorted by knot, operator and unit; all (M,) int64.
    """

    knot: Integers
    operator: Integers
    unit: Integers
    change: Integers


@dataclass(frozen=True, eq=False)
class LinePartition:
    """The pieces of a network on x(tau) = x0 + tau (x1 - x0):  f(x(tau)) = b[k] + tau A[k] on piece k of K + 1.

    knots: (K,) tau of the ends of pieces, increasing, strictly between 0 and 1; A, b: (K + 1, *out), all float64.
    first: the code of the first piece; switches: what changes at the knots. The code is that of the open interval;
    neighbouring pieces have different codes. Units that switch together share a knot.
    Source: Sotoudeh & Thakur 2019, arXiv 1908.06214 (exact restriction to a line).

    >>> import torch, maxaffine as ma
    >>> spline = ma.Spline(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.ReLU()), torch.zeros(1, 2))
    >>> line = partition_segments(spline, [Segment(torch.tensor([-1.0, -1]), torch.tensor([3.0, 1]))])[0]
    >>> line.knots.tolist(), line.units, line.A.tolist(), line.variation.tolist()
    ([0.25, 0.5], ((('1', 0),), (('1', 1),)), [[0.0, 0.0], [4.0, 0.0], [4.0, 2.0]], [4.0, 2.0])
    """

    segment: Segment
    knots: Floats
    A: Floats
    b: Floats
    first: Code
    switches: Switches

    def __len__(self) -> int:
        return len(self.knots) + 1

    @cached_property
    def codes(self) -> Code:
        """The codes of all K + 1 pieces, built when first asked for: one byte a unit and piece."""
        rows, values = self.switches.knot + 1, []
        for i, value in enumerate(self.first.values):
            mine = self.switches.operator == i
            start = value.cpu().numpy()
            table = np.zeros((len(self), start[0].size), start.dtype)
            table[0] = start.reshape(-1)
            table[rows[mine], self.switches.unit[mine]] = self.switches.change[mine].astype(start.dtype)
            np.cumsum(table, 0, start.dtype, table)  # of differences modulo 256
            values.append(torch.from_numpy(table).reshape(len(self), *value.shape[1:]))
        return Code(self.first.signature, tuple(values), len(self))

    @cached_property
    def units(self) -> tuple[tuple[tuple[str, int], ...], ...]:
        """For each knot all (operator name, flat unit index) whose piece changes there."""
        names = [units.name for units in self.first.signature]
        found: list[list[tuple[str, int]]] = [[] for _ in self.knots]
        for k, o, u in zip(self.switches.knot, self.switches.operator, self.switches.unit, strict=True):
            found[k].append((names[o], int(u)))
        return tuple(tuple(sorted(at, key=lambda pair: (names.index(pair[0]), pair[1]))) for at in found)

    @property
    def variation(self) -> Floats:
        """(*out): sum_k |A[k+1] - A[k]|, the total variation of the derivative of each output along the segment."""
        return np.abs(np.diff(self.A, axis=0)).sum(0)

    @property
    def density(self) -> float:
        """Knots per unit length of the input space."""
        return len(self.knots) / self.segment.length


def partition_segments(spline: Spline, segments: Sequence[Segment]) -> list[LinePartition]:
    """The exact partition of every segment, in float64; segments are walked together, in chunks that fit in memory.

    A unit is zero (or two candidates are equal) along a stretch when value and derivative in tau are below 1e-12 of
    its scale, the largest entry of the operand (for units with tiny weights: of what they are at random inputs). If it
    vanishes in the whole region around (dead units, zero rows, equal candidates) its code is that of a tie, piece 0 or
    the lowest index; if only on the segment, that lies inside a wall and is refused. Knots whose distance is below
    rounding (1e-13 of that scale, over the speed of the unit) are one; a unit that only touches a wall makes none.

    Raises DegenerateSliceError naming operator and unit when a segment lies inside a wall, NotPiecewiseAffineError,
    and InputError for a segment that does not fit the spline or is shorter than what float64 can resolve.
    """
    for i, segment in enumerate(segments):
        _check(spline, segment, i)
    if not segments:
        return []
    wide = spline if spline.dtype == torch.float64 else spline.to(torch.float64)
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    x = torch.stack([segment.embed(ends) for segment in segments], 1).to(spline.device)
    wide(x[0, :1])  # says what is wrong when the model was moved after its capture
    record = _Record()
    with torch.no_grad():
        Walk(wide, x[0], x[1], record.seen, record.done)()
    return record.partitions(segments, spline._signature)


def _check(spline: Spline, segment: Segment, i: int) -> None:
    shape = tuple(segment.x0.shape)
    if shape != spline.in_shape:
        raise InputError(f"segment {i} is between inputs of shape {shape}, the spline takes {spline.in_shape}")
    size = max(float(torch.as_tensor(x).abs().max()) for x in (segment.x0, segment.x1))
    largest = float((segment.x1.double() - segment.x0.double()).abs().max())
    if largest < SHORTEST * size:
        raise InputError(
            f"segment {i} is too short for float64: its ends differ by {largest:.3g}, their size is {size:.3g}; "
            f"take a segment of at least {SHORTEST:g} of it"
        )


class _Record:
    """What a walk reports, in the order of segments and of tau."""

    def __init__(self) -> None:
        self.pieces: list[tuple[NDArray[Any], ...]] = []  # segment, lo, slope, value at tau = 0
        self.switches: list[tuple[NDArray[Any], ...]] = []  # segment, tau, operator, unit, change
        self.first: dict[tuple[int, int], Tensor] = {}
        self.last: dict[int, tuple[int, Tensor]] = {}

    def seen(self, operator: int, pieces: Pieces, code: Tensor) -> None:
        """Keep the code where a segment begins and what changes from piece to piece."""
        segment, (before, code_before) = pieces.segment, self.last.get(operator, (-1, code[0]))
        same = torch.cat([segment[:1] == before, segment[1:] == segment[:-1]])
        for row in (~same).nonzero().flatten().tolist():
            self.first[int(segment[row]), operator] = code[row].clone()
        self._switch(operator, pieces, same[:1], code_before[None], code[:1], 0)
        self._switch(operator, pieces, same[1:], code[:-1], code[1:], 1)
        self.last[operator] = int(segment[-1]), code[-1].clone()

    def _switch(self, operator: int, pieces: Pieces, same: Tensor, old: Tensor, new: Tensor, shift: int) -> None:
        row, unit = ((old != new) & same[:, None]).nonzero().unbind(1)
        change = new[row, unit].long() - old[row, unit].long()
        place = row + shift
        found = pieces.segment[place], pieces.lo[place], torch.full_like(unit, operator), unit, change
        self.switches.append(tuple(t.cpu().numpy() for t in found))

    def done(self, pieces: Pieces, value: Tensor, slope: Tensor) -> None:
        """Keep the maps."""
        offset = torch.addcmul(value, slope, -pieces.middle.reshape(-1, *[1] * (slope.dim() - 1)))
        self.pieces.append(tuple(t.cpu().numpy() for t in (pieces.segment, pieces.lo, slope, offset)))

    def partitions(self, segments: Sequence[Segment], signature: Signature) -> list[LinePartition]:
        """One partition a segment."""
        pieces, switches = _by_segment(self.pieces, len(segments)), _by_segment(self.switches, len(segments))
        found = []
        for i, segment in enumerate(segments):
            rows = [self.first[i, o].reshape(1, *units.shape) for o, units in enumerate(signature)]
            found.append(_assembled(segment, Code(signature, tuple(rows), 1), pieces[i], switches[i]))
        return found


def _by_segment(parts: Sequence[tuple[NDArray[Any], ...]], segments: int) -> list[list[NDArray[Any]]]:
    """The columns behind the first, which is the segment, segment by segment in their order."""
    if not parts:
        return [[np.zeros(0)] + [np.zeros(0, np.int64)] * 3] * segments
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    order = np.argsort(columns[0], kind="stable")
    ends = np.searchsorted(columns[0][order], np.arange(segments + 1))
    sorted_columns = [column[order] for column in columns[1:]]
    return [[column[a:b] for column in sorted_columns] for a, b in pairwise(ends)]


def _assembled(
    segment: Segment, first: Code, pieces: Sequence[NDArray[Any]], switches: Sequence[NDArray[Any]]
) -> LinePartition:
    """Pieces between the places where something switches; a cut that turned out to change nothing is no knot."""
    (lo, slope, offset), (tau, *changes) = pieces, switches
    order = np.lexsort((changes[1], changes[0], tau))
    knots, knot = np.unique(tau, return_inverse=True)
    kept = np.r_[0, np.searchsorted(lo, knots)]
    moves = Switches(*(column[order] for column in (knot, *changes)))
    return LinePartition(segment, knots, slope[kept] + 0.0, offset[kept] + 0.0, first, moves)
