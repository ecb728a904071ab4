"""Slices of real trained networks: known counts, maps that others found, and every law."""

from __future__ import annotations

import gzip
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import plane_laws as laws
import pytest
import torch
from assets import asset, needs_assets
from pwa import reference
from real_nets import REAL_NETS, RealNet
from test_pwa_reference import HALF_WIDTH, centre, spline_of, vertices
from torch import Tensor

import maxaffine as ma

pytestmark = needs_assets
BY_NAME = {net.name: net for net in REAL_NETS}
FEW, SOME = 40_000, 4_000  # partitions with more cells: laws that run the network on some of them


@lru_cache(maxsize=2)
def captured(name: str) -> ma.Spline:
    """The spline of a network in float64."""
    net: RealNet = BY_NAME[name]
    if net.module is None:
        return ma.load(asset(net.file)).to(torch.float64)
    options = {k: v for k, v in {"until": net.until, "select": net.select}.items() if v is not None}
    return ma.Spline(net.module(net.file).double(), net.inputs(1).double(), **options)


def flat(half: float = 1.0) -> ma.Plane:
    """The square [-half, half]^2 of a network on R^2."""
    return ma.Plane.square(*(torch.tensor(x, dtype=torch.float64) for x in ([0.0, 0.0], [half, 0.0], [0.0, half])))


def check(spline: ma.Spline, plane: Any, points: int = 20_000, general: bool = False) -> None:
    """Every law; on a large partition the network is run on some of the cells."""
    laws.check_all(spline, plane, points, general, cells=None if len(plane) <= FEW else SOME)


# ---- known counts -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Workload:
    """A network, the half width of its slice, and the number of cells that several programs agree on."""

    net: str
    radius: float
    cells: int
    points: int = 20_000


WORKLOADS = {
    "a16": Workload("bench_a16", 1, 127, 1_000_000),
    "a16_tr": Workload("bench_a16_tr", 1, 341),
    "a64": Workload("bench_a64", 1, 6668),
    "a64_tr": Workload("bench_a64_tr", 1, 15276, 1_000_000),
    "a128": Workload("bench_a128", 1, 29584),
    "a128_tr": Workload("bench_a128_tr", 1, 101362),
    "a256": Workload("bench_a256", 1, 125057),
    "a256_tr": Workload("bench_a256_tr", 1, 389377),
    "b_mlp": Workload("bench_mlp784", 5, 77016),
    "b_mlp_r1": Workload("bench_mlp784", 1, 3599),
    "b_cnn_r003": Workload("bench_cnn", 0.03, 1171, 2000),
    "b_cnn": Workload("bench_cnn", 0.1, 10215, 2000),
    "b_cnn_r025": Workload("bench_cnn", 0.25, 55757, 2000),
}


def slice_of(work: Workload, spline: ma.Spline) -> ma.Plane:
    """The square itself, or x0 + radius Q s in 784 dimensions."""
    if spline.in_shape == (2,):
        return flat(work.radius)
    g = torch.Generator().manual_seed(1)
    x0 = torch.rand(784, generator=g, dtype=torch.float64)
    q, _ = torch.linalg.qr(torch.randn(784, 2, generator=g, dtype=torch.float64))
    return ma.Plane.square(*(x.reshape(spline.in_shape) for x in (x0, work.radius * q[:, 0], work.radius * q[:, 1])))


@pytest.mark.parametrize("name", WORKLOADS)
def test_workloads(name: str) -> None:
    work = WORKLOADS[name]
    spline = captured(work.net)
    plane = ma.partition(spline, slice_of(work, spline))
    assert len(plane) == work.cells
    check(spline, plane, work.points, general=True)


# ---- partitions that another program found -----------------------------------------------------------------


@pytest.mark.parametrize(("name", "count"), [("pendulum", 18), ("quadratic", 202)])
def test_listed_cells_and_maps(name: str, count: int) -> None:
    """Cell by cell: the same map, the same area, the same number of sides; the smallest has an area of 3e-12."""
    spline, half = spline_of(name), HALF_WIDTH[name]
    plane = ma.partition(spline, flat(half))
    cells = reference(name)
    assert len(plane) == len(cells) == count
    check(spline, plane, 100_000)
    order = {i: k for k, i in enumerate(plane.codes[:].ids())}
    places = [order[i] for i in spline.code(torch.stack([centre(cell) for cell in cells])).ids()]
    assert sorted(places) == list(range(count))
    listed = torch.stack([cell.C for cell in cells]).numpy() * half
    scale = np.abs(listed).max()
    assert np.abs(plane.A[places] - listed).max() <= 1e-9 * scale
    assert np.abs(plane.b[places] - torch.stack([cell.d for cell in cells]).numpy()).max() <= 1e-9 * scale
    areas = np.array([area(vertices(cell)) for cell in cells]) / half**2
    assert np.abs(plane.areas[places] - areas).max() <= 1e-9
    if name == "quadratic":
        assert plane.areas.min() == pytest.approx(3e-12, rel=0.2)


def area(corners: Tensor) -> float:
    """Area of a convex polygon with these corners in any order."""
    offset = corners - corners.mean(0)
    ring = corners[torch.atan2(offset[:, 1], offset[:, 0]).argsort()].numpy()
    return float(laws.cross(ring, np.roll(ring, -1, 0)).sum() / 2)


@pytest.mark.parametrize("name", ["tll_8", "tll_16"])
def test_maps_of_lattice_networks_are_rows_of_the_first_layer(name: str) -> None:
    import onnx

    spline = captured(name)
    plane = ma.partition(spline, flat(2.0))
    laws.check_all(spline, plane, zeros=True)
    model = onnx.load_from_string(gzip.decompress(asset(BY_NAME[name].file).read_bytes()))
    arrays = {t.name: onnx.numpy_helper.to_array(t).astype(np.float64) for t in model.graph.initializer}
    product, addition = model.graph.node[:2]
    weight = next(arrays[name] for name in product.input if name in arrays).T
    bias = next(arrays[name] for name in addition.input if name in arrays)
    rows = np.column_stack([2 * weight, bias])
    found = np.column_stack([plane.A.reshape(-1, 2), plane.b.reshape(-1)])
    nearest = np.abs(found[:, None] - rows).max(2).min(1)
    assert nearest.max() <= 1e-9 * np.abs(rows).max()


# ---- slices of larger networks ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Slice:
    """A square around the first of three inputs, in their plane; radius: half a side, in units of their distance."""

    net: str
    radius: float
    general: bool = False
    noise: float = 0.0  # takes the inputs off the walls on which blank pixels tie
    points: int = 2000  # samples of the domain
    edges: int = 300  # on how many the walls are looked at

    def plane(self, spline: ma.Spline) -> ma.Plane:
        a, b, c = BY_NAME[self.net].inputs(3).double()
        whole = ma.Plane.through(a, b, c)
        generator = torch.Generator().manual_seed(0)
        a = a + self.noise * torch.rand(a.shape, generator=generator, dtype=torch.float64)
        return ma.Plane.square(*(x.reshape(spline.in_shape) for x in (a, self.radius * whole.u, self.radius * whole.v)))


SLICES = [
    Slice("acas_1_1.onnx", 0.5, general=True),
    Slice("acas_3_3.nnet", 0.5, general=True),
    Slice("lenet", 0.01, noise=0.01),
    Slice("eran_maxpool", 0.01, noise=0.01),
    Slice("verivital_maxpool", 0.005, noise=0.01),
    Slice("resnet_2b.onnx", 0.01, general=True),
    Slice("resnet20", 0.0002, general=True, points=200, edges=30),
    Slice("gan", 0.3, general=True),
    Slice("mnist-net_256x4", 0.5, general=True),
]


@pytest.mark.parametrize("case", SLICES, ids=lambda case: case.net)
def test_slices(case: Slice) -> None:
    spline = captured(case.net)
    plane = ma.partition(spline, case.plane(spline))
    assert 50 <= len(plane) <= 50_000, f"{len(plane)} cells: the slice tests little, or takes long"
    laws.check_all(spline, plane, case.points, case.general, case.edges)


@pytest.mark.parametrize("name", ["lenet", "eran_maxpool"])
def test_a_slice_through_images_with_blank_pixels(name: str) -> None:
    """Blank pixels tie in max pooling on the whole plane: the lowest index wins."""
    case = replace(next(s for s in SLICES if s.net == name), noise=0.0)
    spline = captured(name)
    plane = ma.partition(spline, case.plane(spline))
    laws.assert_areas(plane)
    laws.assert_euler(plane)
    laws.assert_edges(plane)
    laws.assert_edge_units(spline, plane)
    laws.assert_maps(spline, plane)
    laws.assert_codes(spline, plane, zeros=True)


# ---- zero sets ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bunny_2x50", "bunny_4x32"])
def test_outlines_are_closed_curves(name: str) -> None:
    spline = captured(name)
    plane = ma.partition(spline, flat())
    check(spline, plane, 100_000, general=True)
    laws.assert_level_set(spline, plane, 0)
    curves = plane.level_set(0)
    assert curves and all(np.array_equal(curve[0], curve[-1]) for curve in curves)
    for curve in curves:
        y = spline(plane.embed(curve)).flatten()
        assert float(y.detach().abs().max()) <= 1e-9


@pytest.mark.parametrize("name", ["bunny_3x16", "chair"])
def test_outlines_of_sections(name: str) -> None:
    """Three sections of a shape in space, at right angles and across."""
    spline = captured(name)
    axes = torch.eye(3, dtype=torch.float64)
    sections = [
        (0 * axes[0], axes[0], axes[1]),
        (0.1 * axes[0], axes[1], axes[2]),
        (0.05 * axes[1], axes[0] + axes[1], axes[2]),
    ]
    seen = 0
    for origin, u, v in sections:
        plane = ma.partition(spline, ma.Plane.square(*(x.reshape(spline.in_shape) for x in (origin, u, v))))
        check(spline, plane, 5000, general=True)
        laws.assert_level_set(spline, plane, 0)
        seen += len(plane.level_set(0))
    assert seen > 0
