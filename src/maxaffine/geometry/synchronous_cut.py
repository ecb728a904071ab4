"""Cutting many convex polygons at once by tensor operations: the conventions are those of kernels.py.

Polygons are held in two ways: ragged (one corner after the other) while they wait, and padded (N, K) to the largest
number of sides while they are cut. A row with n corners repeats its first one behind them, so that the corner after
column v is column v + 1, around the end included.

In round r every piece is cut by the r-th of the units that its cell is listed with; a piece without one is finished.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from maxaffine.geometry.cells import Doubtful
from maxaffine.geometry.kernels import BUNDLE

TEMPORARY = 16  # arrays of the size of the corners that a round holds at once


class Polygons(NamedTuple):
    """N convex polygons, padded: x, y (N, K) corners, e (N, K) label of the side that leaves each, n (N,) corners."""

    x: Tensor
    y: Tensor
    e: Tensor
    n: Tensor

    def taken(self, rows: Tensor) -> "Polygons":
        """Some of them."""
        return Polygons(self.x[rows], self.y[rows], self.e[rows], self.n[rows])

    @property
    def inside(self) -> Tensor:
        """(N, K) the columns that are no padding."""
        return torch.arange(self.x.shape[1], device=self.n.device) < self.n[:, None]

    def widened(self, width: int) -> "Polygons":
        """With at least that many columns."""
        more = (-1, max(0, width - self.x.shape[1]))
        x, y, e = (torch.cat([a, a[:, :1].expand(*more)], 1) for a in (self.x, self.y, self.e))
        return Polygons(x, y, e, self.n)


class Ragged(NamedTuple):
    """N polygons one after the other: x, y, e as in Polygons but flat, start (N,) first corner, n (N,) corners."""

    x: Tensor
    y: Tensor
    e: Tensor
    start: Tensor
    n: Tensor

    def padded(self, rows: Tensor) -> Polygons:
        """Some of them, ready to be cut."""
        n = self.n[rows]
        column = torch.arange(int(n.max()), device=n.device).expand(len(n), -1)
        at = self.start[rows][:, None] + torch.where(column < n[:, None], column, 0)
        return Polygons(self.x[at], self.y[at], self.e[at], n)


def flattened(parts: list[Polygons]) -> Ragged:
    """Polygons without their padding."""
    insides = [p.inside for p in parts]
    x = torch.cat([p.x[i] for p, i in zip(parts, insides, strict=True)])
    y = torch.cat([p.y[i] for p, i in zip(parts, insides, strict=True)])
    e = torch.cat([p.e[i] for p, i in zip(parts, insides, strict=True)])
    n = torch.cat([p.n for p in parts])
    return Ragged(x, y, e, n.cumsum(0) - n, n)


class Crossings(NamedTuple):
    """The units that are zero somewhere on each of C cells, listed cell by cell.

    first, count: (C,) where in the list a cell's begin and how many they are. unit, column: (L,) their numbers and
    their columns in the level. z: (L, 3) coefficients of 1, s, t. eps: (L,) what counts as zero, doubt: (L,) from
    where on that is doubtful.
    """

    first: Tensor
    count: Tensor
    unit: Tensor
    column: Tensor
    z: Tensor
    eps: Tensor
    doubt: Tensor


class Pieces(NamedTuple):
    """Parts of cells: polygons, the cell (N,) of each, and in bit r of signs (N, S) whether its r-th unit is on."""

    polygons: Polygons
    parent: Tensor
    signs: Tensor

    def taken(self, rows: Tensor) -> "Pieces":
        """Some of them."""
        return Pieces(self.polygons.taken(rows), self.parent[rows], self.signs[rows])

    @property
    def bytes(self) -> int:
        """What a round on them takes."""
        count, width = self.polygons.x.shape
        return 8 * count * (TEMPORARY * width + 2 * self.signs.shape[1])


@dataclass
class Bundles:
    """The growing table of sides along which more than one unit vanishes: rows (label before, further unit)."""

    count: int = 0
    parts: list[Tensor] = field(default_factory=list)

    def add(self, labels: Tensor, units: Tensor) -> Tensor:
        """The new labels of sides with those labels, along which those units vanish, too."""
        number = torch.arange(self.count, self.count + len(labels), dtype=torch.int32, device=labels.device)
        self.parts.append(torch.stack([labels, units.int()], 1))
        self.count += len(labels)
        return number + BUNDLE


def cut(cells: Polygons, crossings: Crossings, bundles: Bundles, memory: int) -> Iterator[tuple[Pieces, int]]:
    """Finished pieces of the cells, and with each lot how many more there are at least.

    Lots of pieces that would take more than `memory` bytes in a round are cut in two.
    """
    words = max(1, -(-int(crossings.count.max()) // 64))
    here = torch.arange(len(cells.n), device=cells.n.device)
    stack = [(0, Pieces(cells, here, here.new_zeros(len(here), words)))]
    while stack:
        turn, pieces = stack.pop()
        waiting = crossings.count[pieces.parent] > turn
        done, pieces = pieces.taken((~waiting).nonzero()[:, 0]), pieces.taken(waiting.nonzero()[:, 0])
        yield done, len(pieces.parent) + sum(len(p.parent) for _, p in stack)
        count = len(pieces.parent)
        if count > 1 and pieces.bytes > memory:
            rows = torch.arange(count, device=here.device)
            stack += [(turn, pieces.taken(half)) for half in (rows[count // 2 :], rows[: count // 2])]
        elif count:
            stack.append((turn + 1, cut_once(pieces, turn, crossings, bundles)))


def cut_once(pieces: Pieces, turn: int, crossings: Crossings, bundles: Bundles) -> Pieces:
    """One round: every piece is cut by the unit whose turn it is, or lies on one side of it."""
    polygons, parent, signs = pieces
    at = crossings.first[parent] + turn
    value, above, below = evaluated(polygons, crossings.z[at], crossings.eps[at], crossings.doubt[at])
    unit = crossings.unit[at]
    word, bit = turn >> 6, signed(1 << (turn & 63))
    signs = signs.clone()
    signs[:, word] |= torch.where(above, bit, 0)
    pieces = Pieces(bundled(polygons, value, above != below, unit, bundles), parent, signs)
    rows = (above & below).nonzero()[:, 0]
    if len(rows) == 0:
        return pieces
    whole = pieces.taken((~(above & below)).nonzero()[:, 0])
    upper, lower = halved(pieces.polygons.taken(rows), value[rows], unit[rows].int())
    off = signs[rows]
    off[:, word] ^= bit
    return joined([whole, Pieces(upper, parent[rows], signs[rows]), Pieces(lower, parent[rows], off)])


def signed(number: int) -> int:
    """A 64-bit pattern as the int64 that has it."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


def joined(parts: list[Pieces]) -> Pieces:
    """Pieces one after the other, in polygons of one width."""
    width = max(p.polygons.x.shape[1] for p in parts)
    wide = [p.polygons.widened(width) for p in parts]
    x, y, e, n = (torch.cat(arrays) for arrays in zip(*wide, strict=True))
    parent, signs = torch.cat([p.parent for p in parts]), torch.cat([p.signs for p in parts])
    return Pieces(Polygons(x, y, e, n), parent, signs)


def evaluated(polygons: Polygons, z: Tensor, eps: Tensor, doubt: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One affine function a polygon at its corners (N, K), zero within eps; is it anywhere positive, negative (N,).

    Raises Doubtful where it is doubtful whether a corner's value is zero.
    """
    one, s, t = z[:, :, None].unbind(1)
    value = one + s * polygons.x + t * polygons.y
    size = value.abs()
    if bool(((size <= eps[:, None]) & (size > doubt[:, None])).any()):
        raise Doubtful("a corner of a cell lies as close to a line as rounding allows")
    value = torch.where(value.abs() <= eps[:, None], 0.0, value)
    return value, (value > 0).any(1), (value < 0).any(1)


def bundled(polygons: Polygons, value: Tensor, onesided: Tensor, unit: Tensor, bundles: Bundles) -> Polygons:
    """Polygons with a new label on every inner side along which a unit vanishes that does not cut the polygon."""
    zero = value == 0
    side = onesided[:, None] & zero & zero.roll(-1, 1) & polygons.inside & (polygons.e >= 0)
    row, column = side.nonzero(as_tuple=True)
    if len(row) == 0:
        return polygons
    labels = bundles.add(polygons.e[row, column], unit[row])
    return polygons._replace(e=polygons.e.index_put((row, column), labels))


def halved(polygons: Polygons, value: Tensor, label: Tensor) -> tuple[Polygons, Polygons]:
    """Both parts of convex polygons that are cut where `value` changes sign (Sutherland & Hodgman, 1974).

    A corner with value zero belongs to both parts. The new side carries `label` in both.
    """
    x, y, e = polygons.x, polygons.y, polygons.e
    other = value.roll(-1, 1)
    crossed = polygons.inside & (value * other < 0)
    t = value / torch.where(crossed, value - other, 1.0)
    between = x + t * (x.roll(-1, 1) - x), y + t * (y.roll(-1, 1) - y)
    parts = []
    for sign in (1, -1):
        s, s2 = sign * value, sign * other
        kept = polygons.inside & (s >= 0)
        leaving = torch.where((s == 0) & (s2 < 0), label[:, None], e), torch.where(s > 0, label[:, None], e)
        parts.append(packed(kept, crossed, (x, between[0]), (y, between[1]), leaving))
    return parts[0], parts[1]


def packed(
    kept: Tensor, crossed: Tensor, x: tuple[Tensor, Tensor], y: tuple[Tensor, Tensor], e: tuple[Tensor, Tensor]
) -> Polygons:
    """Polygons of the kept corners, each followed by the crossing on its side, if there is one.

    x, y, e: (N, K) of the corners, and of the crossings.
    """
    chosen = torch.stack([kept, crossed], 2).flatten(1)
    n = chosen.sum(1)
    width = int(n.max())
    place = torch.where(chosen, chosen.cumsum(1) - 1, width)  # what is not chosen goes to a column that is cut off
    inside = torch.arange(width, device=n.device) < n[:, None]

    def moved(pair: tuple[Tensor, Tensor]) -> Tensor:
        source = torch.stack(pair, 2).flatten(1)
        target = source.new_zeros(len(n), width + 1).scatter_(1, place, source)[:, :width]
        return torch.where(inside, target, target[:, :1])

    return Polygons(moved(x), moved(y), moved(e), n)
