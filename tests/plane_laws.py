"""The laws of a plane partition, each an assertion over a spline and its partition; nothing here reads how it is made.

Lengths are measured in (s, t), relative to the domain's size; everything in float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import maxaffine as ma
from maxaffine.program.walls import wall_values
from maxaffine.spline import walls_of

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
TOLERANCE = 1e-9
ROUNDING = 1e-12  # of the coordinates of a vertex, across the line that it lies on
CHUNK = 2**26  # bytes of codes or activations held at once


def check_all(
    spline: ma.Spline,
    plane: Any,
    points: int = 10_000,
    general: bool = False,
    edges: int = 300,
    cells: int | None = None,
    zeros: bool = False,
) -> None:
    """Every law; general: elementwise operators in general position, where the number of sides is known.

    points: samples of the domain. edges: on how many the walls are looked at. cells: on how many the network is run.
    zeros: some units are zero on whole cells but for rounding: their piece is 0 there, and the spline's is chance.
    """
    assert_shapes(spline, plane)
    assert_areas(plane)
    assert_euler(plane)
    assert_cells(plane)
    assert_edges(plane)
    assert_codes(spline, plane, zeros=zeros, cells=cells)
    assert_edge_units(spline, plane)
    assert_walls(spline, plane, edges)
    assert_vertex_units(plane)
    assert_maps(spline, plane, cells=cells)
    assert_continuous(plane)
    if not zeros:
        assert_sampled(spline, plane, points)
    if general:
        assert_sides(plane)


# ---- the arrays -------------------------------------------------------------------------------------------


def sides(plane: Any) -> tuple[Ints, Ints, Ints]:
    """(S,) cell, first and second vertex of every side of every cell, counter-clockwise."""
    offsets, indices = plane.cells
    following = np.arange(1, len(indices) + 1)
    following[offsets[1:] - 1] = offsets[:-1]
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets)), indices, indices[following]


def size_of(plane: Any) -> float:
    """The largest coordinate of the domain."""
    return float(np.abs(plane.plane.corners).max())


def cross(a: Floats, b: Floats) -> Floats:
    """(n, 2) x (n, 2) -> (n,)."""
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def at_cells(plane: Any, cells: Ints, points: Floats) -> Floats:
    """b + A (s, t) of the given cells at the given points (n, *out)."""
    return np.einsum("n...i,ni->n...", plane.A[cells], points) + plane.b[cells]


def step_of(spline: ma.Spline) -> int:
    """Rows of codes or activations that fit into CHUNK bytes."""
    units = sum(operator.units for operator in spline.operators)
    return max(16, CHUNK // (8 * max(1, units)))


@dataclass(frozen=True)
class Varying:
    """The units whose piece is not the same in all cells: their pieces (F, K), operator's place and flat unit (K,)."""

    pieces: NDArray[np.int32]
    operator: Ints
    unit: Ints


def flat_codes(code: ma.Code) -> list[Tensor]:
    """(N, units) of every operator."""
    return [value.reshape(len(code), -1) for value in code.values]


def varying(spline: ma.Spline, plane: Any) -> Varying:
    """The codes of all cells, without the units that never change: in two passes, as all codes may not fit."""
    step = step_of(spline)
    low: list[Tensor] = []
    high: list[Tensor] = []
    for first in range(0, len(plane), step):
        parts = flat_codes(plane.codes[first : first + step])
        low = [torch.minimum(a, p.amin(0)) for a, p in zip(low or [p[0] for p in parts], parts, strict=True)]
        high = [torch.maximum(a, p.amax(0)) for a, p in zip(high or [p[0] for p in parts], parts, strict=True)]
    kept = [(a != b).nonzero().flatten() for a, b in zip(low, high, strict=True)]
    if not kept:
        return Varying(np.zeros((len(plane), 0), np.int32), np.zeros(0, np.int64), np.zeros(0, np.int64))
    rows = []
    for first in range(0, len(plane), step):
        parts = flat_codes(plane.codes[first : first + step])
        rows.append(torch.cat([p[:, k].int() for p, k in zip(parts, kept, strict=True)], 1).numpy())
    operator = np.repeat(np.arange(len(kept)), [len(k) for k in kept])
    return Varying(np.concatenate(rows), operator, torch.cat(kept).numpy())


# ---- the laws of the polygons ------------------------------------------------------------------------------


def assert_shapes(spline: ma.Spline, plane: Any) -> None:
    """The arrays have the shapes and types that are promised, and every index exists."""
    count, out, (offsets, indices) = len(plane), spline.out_shape, plane.cells
    assert plane.vertices.shape[1:] == (2,) and plane.edges.shape == plane.neighbours.shape == (len(plane.edges), 2)
    assert offsets.shape == (count + 1,) and offsets[0] == 0 and offsets[-1] == len(indices)
    assert plane.areas.shape == (count,) and plane.centres.shape == (count, 2)
    assert plane.A.shape == (count, *out, 2) and plane.b.shape == (count, *out)
    assert len(plane.edge_units) == len(plane.edges) and len(plane.vertex_units) == len(plane.vertices)
    for array in (plane.vertices, plane.areas, plane.centres, plane.A, plane.b):
        assert array.dtype == np.float64 and np.isfinite(array).all()
    for array in (offsets, indices, plane.edges, plane.neighbours):
        assert array.dtype == np.int64
    assert set(np.unique(indices)) == set(np.unique(plane.edges)) == set(range(len(plane.vertices)))
    assert plane.neighbours.min() >= -1 and plane.neighbours.max() < count


def assert_areas(plane: Any) -> None:
    """Areas are positive, those of the polygons, and sum to the domain's."""
    cell, p, q = sides(plane)
    a, b = plane.vertices[p] - plane.centres[cell], plane.vertices[q] - plane.centres[cell]
    shoelace = np.bincount(cell, cross(a, b) / 2, len(plane))
    scale = plane.plane.area
    assert (plane.areas > 0).all(), f"{(plane.areas <= 0).sum()} cells without an area"
    off = np.abs(plane.areas - shoelace) - TOLERANCE * shoelace
    assert off.max() <= ROUNDING * scale, f"an area is off by {off.max():.3g}"
    assert abs(plane.areas.sum() - scale) <= TOLERANCE * scale, f"areas sum to {plane.areas.sum()}, not {scale}"


def assert_euler(plane: Any) -> None:
    """V - E + F = 1."""
    counts = len(plane.vertices), len(plane.edges), len(plane)
    assert counts[0] - counts[1] + counts[2] == 1, f"V, E, F = {counts}"


def assert_cells(plane: Any) -> None:
    """Every cell is a convex polygon, counter-clockwise; its centre lies strictly inside; no vertex occurs twice."""
    offsets, indices = plane.cells
    assert np.diff(offsets).min() >= 3
    cell, p, q = sides(plane)
    assert len(np.unique(np.stack([cell, p], 1), axis=0)) == len(p), "a cell has a vertex twice"
    vertices = plane.vertices
    following = np.arange(1, len(indices) + 1)
    following[offsets[1:] - 1] = offsets[:-1]
    here, there = vertices[q] - vertices[p], (vertices[q] - vertices[p])[following]
    bend = cross(here, there)
    allowed = ROUNDING * size_of(plane) * (np.hypot(*here.T) + np.hypot(*there.T))
    assert (bend >= -allowed).all(), f"{(bend < -allowed).sum()} corners turn to the right"
    depth = cross(here, plane.centres[cell] - vertices[p])
    assert (depth > 0).all(), f"{len(np.unique(cell[depth <= 0]))} centres are not inside"
    assert len(np.unique(vertices, axis=0)) == len(vertices), "two vertices are one point"


def assert_edges(plane: Any) -> None:
    """Each side of a cell is one edge, each edge a side of its two cells or of one and the domain's border."""
    cell, p, q = sides(plane)
    keys = {(min(e), max(e)): k for k, e in enumerate(plane.edges.tolist())}
    assert len(keys) == len(plane.edges), "two edges have the same ends"
    found: list[list[int]] = [[] for _ in keys]
    directions: list[set[bool]] = [set() for _ in keys]
    for c, a, b in zip(cell.tolist(), p.tolist(), q.tolist(), strict=True):
        k = keys.get((min(a, b), max(a, b)))
        assert k is not None, f"side {a}, {b} of cell {c} is no edge"
        found[k].append(c)
        directions[k].add(a < b)
    for cells, ways, wanted in zip(found, directions, plane.neighbours.tolist(), strict=True):
        assert sorted(cells) == sorted(c for c in wanted if c >= 0), f"an edge of {cells} says {wanted}"
        assert len(ways) == len(cells) > 0, "both cells of an edge lie on one side of it"
    assert_border(plane)


def assert_border(plane: Any) -> None:
    """The edges with nothing beyond lie on the domain's sides and cover them."""
    outside = (plane.neighbours < 0).any(1)
    ends = plane.vertices[plane.edges[outside]]
    corners = plane.plane.corners
    along = np.roll(corners, -1, 0) - corners
    normals = np.stack([-along[:, 1], along[:, 0]], 1) / np.hypot(*along.T)[:, None]
    heights = np.einsum("eki,ni->ekn", ends, normals) - (corners * normals).sum(1)
    assert (np.abs(heights).max(1).min(1) <= ROUNDING * size_of(plane)).all(), "an edge inside has no second cell"
    length, whole = np.hypot(*(ends[:, 1] - ends[:, 0]).T).sum(), np.hypot(*along.T).sum()
    assert abs(length - whole) <= TOLERANCE * whole, f"the border is {length} long, the domain's {whole}"
    inner = [units for units, out in zip(plane.edge_units, outside, strict=True) if out]
    assert all(len(units) == 0 for units in inner), "units change across the border"


def assert_sides(plane: Any) -> None:
    """4 (F - 1) + n sides in all on an n-gon, as lines of elementwise units in general position cross in fours."""
    wanted = 4 * (len(plane) - 1) + len(plane.plane.corners)
    assert len(plane.cells[1]) == wanted, f"{len(plane.cells[1])} sides, wanted {wanted}"


# ---- the laws of the codes ---------------------------------------------------------------------------------


def assert_codes(spline: ma.Spline, plane: Any, zeros: bool = False, cells: int | None = None) -> None:
    """The code of a cell is the spline's at its centre; no code occurs twice.

    zeros: units whose wall is zero at the centre may differ, as rounding decides there. cells: how many are compared.
    """
    seen: set[bytes] = set()
    step, compared = step_of(spline), len(plane) if cells is None else cells
    for first in range(0, len(plane), step):
        codes = plane.codes[first : first + step]
        seen.update(codes.ids())
        points = plane.embed(plane.centres[first : first + step])
        if first < compared:
            same = spline.code(points) == codes
            wrong = (~same).nonzero().flatten()
            excused = zeros and len(wrong) and only_zeros_differ(spline, points[wrong], codes[wrong])
            assert len(wrong) == 0 or excused, f"{len(wrong)} codes are not the spline's, cell {first + int(wrong[0])}"
    assert len(seen) == len(plane), f"{len(plane)} cells have {len(seen)} codes"


def only_zeros_differ(spline: ma.Spline, points: Tensor, codes: ma.Code) -> bool:
    """Whether codes differ from the spline's only in units with a wall that is zero at the points."""
    found = spline.code(points)
    walls = walls_at(spline, points, points)
    for name, a, b in zip(walls, found.values, codes.values, strict=True):
        wall = wall_to(walls[name], a, b)
        if bool((wall[a != b] > 1e-13 * walls[name].scale).any()):
            return False
    return True


def assert_edge_units(spline: ma.Spline, plane: Any) -> None:
    """The codes on both sides of an edge differ exactly in the units that the edge names, at least one."""
    inner = (plane.neighbours >= 0).all(1).nonzero()[0]
    found = varying(spline, plane)
    labels = [(spline.operators[o].name, int(k)) for o, k in zip(found.operator, found.unit, strict=True)]
    step = max(1, CHUNK // max(1, found.pieces.shape[1]) // 4)
    for first in range(0, len(inner), step):
        edges = inner[first : first + step]
        left, right = plane.neighbours[edges].T
        row, column = (found.pieces[left] != found.pieces[right]).nonzero()
        wanted: list[set[tuple[str, int]]] = [set() for _ in edges]
        for r, c in zip(row.tolist(), column.tolist(), strict=True):
            wanted[r].add(labels[c])
        for e, units in zip(edges.tolist(), wanted, strict=True):
            named = [(name, int(k)) for name, k in plane.edge_units[e]]
            assert units and len(named) == len(units) and set(named) == units, f"edge {e}: {named}, wanted {units}"


@dataclass(frozen=True)
class Walls:
    """The walls of one operator (W, n, *units) at n points under given codes, and the size of its finite values."""

    values: Tensor
    scale: float
    pieces: int


def walls_at(spline: ma.Spline, home: Tensor, points: Tensor) -> dict[str, Walls]:
    """The walls of the regions of `home` (n, *in), at `points`; 0 where they are negative."""
    local = walls_of(spline, home)
    found = {}
    for item in wall_values(local.frozen(slice(0, len(home))), points).values():
        finite = item.values[item.values.isfinite()]
        scale = max(1.0, float(finite.abs().max()) if finite.numel() else 0.0)
        pieces = next(o.pieces for o in spline.operators if o.name == item.label)
        found[item.label] = Walls(item.values, scale, pieces)
    return found


def wall_to(walls: Walls, mine: Tensor, other: Tensor) -> Tensor:
    """(n, *units): the wall of each unit's piece towards another piece."""
    count = len(walls.values)
    if count == 1:
        return walls.values[0]
    row = other.long() if count == walls.pieces else (other > mine).long()  # a candidate's wall, or lower and upper
    return walls.values.gather(0, row[None])[0]


def assert_walls(spline: ma.Spline, plane: Any, edges: int = 300) -> None:
    """At both ends and in the middle of an edge the walls of its units are zero, seen from either cell."""
    inner = (plane.neighbours >= 0).all(1).nonzero()[0]
    if len(inner) > edges:
        inner = np.sort(np.random.default_rng(0).choice(inner, edges, replace=False))
    step = max(1, step_of(spline) // 16)
    for first in range(0, len(inner), step):
        chosen = inner[first : first + step]
        cells = plane.neighbours[chosen]
        ends = plane.vertices[plane.edges[chosen]]
        home = [plane.embed(plane.centres[c]) for c in cells.T]
        codes = [spline.code(x) for x in home]
        for place in (ends[:, 0], ends[:, 1], ends.mean(1)):
            for here, there in ((0, 1), (1, 0)):
                walls = walls_at(spline, home[here], plane.embed(place))
                for name, wall in walls.items():
                    mine, other = codes[here][name], codes[there][name]
                    height = wall_to(wall, mine, other)[mine != other]
                    high = float(height.max()) if height.numel() else 0.0
                    assert high <= TOLERANCE * wall.scale, f"{name}: a wall is {high:.3g} on its edge"


def vanishes_somewhere(spline: ma.Spline, slice_: ma.Plane, points: int = 3000) -> bool:
    """Whether a wall is zero at one of some random points of the domain: then it is zero on a whole cell."""
    for part in torch.as_tensor(uniform(slice_.corners, points)).split(max(1, step_of(spline) // 8)):
        x = slice_.embed(part)
        walls = walls_at(spline, x, x).values()
        if any(bool((wall.values <= ROUNDING * wall.scale).any()) for wall in walls):
            return True
    return False


def assert_vertex_units(plane: Any) -> None:
    """The units of a vertex are those of the edges that end there."""
    wanted: list[set[tuple[str, int]]] = [set() for _ in plane.vertices]
    for e, (a, b) in enumerate(plane.edges.tolist()):
        units = {(name, int(k)) for name, k in plane.edge_units[e]}
        wanted[a] |= units
        wanted[b] |= units
    for v, units in enumerate(wanted):
        named = [(name, int(k)) for name, k in plane.vertex_units[v]]
        assert len(named) == len(units) and set(named) == units, f"vertex {v}: {named}, wanted {units}"


def assert_sampled(spline: ma.Spline, plane: Any, points: int, bits: int | None = None) -> None:
    """At uniform points of the domain the code is that of one of the cells.

    bits: round the points to so many binary places, so that a unit that is exactly zero is computed as zero.
    """
    known = set()
    step = step_of(spline)
    for first in range(0, len(plane), step):
        known.update(plane.codes[first : first + step].ids())
    st = uniform(plane.plane.corners, points)
    st = st if bits is None else np.round(st * 2.0**bits) / 2.0**bits
    for first in range(0, points, step):
        ids = spline.code(plane.embed(st[first : first + step])).ids()
        missing = [first + k for k, i in enumerate(ids) if i not in known]
        assert not missing, f"{len(missing)} points are in no cell, the first is {st[missing[0]].tolist()}"


def uniform(corners: Floats, count: int) -> Floats:
    """Uniform points of a convex polygon (count, 2)."""
    rng = np.random.default_rng(0)
    a, b = corners[1:-1] - corners[0], corners[2:] - corners[0]
    share = cross(a, b)
    which = rng.choice(len(share), count, p=share / share.sum())
    x = rng.random((count, 2))
    x = np.where(x.sum(1, keepdims=True) > 1, 1 - x, x)
    return corners[0] + x[:, :1] * a[which] + x[:, 1:] * b[which]


# ---- the laws of the maps ----------------------------------------------------------------------------------


def assert_maps(spline: ma.Spline, plane: Any, cells: int | None = None) -> None:
    """b + A (s, t) is the network at the centre of each cell and at another point of it."""
    offsets, indices = plane.cells
    corner = plane.vertices[indices[offsets[:-1]]]
    step, count = step_of(spline), len(plane) if cells is None else min(cells, len(plane))
    for points in (plane.centres, 0.25 * plane.centres + 0.75 * corner):
        for first in range(0, count, step):
            chosen = np.arange(first, min(first + step, len(plane)))
            found = at_cells(plane, chosen, points[chosen])
            wanted = spline(plane.embed(points[chosen])).detach().numpy()
            error = np.abs(found - wanted).max() / max(1.0, np.abs(wanted).max())
            assert error <= TOLERANCE, f"a map is off by {error:.3g} relative"


def assert_continuous(plane: Any) -> None:
    """The maps of two neighbours agree at both ends of their edge."""
    inner = (plane.neighbours >= 0).all(1)
    cells, ends = plane.neighbours[inner], plane.vertices[plane.edges[inner]]
    for k in (0, 1):
        a, b = (at_cells(plane, cells[:, side], ends[:, k]) for side in (0, 1))
        error = np.abs(a - b).max(initial=0.0) / max(1.0, np.abs(a).max(initial=0.0))
        assert error <= TOLERANCE, f"the maps of two neighbours differ by {error:.3g} relative"


def assert_level_set(spline: ma.Spline, plane: Any, i: int, j: int | None = None, level: float = 0.0) -> None:
    """The curves have the value `level` along them, end on the border or close, and nothing of the set is missing."""
    curves = plane.level_set(i, j, level)
    length = 0.0
    for curve in curves:
        assert curve.ndim == 2 and curve.shape[1] == 2 and len(curve) >= 2
        length += np.hypot(*np.diff(curve, axis=0).T).sum()
        if not np.array_equal(curve[0], curve[-1]):
            assert on_border(plane, curve[[0, -1]]), "an open curve ends inside the domain"
    wanted = level_length(plane, i, j, level)
    assert abs(length - wanted) <= TOLERANCE * max(1.0, wanted), f"the curves are {length} long, wanted {wanted}"
    if curves:
        points = np.concatenate([np.concatenate([curve, (curve[1:] + curve[:-1]) / 2]) for curve in curves])
        for part in torch.as_tensor(points).split(step_of(spline)):
            y = spline(plane.embed(part.numpy())).detach().reshape(len(part), -1)
            value = y[:, i] if j is None else y[:, i] - y[:, j]
            error = float((value - level).abs().max()) / max(1.0, float(y.abs().max()))
            assert error <= TOLERANCE, f"the value on a curve is off by {error:.3g} relative"


def on_border(plane: Any, points: Floats) -> bool:
    """Whether all points lie on sides of the domain."""
    corners = plane.plane.corners
    along = np.roll(corners, -1, 0) - corners
    normals = np.stack([-along[:, 1], along[:, 0]], 1) / np.hypot(*along.T)[:, None]
    heights = points @ normals.T - (corners * normals).sum(1)
    return bool((np.abs(heights).min(1) <= TOLERANCE * size_of(plane)).all())


def level_length(plane: Any, i: int, j: int | None, level: float) -> float:
    """The length of the level set, cell by cell from the maps: the chord between the two sides that cross it."""
    cell, p, q = sides(plane)
    y = [at_cells(plane, cell, plane.vertices[k]).reshape(len(cell), -1) for k in (p, q)]
    a, b = (v[:, i] - level if j is None else v[:, i] - v[:, j] - level for v in y)
    down, up = (a >= 0) & (b < 0), (a < 0) & (b >= 0)
    share = np.where(down | up, a / np.where(down | up, a - b, 1.0), 0.0)[:, None]
    place = plane.vertices[p] + share * (plane.vertices[q] - plane.vertices[p])
    start, stop = np.zeros((len(plane), 2)), np.zeros((len(plane), 2))
    start[cell[down]], stop[cell[up]] = place[down], place[up]
    return float(np.hypot(*(stop - start).T).sum())
