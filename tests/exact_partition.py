"""The partition of a polygon by a tiny network in rational arithmetic: slow and exact, the judge of the fast one.

A network is a tuple of layers. Each layer cuts the cells it is given until it is affine on every one of them; values
are carried as forms (c, a, b), meaning c + a s + b t. No float occurs: weights are fractions, which a float64 network
holds exactly where their denominators are powers of two.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import torch
from net import Of
from torch import Tensor, nn
from torch.nn import functional as F

Form = tuple[Fraction, Fraction, Fraction]
Point = tuple[Fraction, Fraction]
Polygon = tuple[Point, ...]
Number = Fraction | float | int


@dataclass(frozen=True)
class Cell:
    """A polygon, counter-clockwise, the values of the network on it so far, and the pieces of the operators so far."""

    polygon: Polygon
    values: tuple[Form, ...]
    code: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class Linear:
    """x -> weight x + bias."""

    weight: tuple[tuple[Fraction, ...], ...]
    bias: tuple[Fraction, ...]

    def run(self, cell: Cell) -> list[Cell]:
        rows = zip(self.weight, self.bias, strict=True)
        values = tuple(plus(combined(row, cell.values), (offset, Fraction(0), Fraction(0))) for row, offset in rows)
        return [Cell(cell.polygon, values, cell.code)]

    def module(self) -> nn.Module:
        layer = nn.Linear(len(self.weight[0]), len(self.weight)).double()
        with torch.no_grad():
            layer.weight.copy_(torch.tensor([[float(w) for w in row] for row in self.weight], dtype=torch.float64))
            layer.bias.copy_(torch.tensor([float(b) for b in self.bias], dtype=torch.float64))
        return layer


def linear(weight: Sequence[Sequence[Number]], bias: Sequence[Number] | None = None) -> Linear:
    """A Linear layer of numbers; floats are taken as the fractions that they are."""
    rows = tuple(tuple(Fraction(w) for w in row) for row in weight)
    return Linear(rows, tuple(Fraction(b) for b in (bias if bias is not None else [0] * len(rows))))


RAMPS: dict[str, tuple[Callable[[], nn.Module], tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    # name: the torch module, then knots, slopes and offsets of the pieces, as fractions
    "relu": (nn.ReLU, ("0",), ("0", "1"), ("0", "0")),
    "leaky_relu": (lambda: nn.LeakyReLU(0.25), ("0",), ("1/4", "1"), ("0", "0")),
    "abs": (lambda: Of(lambda _, x: x.abs()), ("0",), ("-1", "1"), ("0", "0")),
    "hardtanh": (lambda: nn.Hardtanh(-0.5, 0.75), ("-1/2", "3/4"), ("0", "1", "0"), ("-1/2", "0", "3/4")),
    "relu6": (nn.ReLU6, ("0", "6"), ("0", "1", "0"), ("0", "0", "6")),
    "softshrink": (lambda: nn.Softshrink(0.25), ("-1/4", "1/4"), ("1", "0", "1"), ("1/4", "0", "-1/4")),
    "threshold": (lambda: nn.Threshold(0.5, 0.5), ("1/2",), ("0", "1"), ("1/2", "0")),
    "clamp_max": (lambda: Of(lambda _, x: x.clamp(max=0.5)), ("1/2",), ("1", "0"), ("0", "1/2")),
}


@dataclass(frozen=True)
class Ramp:
    """An elementwise function of RAMPS: piece r = number of knots strictly below z."""

    name: str

    def run(self, cell: Cell) -> list[Cell]:
        knots, slopes, offsets = ([Fraction(v) for v in row] for row in RAMPS[self.name][1:])

        def options(z: Form, polygon: Polygon) -> list[tuple[int, Polygon]]:
            above = [plus(z, (-knot, Fraction(0), Fraction(0))) for knot in knots]
            conditions = [
                [(form, True) for form in above[:r]] + [(times(-1, form), False) for form in above[r:]]
                for r in range(len(slopes))
            ]
            return parts(polygon, conditions)

        def piece(z: Form, r: int) -> Form:
            return plus(times(slopes[r], z), (offsets[r], Fraction(0), Fraction(0)))

        return divided(cell, cell.values, options, piece)

    def module(self) -> nn.Module:
        return RAMPS[self.name][0]()


@dataclass(frozen=True)
class Maxima:
    """The largest (sign 1) or smallest (-1) of each window's candidates; None is a padded one, which never wins."""

    windows: tuple[tuple[int | None, ...], ...]
    sign: int
    build: Callable[[], nn.Module]

    def run(self, cell: Cell) -> list[Cell]:
        groups = [tuple(None if k is None else cell.values[k] for k in window) for window in self.windows]
        return divided(cell, groups, lambda group, polygon: won(group, polygon, self.sign), lambda group, r: group[r])

    def module(self) -> nn.Module:
        return self.build()


def won(group: Sequence[Form | None], polygon: Polygon, sign: int) -> list[tuple[int, Polygon]]:
    """Where each candidate wins: strictly against those before it, a tie against those after it is enough."""
    conditions = []
    for r, form in enumerate(group):
        rivals = [(j, other) for j, other in enumerate(group) if j != r and other is not None]
        lead = [] if form is None else [(times(sign, plus(form, times(-1, other))), j < r) for j, other in rivals]
        conditions.append(None if form is None else lead)
    return parts(polygon, conditions)


def grouped(width: int, size: int, sign: int = 1) -> Maxima:
    """Maxout (or its minimum) over consecutive groups."""
    windows = tuple(tuple(range(first, first + size)) for first in range(0, width, size))
    name = "amax" if sign > 0 else "amin"
    return Maxima(windows, sign, lambda: Of(lambda _, x: getattr(x.unflatten(1, (-1, size)), name)(2)))


def pooled(width: int, kernel: int, stride: int, padding: int) -> Maxima:
    """One-dimensional max pooling with windows that may overlap and reach into the padding."""
    starts = range(-padding, width + padding - kernel + 1, stride)
    windows = tuple(tuple(k if 0 <= k < width else None for k in range(s, s + kernel)) for s in starts)
    return Maxima(windows, 1, lambda: Of(lambda _, x: F.max_pool1d(x[:, None], kernel, stride, padding)[:, 0]))


@dataclass(frozen=True)
class Two:
    """Two branches of the same input: their sum, their concatenation, their maximum or their minimum, by units."""

    left: tuple[Layer, ...]
    right: tuple[Layer, ...]
    how: str

    def run(self, cell: Cell) -> list[Cell]:
        found = []
        for a in run(self.left, cell):
            for b in run(self.right, Cell(a.polygon, cell.values, a.code)):
                found += self.joined(a.values, b)
        return found

    def joined(self, left: tuple[Form, ...], cell: Cell) -> list[Cell]:
        """The cells of both branches, cut further where their maximum changes sides."""
        if self.how == "cat":
            return [Cell(cell.polygon, left + cell.values, cell.code)]
        pairs = list(zip(left, cell.values, strict=True))
        if self.how == "sum":
            return [Cell(cell.polygon, tuple(plus(a, b) for a, b in pairs), cell.code)]
        sign = 1 if self.how == "maximum" else -1
        return divided(cell, pairs, lambda pair, polygon: won(pair, polygon, sign), lambda pair, r: pair[r])

    def module(self) -> nn.Module:
        how = {
            "cat": lambda m, x: torch.cat((m.left(x), m.right(x)), 1),
            "sum": lambda m, x: m.left(x) + m.right(x),
            "maximum": lambda m, x: torch.maximum(m.left(x), m.right(x)),
            "minimum": lambda m, x: torch.minimum(m.left(x), m.right(x)),
        }[self.how]
        return Of(how, left=torch_net(self.left), right=torch_net(self.right))


Layer = Linear | Ramp | Maxima | Two


def torch_net(layers: Sequence[Layer]) -> nn.Module:
    """The same network in torch; a layer that occurs twice is one module called twice."""
    built = {id(layer): layer.module() for layer in layers}
    return nn.Sequential(*(built[id(layer)] for layer in layers)).eval()


def run(layers: Sequence[Layer], cell: Cell) -> list[Cell]:
    """The cells into which the layers cut one cell."""
    cells = [cell]
    for layer in layers:
        cells = [part for whole in cells for part in layer.run(whole)]
    return cells


def divided(cell: Cell, operands: Sequence, options: Callable, piece: Callable) -> list[Cell]:
    """Cut a cell for one operator, unit after unit; options(operand, polygon) -> [(piece, part of the polygon)]."""
    found: list[tuple[Polygon, tuple[int, ...]]] = [(cell.polygon, ())]
    for operand in operands:
        found = [(part, (*code, r)) for polygon, code in found for r, part in options(operand, polygon)]
    return [
        Cell(polygon, tuple(piece(z, r) for z, r in zip(operands, code, strict=True)), (*cell.code, code))
        for polygon, code in found
    ]


def parts(polygon: Polygon, conditions: Sequence[list[tuple[Form, bool]] | None]) -> list[tuple[int, Polygon]]:
    """The parts with an area in which all forms of condition r are > 0 (strict) or >= 0."""
    found = []
    for r, condition in enumerate(conditions):
        part = polygon if condition is not None else ()
        for form, strict in condition or []:
            part = clipped(part, form, strict)
        if part:
            found.append((r, part))
    return found


def clipped(polygon: Polygon, form: Form, strict: bool) -> Polygon:
    """The part where the form is > 0 (strict) or >= 0, () where that has no area."""
    if not polygon:
        return ()
    values = [value(form, p) for p in polygon]
    if max(values) <= 0:  # a form that is zero at all corners is zero everywhere
        return polygon if not strict and min(values) == 0 else ()
    if min(values) >= 0:
        return polygon
    kept: list[Point] = []
    for k, (p, a) in enumerate(zip(polygon, values, strict=True)):
        q, b = polygon[(k + 1) % len(polygon)], values[(k + 1) % len(polygon)]
        if a >= 0:
            kept.append(p)
        if a * b < 0:
            share = a / (a - b)
            kept.append((p[0] + share * (q[0] - p[0]), p[1] + share * (q[1] - p[1])))
    return tuple(kept)


def value(form: Form, p: Point) -> Fraction:
    """c + a s + b t."""
    return form[0] + form[1] * p[0] + form[2] * p[1]


def plus(f: Form, g: Form) -> Form:
    """f + g."""
    return (f[0] + g[0], f[1] + g[1], f[2] + g[2])


def times(factor: Number, f: Form) -> Form:
    """factor f."""
    return (factor * f[0], factor * f[1], factor * f[2])


def combined(row: Sequence[Fraction], values: Sequence[Form]) -> Form:
    """sum_k row_k values_k."""
    total: Form = (Fraction(0), Fraction(0), Fraction(0))
    for w, f in zip(row, values, strict=True):
        total = plus(total, times(w, f))
    return total


def area(polygon: Polygon) -> Fraction:
    """Shoelace formula, positive when counter-clockwise."""
    closed = [*polygon, polygon[0]]
    return sum((p[0] * q[1] - q[0] * p[1] for p, q in pairwise(closed)), Fraction(0)) / 2


def cross(p: Point, q: Point, r: Point) -> Fraction:
    """(q - p) x (r - p): positive when r is on the left."""
    return (q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0])


@dataclass(frozen=True)
class Side:
    """A segment between two neighbouring vertices, the cells on its left and right (None: outside), and what changes.

    units: (operator's place, flat unit) whose piece differs in the two cells.
    """

    ends: tuple[Point, Point]
    cells: tuple[int, int | None]
    units: frozenset[tuple[int, int]]


@dataclass(frozen=True)
class ExactPartition:
    """Cells with all the vertices that lie on their sides, and the sides between them."""

    cells: tuple[Cell, ...]
    sides: tuple[Side, ...]

    @property
    def vertices(self) -> list[Point]:
        """Every vertex once."""
        return sorted({p for cell in self.cells for p in cell.polygon})


def partition(
    layers: Sequence[Layer],
    domain: Sequence[tuple[Number, Number]],
    origin: Sequence[Number] | None = None,
    u: Sequence[Number] | None = None,
    v: Sequence[Number] | None = None,
) -> ExactPartition:
    """All cells of the network on origin + s u + t v, (s, t) in a convex polygon; unset: the input is (s, t)."""
    polygon = tuple((Fraction(s), Fraction(t)) for s, t in domain)
    polygon = polygon if area(polygon) > 0 else polygon[::-1]
    axes = ((0, 0), (1, 0), (0, 1)) if origin is None or u is None or v is None else (origin, u, v)
    forms = tuple((Fraction(c), Fraction(a), Fraction(b)) for c, a, b in zip(*axes, strict=True))
    found = run(layers, Cell(polygon, forms))
    vertices = [(p, float(p[0]), float(p[1])) for p in {p for cell in found for p in cell.polygon}]
    cells = [Cell(tuple(completed(cell.polygon, vertices)), cell.values, cell.code) for cell in found]
    return ExactPartition(tuple(cells), tuple(sides_of(cells)))


def completed(polygon: Polygon, vertices: Sequence[tuple[Point, float, float]]) -> list[Point]:
    """The corners of a polygon and the vertices that lie on its sides, in order; floats only rule out what is far."""
    found: list[Point] = []
    for k, p in enumerate(polygon):
        q = polygon[(k + 1) % len(polygon)]
        (x, y), (dx, dy) = map(float, p), (float(q[0] - p[0]), float(q[1] - p[1]))
        near = [r for r, s, t in vertices if abs(dx * (t - y) - dy * (s - x)) < 1e-9]
        between = [r for r in near if r not in (p, q) and cross(p, q, r) == 0 and inside(p, q, r)]
        found += [p, *sorted(between, key=lambda r: abs(r[0] - p[0]) + abs(r[1] - p[1]))]
    return found


def inside(p: Point, q: Point, r: Point) -> bool:
    """Whether r, on the line through p and q, lies between them."""
    return (r[0] - p[0]) * (r[0] - q[0]) <= 0 and (r[1] - p[1]) * (r[1] - q[1]) <= 0


def sides_of(cells: Sequence[Cell]) -> list[Side]:
    """Every segment once, with the cells on it."""
    owners: dict[tuple[Point, Point], list[int]] = defaultdict(list)
    for i, cell in enumerate(cells):
        for p, q in pairwise([*cell.polygon, cell.polygon[0]]):
            owners[min((p, q), (q, p))].append(i)
    found = []
    for ends, of in owners.items():
        assert len(of) <= 2
        second = of[1] if len(of) == 2 else None
        units = frozenset() if second is None else changed(cells[of[0]], cells[second])
        found.append(Side(ends, (of[0], second), units))
    return found


def changed(a: Cell, b: Cell) -> frozenset[tuple[int, int]]:
    """The units, as (operator's place, unit), whose pieces differ."""
    operators = enumerate(zip(a.code, b.code, strict=True))
    return frozenset((o, k) for o, (p, q) in operators for k in range(len(p)) if p[k] != q[k])


def floats(points: Sequence[Point]) -> Tensor:
    """Points as (n, 2) float64, each rounded once."""
    return torch.tensor([[float(s), float(t)] for s, t in points], dtype=torch.float64)
