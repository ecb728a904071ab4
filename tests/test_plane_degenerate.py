"""Slices and networks in special position, judged by rational arithmetic: the right partition, never a wrong count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import plane_laws as laws
import pytest
import torch
from exact_partition import Layer, Ramp, Two, grouped, linear, partition, pooled, torch_net
from exact_plane import as_plane, assert_same
from net import Of
from torch import nn
from torch.nn import functional as F

import maxaffine as ma

Axes = tuple[Sequence[Fraction | float], ...]
BOX = [(-1, -1), (1, -1), (1, 1), (-1, 1)]
SHIFTED = [(0, -1), (1, -1), (1, 1), (0, 1)]  # a side on s = 0
CORNERED = [(0, 0), (1, 0.5), (0.5, 1), (-0.25, 0.75)]  # a corner at the origin
TRIANGLE = [(-1, -1), (1, -0.75), (-0.25, 1)]
POLYGONS = {"box": BOX, "side on a wall": SHIFTED, "corner on a wall": CORNERED, "triangle": TRIANGLE}
FLAT: Axes = ((0, 0), (1, 0), (0, 1))
RELU, ABS = Ramp("relu"), Ramp("abs")


@dataclass(frozen=True)
class Case:
    """Layers on a plane of their input space."""

    layers: tuple[Layer, ...]
    axes: Axes = FLAT
    blur: float = 1e-9  # of the corners: more than rounding where lines cross at a small angle


def dyadic(out: int, into: int, seed: int, denominator: int = 4, bias: bool = True) -> Layer:
    """Weights and biases k / denominator in [-2, 2]."""
    k = np.random.default_rng(seed).integers(-2 * denominator, 2 * denominator + 1, (out, into + 1)).tolist()
    offsets = [Fraction(row[-1], denominator) if bias else Fraction(0) for row in k]
    return linear([[Fraction(w, denominator) for w in row[:-1]] for row in k], offsets)


def fan(n: int) -> Layer:
    """n lines through the origin."""
    return linear([[k - n // 2, 1 + (k % 3)] for k in range(n)])


def thirds() -> Layer:
    """Four lines through (1/3, 1/3), which float64 does not hold."""
    return linear([[1, -1], [1, 2], [2, 1], [4, -1]], [0, -1, -1, -1])


IDENTITY = linear([[1, 0], [0, 1]])
SAME = linear([[1, Fraction(1, 2)], [Fraction(-1, 2), 1]], [Fraction(1, 4), 0])
AT_ZERO: Axes = ((0.5, 0.25, 0), (1, 0, 0), (0, 1, 0))  # the plane x_2 = 0
CASES: dict[str, Case] = {
    **{f"{n} lines through the origin": Case((fan(n), RELU, dyadic(1, n, n))) for n in (2, 3, 4, 8)},
    "lines through (1/3, 1/3)": Case((thirds(), RELU, dyadic(2, 4, 1))),
    "folds through a crossing": Case((thirds(), RELU, linear([[1, -1, 1, 0], [1, 1, 1, -1]]), RELU, dyadic(1, 2, 2))),
    "no bias, three layers": Case(
        (dyadic(5, 2, 3, bias=False), RELU, dyadic(4, 5, 4, bias=False), RELU, dyadic(1, 4, 5))
    ),
    "no bias, maxima": Case((dyadic(6, 2, 6, bias=False), grouped(6, 3), dyadic(4, 2, 7, bias=False), grouped(4, 2))),
    "duplicated units": Case((linear([[1, 2], [1, 2], [1, -1]], [0.5, 0.5, 0]), RELU, dyadic(3, 3, 8), RELU)),
    "scaled and opposite units": Case(
        (linear([[1, 2], [3, 6], [-5, -10], [7, 14]], [0.5, 1.5, -2.5, 3.5]), RELU, dyadic(3, 4, 9), RELU)
    ),
    "nearly coincident lines": Case((linear([[1, 2], [1, 2], [1, 2]], [0, 2**-30, -(2**-36)]), RELU)),
    "nearly parallel lines": Case(
        (linear([[1, 2], [1, 2 + 2**-30], [1 + 2**-28, 2]], [0, 2**-32, 0]), RELU), blur=1e-6
    ),
    "a tiny triangle": Case((linear([[1, 0], [0, 1], [1, 1]], [0, 0, -(2**-20)]), RELU, dyadic(1, 3, 11))),
    "re-used layer": Case((IDENTITY, *(SAME, RELU) * 3)),
    "re-used layer, coarse": Case((dyadic(3, 2, 12, 1), *(dyadic(3, 3, 13, 1), RELU) * 3, dyadic(1, 3, 14))),
    "zero rows": Case((linear([[0, 0], [0, 0], [0, 0], [1, 1]], [0, 1, -1, 0.25]), RELU, dyadic(2, 4, 15), RELU)),
    "nothing but zero rows": Case((linear([[0, 0], [0, 0]], [0, 1]), RELU, dyadic(2, 2, 16), RELU)),
    "dead units": Case(
        (dyadic(4, 2, 17), RELU, linear([[-1, -1, -2, 0], [-1, 0, 0, 0], [1, 1, 0, 1]], [-1, 0, -1]), RELU)
    ),
    "a unit that cancels": Case(
        (linear([[1, 2], [1, 2]], [0.25, 0.25]), RELU, linear([[1, -1], [2, 1]]), RELU, dyadic(2, 2, 18), RELU)
    ),
    "a unit that is zero on one side": Case(
        (IDENTITY, RELU, linear([[1, -1], [1, 1], [2, 0]]), RELU, dyadic(1, 3, 19))
    ),
    "relu twice": Case((dyadic(4, 2, 20), RELU, RELU, dyadic(2, 4, 21), RELU)),
    "clipped twice at one level": Case((dyadic(3, 2, 22), Ramp("hardtanh"), Ramp("hardtanh"), dyadic(1, 3, 23))),
    "softshrink, then relu": Case((dyadic(3, 2, 24), Ramp("softshrink"), RELU, dyadic(1, 3, 25))),
    "all ramps on one grid": Case(
        (linear([[1, 0], [0, 1]]), Two((Ramp("hardtanh"),), (Ramp("softshrink"), ABS), "cat"), dyadic(3, 4, 26), RELU)
    ),
    "abs of abs": Case((IDENTITY, ABS, linear([[1, -1], [1, 1]], [0, -1]), ABS, linear([[1, 1]], [-0.5]), ABS)),
    "slice inside a wall": Case((linear([[0, 0, 1], [1, 0, 1], [0, 1, -1]]), RELU, dyadic(2, 3, 27), RELU), AT_ZERO),
    "slice inside the wall of abs": Case((linear([[0, 0, 1], [1, 1, 1]]), ABS, dyadic(2, 2, 28), RELU), AT_ZERO),
    "slice inside the wall of a maximum": Case((linear([[1, 1, 1], [1, 1, 0], [0, 1, 0]]), grouped(3, 3)), AT_ZERO),
    "slice inside the wall of a minimum": Case((linear([[1, 1, 1], [1, 1, 0], [0, 1, 0]]), grouped(3, 3, -1)), AT_ZERO),
    "slice inside a knot": Case(
        (linear([[0, 0, 1], [1, 0, 1]], [0.75, 0]), Ramp("hardtanh"), dyadic(2, 2, 29), RELU), AT_ZERO
    ),
    "slice inside every wall": Case(
        (linear([[0, 0, 1], [0, 0, -2]]), RELU, dyadic(2, 2, 30, bias=False), RELU), AT_ZERO
    ),
    "no bias, slice beside the origin": Case(
        (dyadic(5, 3, 31, bias=False), RELU, dyadic(3, 5, 32, bias=False), RELU), AT_ZERO
    ),
    "no bias, slice through the origin": Case(
        (dyadic(5, 3, 33, bias=False), RELU, dyadic(3, 5, 34, bias=False), RELU), ((0, 0, 0), (1, 0.5, 0), (0, 1, -1))
    ),
    "equal candidates": Case((linear([[1, 0], [1, 0], [0, 1], [0, 1]]), grouped(4, 4))),
    "maxima that meet in one point": Case((linear([[1, 0], [0, 1], [-1, 0], [0, -1]]), grouped(4, 4))),
    "six candidates in one point": Case((linear([[2, 0], [1, 2], [-1, 2], [-2, 0], [-1, -2], [1, -2]]), grouped(6, 6))),
    "a maximum of zeros": Case((dyadic(4, 2, 35), RELU, grouped(4, 4), linear([[1]], [-0.5]), RELU)),
    "pooled zeros": Case((dyadic(5, 2, 36), RELU, pooled(5, 3, 1, 1), dyadic(2, 5, 37), RELU)),
    "candidates that are never first": Case((linear([[1, 0], [-1, 0], [0, 0]], [0, 0, 0]), grouped(3, 3))),
    "a candidate that wins on a line": Case(
        (linear([[1, 1], [-1, -1], [0, 0]]), grouped(3, 3), linear([[1]], [-1]), RELU)
    ),
    "a maximum with itself": Case((dyadic(3, 2, 38), Two((), (), "maximum"), dyadic(2, 3, 39), RELU)),
    "a minimum with its relu": Case((dyadic(3, 2, 40), Two((), (RELU,), "minimum"), dyadic(2, 3, 41), RELU)),
    "a maximum with its relu": Case((dyadic(3, 2, 42), Two((), (RELU,), "maximum"), dyadic(2, 3, 43), RELU)),
    "a sum that cancels": Case((dyadic(3, 2, 44), Two((RELU, linear(-np.eye(3))), (RELU,), "sum"), RELU)),
}


@pytest.mark.parametrize("polygon", POLYGONS)
@pytest.mark.parametrize("name", CASES)
def test_the_partition_is_the_exact_one(name: str, polygon: str) -> None:
    case, corners = CASES[name], POLYGONS[polygon]
    spline = captured(name)
    origin, u, v = (torch.tensor([float(c) for c in axis], dtype=torch.float64) for axis in case.axes)
    slice_ = ma.Plane.polygon(origin, u, v, corners)
    exact = as_plane(partition(case.layers, corners, *case.axes), spline, slice_)
    found = ma.partition(spline, slice_)
    assert_same(exact, found, case.blur)
    for law in (laws.assert_areas, laws.assert_euler, laws.assert_cells, laws.assert_edges, laws.assert_continuous):
        law(found)
    laws.assert_vertex_units(found)
    laws.assert_maps(spline, found)


# ---- coincidences up to rounding: weights that float64 does not hold -----------------------------------------


def seeded(seed: int, *modules: nn.Module) -> tuple[nn.Module, ...]:
    """The modules in float64 with normal weights."""
    generator = torch.Generator().manual_seed(seed)
    for module in modules:
        module.double()
        for parameter in module.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return modules


def spline_of(model: nn.Module, into: int) -> ma.Spline:
    return ma.Spline(model.double().eval(), torch.zeros(1, into, dtype=torch.float64))


def drawn_plane(into: int, seed: int, *, origin: float = 1.0, corners: list = BOX) -> ma.Plane:
    x, u, v = torch.randn(3, into, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return ma.Plane.polygon(origin * x, u, v, corners)


@pytest.mark.parametrize("seed", range(4))
def test_scaled_copies_of_units_add_no_cells(seed: int) -> None:
    """relu(a), relu(3.7 a) and relu(-0.3 a) change on one line, whatever the products round to."""
    a, b, c = seeded(seed, nn.Linear(3, 6), nn.Linear(18, 5), nn.Linear(5, 2))
    copies = Of(lambda m, x: m.c(F.relu(m.b(F.relu(torch.cat([k * m.a(x) for k in SCALES], 1))))), a=a, b=b, c=c)
    single = Of(lambda m, x: m.c(F.relu(m.b(split(F.relu(m.a(x)), F.relu(-m.a(x)))))), a=a, b=b, c=c)
    slice_ = drawn_plane(3, seed)
    plane, wanted = (ma.partition(spline_of(model, 3), slice_) for model in (copies, single))
    assert len(plane) == len(wanted) > 10
    laws.check_all(spline_of(copies, 3), plane, 3000)


SCALES = (1.0, 3.7, -0.3)


def split(on: torch.Tensor, off: torch.Tensor) -> torch.Tensor:
    """relu of the three copies from relu(a) and relu(-a)."""
    return torch.cat([SCALES[0] * on, SCALES[1] * on, -SCALES[2] * off], 1)


@pytest.mark.parametrize("lines", [3, 5, 8])
@pytest.mark.parametrize("seed", range(3))
def test_lines_that_meet_up_to_rounding(lines: int, seed: int) -> None:
    """Biases such that all lines pass through one point as float64 sees it; a second layer folds there."""
    first, second = seeded(seed, nn.Linear(2, lines), nn.Linear(lines, 4))
    point = torch.tensor([0.1, 0.3], dtype=torch.float64)
    with torch.no_grad():
        first.bias.copy_(-(first.weight @ point))
        second.bias.zero_()
    spline = spline_of(nn.Sequential(first, nn.ReLU(), second, nn.ReLU()), 2)
    eye = torch.eye(2, dtype=torch.float64)
    laws.check_all(spline, ma.partition(spline, ma.Plane.polygon(0 * point, *eye, BOX)), 3000)


@pytest.mark.parametrize("seed", range(3))
def test_networks_without_biases_on_planes_through_the_origin(seed: int) -> None:
    """All cells are cones: their number is that on any scale."""
    layers = seeded(seed, *(nn.Linear(i, o, bias=False) for i, o in ((4, 8), (8, 8), (8, 2))))
    spline = spline_of(nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.LeakyReLU(0.2), layers[2]), 4)
    slice_ = drawn_plane(4, seed, origin=0.0)
    plane = ma.partition(spline, slice_)
    laws.check_all(spline, plane, 3000)
    inner = np.abs(plane.vertices).max(1) < 1 - 1e-9
    assert inner.sum() == 1 and np.abs(plane.vertices[inner]).max() == 0
    tiny = ma.partition(spline, ma.Plane.polygon(slice_.origin, 1e-6 * slice_.u, 1e-6 * slice_.v, BOX))
    assert len(tiny) == len(plane) == 2 * (len(plane) // 2)


@pytest.mark.parametrize("name", ["relu6", "hardtanh", "relu"])
@pytest.mark.parametrize("pool", [nn.MaxPool1d(3, 1), nn.AdaptiveMaxPool1d(2), nn.MaxPool1d(3, 2, 1)], ids=str)
def test_saturated_candidates_tie(name: str, pool: nn.Module) -> None:
    """Pooling behind an activation that saturates: equal candidates, the lowest index wins."""
    (first,) = seeded(5, nn.Linear(2, 8))
    with torch.no_grad():
        first.weight.mul_({"relu6": 8.0}.get(name, 1.0))
    act = {"relu6": nn.ReLU6(), "hardtanh": nn.Hardtanh(-0.3, 0.7), "relu": nn.ReLU()}[name]
    model = Of(lambda m, x: m.pool(m.act(m.a(x))[:, None])[:, 0], a=first, act=act, pool=pool)
    spline = spline_of(model, 2)
    eye = torch.eye(2, dtype=torch.float64)
    plane = ma.partition(spline, ma.Plane.polygon(torch.zeros(2), *eye, BOX))
    laws.check_all(spline, plane, 3000)


SPLINES: dict[str, ma.Spline] = {}


def captured(name: str) -> ma.Spline:
    if name not in SPLINES:
        layers, into = CASES[name].layers, len(CASES[name].axes[0])
        SPLINES[name] = ma.Spline(torch_net(layers), torch.zeros(1, into, dtype=torch.float64))
    return SPLINES[name]


# ---- units that are zero in whole regions, but for rounding --------------------------------------------------

CANCELLED = [Fraction(1, 10), Fraction(2, 10), Fraction(-3, 10)]  # as float64 they add up to 6e-17
ALIKE = linear([[1, 0.25]] * 3)
NOISE: dict[str, Case] = {
    "where three are on": Case(
        (linear([[1, 0.25]] * 3, [0.5] * 3), RELU, linear([CANCELLED, [1, -1, 2]], [0, -1]), RELU)
    ),
    "everywhere": Case((linear([[1, 0.25]] * 3, [3] * 3), RELU, linear([CANCELLED, [1, 0, 0]], [0, -3]), RELU)),
    "without a bend before": Case((ALIKE, linear([CANCELLED, [1, 0, 0]]), RELU, dyadic(2, 2, 51), RELU)),
    "two of three": Case((ALIKE, RELU, linear([CANCELLED] * 2 + [[1, 1, 1]]), RELU, dyadic(3, 3, 52), RELU)),
    "leaky": Case((ALIKE, Ramp("leaky_relu"), linear([CANCELLED, [1, 1, 0]]), Ramp("leaky_relu"))),
    "on a knot": Case((ALIKE, RELU, linear([CANCELLED, [1, 0, 0]], [0.75, 0]), Ramp("hardtanh"), dyadic(2, 2, 53))),
    "a maximum with zero": Case((ALIKE, linear([CANCELLED, [0, 0, 0], [1, 0, -2]]), grouped(3, 3))),
    "equal candidates": Case((ALIKE, linear([[*CANCELLED[:2], 0], [0, 0, -CANCELLED[2]]]), grouped(2, 2))),
    "equal candidates behind a bend": Case(
        (ALIKE, RELU, linear([[*CANCELLED[:2], 0], [0, 0, -CANCELLED[2]], [0, 1, -1]]), grouped(3, 3))
    ),
}


@pytest.mark.parametrize("polygon", POLYGONS)
@pytest.mark.parametrize("name", NOISE)
def test_units_that_are_zero_but_for_rounding_are_zero(name: str, polygon: str) -> None:
    """The partition is that of the fractions: piece 0, whatever the network computes there; on a device too."""
    case, corners = NOISE[name], POLYGONS[polygon]
    spline = ma.Spline(torch_net(case.layers), torch.zeros(1, 2, dtype=torch.float64))
    origin, u, v = (torch.tensor([float(c) for c in axis], dtype=torch.float64) for axis in case.axes)
    slice_ = ma.Plane.polygon(origin, u, v, corners)
    exact = as_plane(partition(case.layers, corners, *case.axes), spline, slice_)
    for device in (None, "cpu"):
        found = ma.partition(spline, slice_, device=device)
        assert_same(exact, found, case.blur)
        laws.assert_codes(spline, found, zeros=True)
        laws.assert_maps(spline, found)


def in_a_wall(wall: torch.Tensor, bias: torch.Tensor, seed: int) -> tuple[torch.Tensor, ...]:
    """A point, two directions in the wall up to rounding, and its normal."""
    beside = torch.randn(len(wall), 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    basis = torch.linalg.qr(torch.cat([wall[:, None], beside], 1))[0].T
    return -bias * wall / (wall @ wall), basis[1], basis[2], wall / wall.norm()


@pytest.mark.parametrize("seed", range(3))
def test_slices_inside_a_wall_up_to_rounding(seed: int) -> None:
    """Refused for an elementwise operator; candidates of a maximum tie, as they do where they are equal."""
    a, b, c = nn.Linear(5, 6), nn.Linear(5, 6), nn.Linear(6, 2)
    seeded(seed, *(m.requires_grad_(False) for m in (a, b, c)))
    relu = spline_of(nn.Sequential(a, nn.ReLU(), c, nn.ReLU()), 5)
    x, u, v, _ = in_a_wall(a.weight[0], a.bias[0], seed)
    with pytest.raises(ma.errors.DegenerateSliceError, match="unit 0 of operator '1' is zero, up to rounding"):
        ma.partition(relu, ma.Plane.square(x, u, v))
    pair = Of(lambda m, x: m.c(torch.maximum(m.a(x), m.b(x))), a=a, b=b, c=c)
    pool = Of(lambda m, x: m.a(x).unflatten(1, (2, 3)).amax(2), a=a)
    for model, one, two in ((pair, (a, 0), (b, 0)), (pool, (a, 0), (a, 1))):
        weight, bias = (getattr(two[0], k)[two[1]] - getattr(one[0], k)[one[1]] for k in ("weight", "bias"))
        spline, (x, u, v, normal) = spline_of(model, 5), in_a_wall(weight, bias, seed)
        beside = [len(ma.partition(spline, ma.Plane.square(x + d * normal, u, v))) for d in (0.0, 1e-7, -1e-7)]
        assert beside[0] == beside[1] == beside[2]
