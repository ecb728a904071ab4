"""The exact reference against known arrangements and spline.code; the laws hold on it, and fail on wrong partitions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
import plane_laws as laws
import pytest
import torch
from exact_partition import (
    RAMPS,
    Layer,
    Ramp,
    Two,
    area,
    grouped,
    linear,
    partition,
    pooled,
    torch_net,
)
from exact_plane import ExactPlane, as_plane, assert_same

import maxaffine as ma
from maxaffine.slice import Plane

BOX = [(-1, -1), (1, -1), (1, 1), (-1, 1)]
TRIANGLE = [(-1, -1), (1, -0.75), (-0.25, 1)]
HALF = Fraction(1, 2)


def plane_of(corners: list[tuple[float, float]] = BOX) -> Plane:
    return Plane.polygon(torch.zeros(2), torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), corners)


@lru_cache
def captured(layers: tuple[Layer, ...]) -> ma.Spline:
    return ma.Spline(torch_net(layers), torch.zeros(1, 2, dtype=torch.float64))


def judged(layers: tuple[Layer, ...], corners: list[tuple[float, float]] = BOX) -> tuple[ma.Spline, ExactPlane]:
    spline = captured(layers)
    return spline, as_plane(partition(layers, corners), spline, plane_of(corners))


def dyadic(out: int, into: int, seed: int, denominator: int = 64) -> Layer:
    """Weights and biases k / denominator in [-2, 2]."""
    k = np.random.default_rng(seed).integers(-2 * denominator, 2 * denominator + 1, (out, into + 1)).tolist()
    return linear(
        [[Fraction(w, denominator) for w in row[:-1]] for row in k], [Fraction(r[-1], denominator) for r in k]
    )


def level_inside(plane: ExactPlane) -> float:
    """A value that the first output takes inside the largest cell on which it is not constant."""
    bent = np.abs(plane.A.reshape(len(plane), -1, 2)[:, 0]).sum(1) > 0
    cell = int(np.where(bent, plane.areas, 0).argmax())
    return float(laws.at_cells(plane, np.array([cell]), plane.centres[[cell]]).flat[0])


# ---- the reference ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", range(1, 8))
def test_lines_in_general_position(n: int) -> None:
    k = np.arange(1, n + 1)
    tangents = linear([[2 * int(i), 1] for i in k], [int(i * i) for i in k])  # of a parabola: no two parallel, no
    wide = [(-99, -9999), (99, -9999), (99, 9999), (-99, 9999)]  # three through one point
    found = partition((tangents, Ramp("relu")), wide)
    vertices = 4 + 2 * n + n * (n - 1) // 2
    assert len(found.cells) == 1 + n + n * (n - 1) // 2
    assert len(found.vertices) == vertices
    assert len(found.sides) == vertices + len(found.cells) - 1
    assert sum(area(cell.polygon) for cell in found.cells) == 198 * 19998


@pytest.mark.parametrize(
    ("weight", "bias", "name", "cells", "vertices"),
    [
        ([[1, 0], [0, 1], [1, 1]], [0, 0, 0], "relu", 6, 9),  # three lines through one point, one of them a diagonal
        ([[1, 0], [2, 0], [-3, 0]], [0, 0, 0], "relu", 2, 6),  # one line three times
        ([[0, 0], [1, 0]], [1, 0], "relu", 2, 6),  # a zero row
        ([[0, 0], [0, 0]], [0, -1], "relu", 1, 4),  # nothing but zero rows, one identically zero
        ([[1, 0], [0, 1]], [1, 1], "relu", 1, 4),  # lines along two sides of the domain
        ([[1, 1]], [2], "relu", 1, 4),  # a line through one corner
        ([[1, 1]], [0], "relu", 2, 4),  # a diagonal
        ([[1, 0]], [0], "hardtanh", 3, 8),
        ([[1, 0]], [0], "softshrink", 3, 8),
        ([[16, 0]], [0], "relu6", 3, 8),
        ([[1, 0], [0, 1]], [0, 0], "abs", 4, 9),
    ],
)
def test_hand_made_arrangements(weight: list, bias: list, name: str, cells: int, vertices: int) -> None:
    found = partition((linear(weight, bias), Ramp(name)), BOX)
    assert (len(found.cells), len(found.vertices)) == (cells, vertices)


def test_lines_of_two_layers_bend() -> None:
    """relu(relu(s) + t): the second line is t = 0 on the left and t = -s on the right."""
    found = partition(
        (linear([[1, 0], [0, 1]]), Two((Ramp("relu"),), (), "cat"), linear([[1, 0, 0, 1]]), Ramp("relu")), BOX
    )
    corners = {(float(s), float(t)) for s, t in found.vertices}
    assert len(found.cells) == 5  # the quadrants, one of them cut; on the left the two lines are one
    assert max(len(side.units) for side in found.sides) == 2
    assert corners == {(s, t) for s in (-1, 0, 1) for t in (-1, 0, 1)}


def test_maxima_meet_in_threes() -> None:
    """max(s, t, -s - t) on the box: three cells, one vertex inside, which has three edges."""
    net = (linear([[1, 0], [0, 1], [-1, -1]]), grouped(3, 3))
    found = partition(net, BOX)
    assert len(found.cells) == 3
    assert sum((0, 0) in side.ends for side in found.sides) == 3
    assert {cell.code for cell in found.cells} == {((0,),), ((1,),), ((2,),)}
    assert {cell.values for cell in found.cells} == {((0, 1, 0),), ((0, 0, 1),), ((0, -1, -1),)}


def test_the_lowest_of_equal_candidates_wins() -> None:
    net = (linear([[1, 0], [1, 0], [0, 1], [0, 1]]), grouped(4, 4))
    assert {cell.code for cell in partition(net, BOX).cells} == {((0,),), ((2,),)}
    least = (linear([[1, 0], [1, 0], [0, 1], [0, 1]]), grouped(4, 4, -1))
    assert {cell.code for cell in partition(least, BOX).cells} == {((0,),), ((2,),)}


def test_padding_never_wins() -> None:
    net = (linear([[0, 0], [1, 0]], [-5, -5]), pooled(2, 3, 1, 1))
    assert {cell.code for cell in partition(net, BOX).cells} == {((1, 0),), ((2, 1),)}


NETS: dict[str, tuple[Layer, ...]] = {
    "mlp": (dyadic(5, 2, 1), Ramp("relu"), dyadic(4, 5, 2), Ramp("relu"), dyadic(2, 4, 3)),
    **{f"ramp_{name}": (dyadic(3, 2, 4), Ramp(name), dyadic(3, 3, 5), Ramp(name), dyadic(1, 3, 6)) for name in RAMPS},
    "maxout": (dyadic(6, 2, 7), grouped(6, 3), dyadic(4, 2, 8), grouped(4, 2, -1), dyadic(1, 2, 9)),
    "pool": (dyadic(5, 2, 10), pooled(5, 3, 2, 1), Ramp("relu"), dyadic(1, 3, 11)),
    **{
        how: (
            dyadic(3, 2, 12),
            Two((Ramp("relu"), dyadic(3, 3, 13)), (dyadic(3, 3, 14), Ramp("abs")), how),
            dyadic(1, n, 15),
        )
        for how, n in (("sum", 3), ("cat", 6), ("maximum", 3), ("minimum", 3))
    },
    "twice": (dyadic(3, 2, 16), *(dyadic(3, 3, 17), Ramp("relu")) * 2, dyadic(2, 3, 18)),
    "coarse": (dyadic(4, 2, 19, 1), Ramp("relu"), dyadic(4, 4, 20, 1), Ramp("abs"), dyadic(1, 4, 21, 1)),
}


@pytest.mark.parametrize("name", NETS)
def test_the_reference_is_the_spline(name: str) -> None:
    """Codes at centres and at samples, and every other law, on the reference itself."""
    for corners in (BOX, TRIANGLE):
        spline, plane = judged(NETS[name], corners)
        laws.check_all(spline, plane, 2000)
        laws.assert_level_set(spline, plane, 0, level=level_inside(plane))
        assert_same(plane, plane)


@pytest.mark.parametrize("name", ["mlp", "ramp_hardtanh", "sum"])
def test_sides_in_general_position(name: str) -> None:
    laws.assert_sides(judged(NETS[name])[1])
    laws.assert_sides(judged(NETS[name], TRIANGLE)[1])


def test_the_number_of_sides_is_not_that_of_maxima_and_degenerate_nets() -> None:
    for net in (
        (linear([[1, 0], [0, 1], [-1, -1]], [0, HALF, 0]), grouped(3, 3)),
        (linear([[1, 0], [0, 1], [1, 1]]), Ramp("relu")),
    ):
        with pytest.raises(AssertionError):
            laws.assert_sides(judged(net)[1])


def test_a_slice_of_a_larger_input_space() -> None:
    origin, u, v = [0.5, -0.25, 0.125], [1, 0.5, 0], [0.25, -1, 2]
    layers = (dyadic(4, 3, 22), Ramp("relu"), dyadic(2, 4, 23))
    spline = ma.Spline(torch_net(layers), torch.zeros(1, 3, dtype=torch.float64))
    axes = [torch.tensor(a, dtype=torch.float64) for a in (origin, u, v)]
    plane = as_plane(partition(layers, TRIANGLE, origin, u, v), spline, Plane.polygon(*axes, TRIANGLE))
    laws.check_all(spline, plane, 2000, general=True)


def test_a_closed_level_set() -> None:
    """|s| + |t| == 1/2 is a square: one closed curve of length 2 sqrt 2."""
    spline, plane = judged((linear([[1, 0], [0, 1]]), Ramp("abs"), linear([[1, 1]])))
    (curve,) = plane.level_set(0, level=0.5)
    assert np.array_equal(curve[0], curve[-1]) and len(curve) == 5
    laws.assert_level_set(spline, plane, 0, level=0.5)
    assert laws.level_length(plane, 0, None, 0.5) == pytest.approx(2 * 2**0.5)


# ---- each law fails on something wrong -------------------------------------------------------------------


@lru_cache
def right() -> tuple[ma.Spline, ExactPlane]:
    return judged(NETS["mlp"])


def replaced(change: Callable[[ExactPlane], dict[str, Any]]) -> Any:
    plane = right()[1]
    return dataclasses.replace(plane, **change(plane))


def edited(array: Any, key: Any, value: Any) -> Any:
    copy = array.copy()
    copy[key] = value
    return copy


def inner(plane: ExactPlane) -> int:
    """An edge between two cells."""
    return int((plane.neighbours >= 0).all(1).nonzero()[0][3])


def moved(plane: ExactPlane) -> dict[str, Any]:
    """One vertex far out."""
    return {"vertices": edited(plane.vertices, int(plane.edges[inner(plane)][0]), [0.9, 0.95])}


def turned(plane: ExactPlane) -> dict[str, Any]:
    """One cell clockwise."""
    offsets, indices = plane.cells
    return {"cells": (offsets, edited(indices, slice(0, offsets[1]), indices[: offsets[1]][::-1]))}


def merged(plane: ExactPlane) -> dict[str, Any]:
    """An edge is missing."""
    e = inner(plane)
    keep = np.arange(len(plane.edges)) != e
    units = [u for u, k in zip(plane.edge_units, keep, strict=True) if k]
    return {"edges": plane.edges[keep], "neighbours": plane.neighbours[keep], "edge_units": units}


def other_units(plane: ExactPlane) -> dict[str, Any]:
    """An edge names one unit too many."""
    units = list(plane.edge_units)
    units[inner(plane)] = (*units[inner(plane)], ("3", 3))
    return {"edge_units": units}


def other_neighbour(plane: ExactPlane) -> dict[str, Any]:
    """An edge between two cells says that nothing is beyond."""
    return {"neighbours": edited(plane.neighbours, (inner(plane), 1), -1)}


def wrong_cell(plane: ExactPlane) -> dict[str, Any]:
    e = inner(plane)
    return {"neighbours": edited(plane.neighbours, (e, 1), (plane.neighbours[e, 1] + 7) % len(plane))}


def same_code(plane: ExactPlane) -> dict[str, Any]:
    """Two cells have one code."""
    rows = torch.arange(len(plane))
    rows[1] = 0
    return {"codes": plane.codes[rows]}


def swapped_codes(plane: ExactPlane) -> dict[str, Any]:
    rows = torch.arange(len(plane))
    rows[0], rows[1] = 1, 0
    return {"codes": plane.codes[rows]}


def fewer_units_at_vertex(plane: ExactPlane) -> dict[str, Any]:
    v = max(range(len(plane.vertices)), key=lambda k: len(plane.vertex_units[k]))
    return {"vertex_units": [units[1:] if k == v else units for k, units in enumerate(plane.vertex_units)]}


def missing_cell(plane: ExactPlane) -> dict[str, Any]:
    """The last cell is left out of everything that counts cells."""
    offsets, indices = plane.cells
    kept = {name: getattr(plane, name)[:-1] for name in ("areas", "A", "b", "codes", "centres")}
    return {"cells": (offsets[:-1], indices[: offsets[-2]]), **kept}


@dataclass(frozen=True, eq=False)
class Levels(ExactPlane):
    """A partition whose level set is tampered with."""

    tamper: Callable[[list], list] = list

    def level_set(self, i: int, j: int | None = None, level: float = 0.0) -> list:
        return self.tamper(super().level_set(i, j, level))


BREAKS = {
    "area": (lambda p: {"areas": p.areas * (1 + 1e-8)}, lambda _, p: laws.assert_areas(p)),
    "one area": (lambda p: {"areas": edited(p.areas, [0, 1], p.areas[[1, 0]])}, lambda _, p: laws.assert_areas(p)),
    "euler": (merged, lambda _, p: laws.assert_euler(p)),
    "euler, a cell": (missing_cell, lambda _, p: laws.assert_euler(p)),
    "area, a cell": (missing_cell, lambda _, p: laws.assert_areas(p)),
    "convex": (moved, lambda _, p: laws.assert_cells(p)),
    "clockwise": (turned, lambda _, p: laws.assert_cells(p)),
    "centre": (lambda p: {"centres": edited(p.centres, 0, p.centres[1])}, lambda _, p: laws.assert_cells(p)),
    "edges": (merged, lambda _, p: laws.assert_edges(p)),
    "edge outside": (other_neighbour, lambda _, p: laws.assert_edges(p)),
    "neighbour": (wrong_cell, lambda _, p: laws.assert_edges(p)),
    "neighbour's code": (wrong_cell, laws.assert_edge_units),
    "neighbour's map": (wrong_cell, lambda _, p: laws.assert_continuous(p)),
    "edge units": (other_units, laws.assert_edge_units),
    "moved edge": (moved, laws.assert_walls),
    "vertex units": (fewer_units_at_vertex, lambda _, p: laws.assert_vertex_units(p)),
    "distinct": (same_code, laws.assert_codes),
    "codes": (swapped_codes, laws.assert_codes),
    "slope": (lambda p: {"A": edited(p.A, (4, 0, 1), p.A[4, 0, 1] + 1e-6)}, laws.assert_maps),
    "offset": (lambda p: {"b": edited(p.b, (4, 1), p.b[4, 1] + 1e-7)}, laws.assert_maps),
    "continuity": (
        lambda p: {"A": edited(p.A, (4, 0, 1), p.A[4, 0, 1] + 1e-6)},
        lambda _, p: laws.assert_continuous(p),
    ),
    "sampled": (lambda p: {"codes": p.codes[torch.zeros(len(p)).long()]}, lambda s, p: laws.assert_sampled(s, p, 1000)),
    "sides": (
        lambda p: {"cells": (p.cells[0], np.append(p.cells[1], 0))},
        lambda _, p: laws.assert_sides(p),
    ),
    "shapes": (lambda p: {"neighbours": p.neighbours.astype(np.int32)}, laws.assert_shapes),
    "not finite": (lambda p: {"b": edited(p.b, (0, 0), np.nan)}, laws.assert_shapes),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_law_fails_on_a_wrong_partition(name: str) -> None:
    change, law = BREAKS[name]
    law(*right())
    with pytest.raises(AssertionError):
        law(right()[0], replaced(change))


TAMPERED = {
    "missing curve": lambda curves: curves[1:],
    "open": lambda curves: [curves[0][:-1], *curves[1:]],
    "moved": lambda curves: [curves[0] + 1e-6, *curves[1:]],
}


@pytest.mark.parametrize("name", TAMPERED)
def test_the_law_of_level_sets_fails_on_wrong_curves(name: str) -> None:
    spline, plane = right()
    level = level_inside(plane)
    laws.assert_level_set(spline, plane, 0, level=level)
    fields = {f.name: getattr(plane, f.name) for f in dataclasses.fields(plane)}
    with pytest.raises(AssertionError):
        laws.assert_level_set(spline, Levels(**fields, tamper=TAMPERED[name]), 0, level=level)


def test_walls_that_are_not_zero_on_an_edge_are_found() -> None:
    """The partition of other weights: right as a set of polygons, wrong for this network."""
    spline, plane = right()
    shifted = dataclasses.replace(plane, vertices=plane.vertices * (1 + 1e-6))
    with pytest.raises(AssertionError, match="wall"):
        laws.assert_walls(spline, shifted)


CHANGES = {
    "area": lambda p: {"areas": p.areas * (1 + 1e-6)},
    "map": lambda p: {"A": p.A + 1e-6},
    "corner": moved,
    "neighbour": wrong_cell,
    "units": other_units,
    "code": same_code,
    "cell": missing_cell,
}


@pytest.mark.parametrize("name", CHANGES)
def test_the_comparison_with_the_reference_sees_differences(name: str) -> None:
    with pytest.raises(AssertionError):
        assert_same(right()[1], replaced(CHANGES[name]))
