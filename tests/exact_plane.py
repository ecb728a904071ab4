"""The exact partition with the attributes of a plane partition, so that the laws can be judged on it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from exact_partition import Cell, ExactPartition, Form, Point, area, floats, plus, times, value
from numpy.typing import NDArray
from torch import Tensor

import maxaffine as ma
from maxaffine.slice import Plane

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ExactPlane:
    """What ma.partition returns for a plane, made of fractions."""

    exact: ExactPartition
    plane: Plane
    vertices: Floats
    cells: tuple[Ints, Ints]
    edges: Ints
    neighbours: Ints
    edge_units: list[tuple[tuple[str, int], ...]]
    vertex_units: list[tuple[tuple[str, int], ...]]
    areas: Floats
    A: Floats
    b: Floats
    codes: ma.Code
    centres: Floats

    def __len__(self) -> int:
        return len(self.areas)

    def embed(self, st: Floats) -> Tensor:
        return self.plane.embed(st)

    def level_set(self, i: int, j: int | None = None, level: float = 0.0) -> list[Floats]:
        return level_set(self.exact, i, j, level)


def as_plane(exact: ExactPartition, spline: ma.Spline, plane: Plane) -> ExactPlane:
    """The arrays of an exact partition of a spline on a plane."""
    vertices = exact.vertices
    place = {p: k for k, p in enumerate(vertices)}
    corners = [[place[p] for p in cell.polygon] for cell in exact.cells]
    sides = exact.sides
    edge_units = [labels(spline, side.units) for side in sides]
    return ExactPlane(
        exact,
        plane,
        floats(vertices).numpy(),
        (np.cumsum([0, *map(len, corners)]), np.array([k for row in corners for k in row])),
        np.array([[place[p] for p in side.ends] for side in sides]),
        np.array([[-1 if c is None else c for c in side.cells] for side in sides]),
        edge_units,
        incident(len(vertices), [[place[p] for p in side.ends] for side in sides], edge_units),
        np.array([float(area(cell.polygon)) for cell in exact.cells]),
        np.array([[[float(f[1]), float(f[2])] for f in cell.values] for cell in exact.cells]),
        np.array([[float(f[0]) for f in cell.values] for cell in exact.cells]),
        code_of(exact, spline),
        np.array([[float(sum(p[k] for p in c.polygon) / len(c.polygon)) for k in (0, 1)] for c in exact.cells]),
    )


def labels(spline: ma.Spline, units: frozenset[tuple[int, int]]) -> tuple[tuple[str, int], ...]:
    """(operator's place, unit) -> (operator's name, unit)."""
    return tuple((spline.operators[o].name, k) for o, k in sorted(units))


def incident(count: int, edges: list[list[int]], units: list[Any]) -> list[tuple[tuple[str, int], ...]]:
    """For every vertex the units of the edges that end there."""
    found: list[set[tuple[str, int]]] = [set() for _ in range(count)]
    for ends, changing in zip(edges, units, strict=True):
        for k in ends:
            found[k] |= set(changing)
    return [tuple(sorted(row)) for row in found]


def code_of(exact: ExactPartition, spline: ma.Spline) -> ma.Code:
    """The codes of all cells."""
    signature = spline.code(torch.zeros(1, *spline.in_shape, dtype=torch.float64)).signature
    values = tuple(
        torch.tensor([cell.code[o] for cell in exact.cells], dtype=torch.uint8).reshape(-1, *units.shape)
        for o, units in enumerate(signature)
    )
    return ma.Code(signature, values, len(exact.cells))


def level_set(exact: ExactPartition, i: int, j: int | None, level: float) -> list[Floats]:
    """Segments of output i (minus output j) == level in every cell, chained at common ends."""
    links: dict[Point, list[Point]] = defaultdict(list)
    for cell in exact.cells:
        ends = crossings(cell, shifted(cell, i, j, level))
        if len(ends) == 2:
            links[ends[0]].append(ends[1])
            links[ends[1]].append(ends[0])
    found = []
    while links:
        start = min(links, key=lambda p: (len(links[p]) != 1, p))  # open curves first
        curve = [start]
        while links.get(curve[-1]):
            following = links[curve[-1]].pop()
            links[following].remove(curve[-1])
            curve.append(following)
        links = defaultdict(list, {p: row for p, row in links.items() if row})
        found.append(floats(curve).numpy())
    return found


def shifted(cell: Cell, i: int, j: int | None, level: float) -> Form:
    form = cell.values[i] if j is None else plus(cell.values[i], times(-1, cell.values[j]))
    return plus(form, times(-1, (type(form[0])(level), type(form[0])(0), type(form[0])(0))))


def crossings(cell: Cell, form: Form) -> list[Point]:
    """Where the border of a cell changes from form >= 0 to form < 0 and back."""
    found = []
    for k, p in enumerate(cell.polygon):
        q = cell.polygon[(k + 1) % len(cell.polygon)]
        a, b = value(form, p), value(form, q)
        if (a >= 0) != (b >= 0):
            found.append((p[0] + a / (a - b) * (q[0] - p[0]), p[1] + a / (a - b) * (q[1] - p[1])))
    return found


def assert_same(wanted: ExactPlane, found: Any, blur: float = 1e-9) -> None:
    """A partition is the exact one: cells by code, their areas, corners, maps, neighbours and what changes there.

    blur: how far off a corner may be, more than rounding only where lines cross at a small angle.
    """
    names = {i: k for k, i in enumerate(wanted.codes.ids())}
    ids = found.codes[:].ids()
    assert len(found) == len(set(ids)) == len(names), f"{len(found)} cells with {len(set(ids))} codes, not {len(names)}"
    assert set(ids) == set(names), f"{len(set(ids) - set(names))} codes are not among the exact ones"
    order = np.array([names[i] for i in ids])
    close(found.areas, wanted.areas[order], wanted.plane.area)
    close(found.A, wanted.A[order], max(1.0, np.abs(wanted.A).max()))
    close(found.b, wanted.b[order], max(1.0, np.abs(wanted.b).max()))
    for k, cell in enumerate(order):
        here, there = corners(found, k), corners(wanted, cell)
        assert len(here) == len(there), f"a cell has {len(here)} corners, not {len(there)}"
        first = int(np.abs(here - there[0]).sum(1).argmin())
        close(np.roll(here, -first, 0), there, blur / 1e-9)
    assert len(found.vertices) == len(wanted.vertices) and len(found.edges) == len(wanted.edges)
    assert edges_of(found, [int(c) for c in order]) == edges_of(wanted, list(range(len(wanted))))


def corners(plane: Any, cell: int) -> Floats:
    """The corners of one cell (n, 2)."""
    offsets, indices = plane.cells
    return plane.vertices[indices[offsets[cell] : offsets[cell + 1]]]


def edges_of(plane: Any, names: list[int]) -> list[tuple[list[int], list[tuple[str, int]]]]:
    """The two cells of every edge, -1 outside, by the given names, and its units, sorted."""
    rows = zip(plane.neighbours.tolist(), plane.edge_units, strict=True)
    return sorted(
        (sorted(-1 if c < 0 else names[c] for c in cells), sorted((n, int(k)) for n, k in units))
        for cells, units in rows
    )


def close(found: Floats, wanted: Floats, scale: float) -> None:
    """|found - wanted| <= 1e-9 scale."""
    assert found.shape == wanted.shape
    error = np.abs(found - wanted).max(initial=0.0)
    assert error <= 1e-9 * scale, f"off by {error:.3g}, the scale is {scale:.3g}"
