"""The level-synchronous search for cells on tensors: the same cells as the compiled one, and the exact ones."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import numpy as np
import plane_laws as laws
import pytest
import test_plane_degenerate as degenerate
import torch
from exact_partition import partition as exact_partition
from exact_plane import as_plane, assert_same
from net import inputs_of
from nets import BY_NAME, captured
from torch import nn

import maxaffine as ma
from maxaffine.errors import InputError, MemoryBudgetError
from maxaffine.geometry import planes, synchronous_cut
from maxaffine.geometry.cells import Job, Soup, Vanishing, find_cells
from maxaffine.geometry.kernels import BUNDLE
from maxaffine.geometry.mesh import build, measured
from maxaffine.geometry.planes import reduced
from maxaffine.geometry.relunet import ELEMENTWISE, TOURNAMENT, ReluNet
from maxaffine.geometry.synchronous import find_cells_on, hashed_bits, hashes_of

CPU = torch.device("cpu")
ZERO, ALL = 1e-13, 1 << 40
SMALL, LARGE = 1 << 17, 1 << 26  # bytes: many groups, with culling; one group
KINDS = (
    *("ramp_leaky_relu", "ramp_abs", "ramp_hardtanh", "residual", "reused", "two_live", "maxout", "degenerate"),
    *("pool_overlapping", "pool_padded", "adaptive_max", "resnet_block", "blank"),
)
Found = tuple[Soup, np.ndarray]


def square(half: float, corners: int = 4) -> ma.Plane:
    """A regular polygon around the origin of R^2."""
    eye = half * torch.eye(2, dtype=torch.float64)
    turn = 2 * np.pi * (np.arange(corners) + 0.5) / corners
    return ma.Plane.polygon(torch.zeros(2), *eye, np.stack([np.cos(turn), np.sin(turn)], 1).tolist())


@lru_cache
def mlp(*widths: int, bias: bool = True) -> ma.Spline:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for into, out in pairwise(widths):
        layers += [nn.Linear(into, out, bias), nn.ReLU()]
    return ma.Spline(nn.Sequential(*layers[:-1]).double(), torch.zeros(1, widths[0], dtype=torch.float64))


def listed(name: str) -> tuple[ma.Spline, ma.Plane]:
    net = BY_NAME[name]
    origin, u, v = inputs_of(net, 3)
    return captured(name), ma.Plane.polygon(origin, 2 * u, 2 * v, degenerate.TRIANGLE)


def compared(spline: ma.Spline, plane: ma.Plane, memory: int, device: torch.device = CPU) -> int:
    """Both searches find the same cells and make the same mesh of them; returns their number."""
    job = Job(reduced(spline, plane), plane.corners, ZERO)
    wanted = find_cells(job, 1, ALL, None)
    found = find_cells_on(job, device, ALL, memory)
    assert_same_cells(wanted, found)
    assert_same_mesh(job.net, wanted, found)
    return len(found[0].h)


def assert_same_cells(wanted: Found, found: Found) -> None:
    """Cell by cell, matched by their hashes: units that are on, units of the sides, areas, output maps."""
    (a, _), (b, _) = wanted, found
    for one, two in zip(a, b, strict=True):
        assert one.dtype == two.dtype and one.shape == two.shape and two.flags["C_CONTIGUOUS"]
    here, there = np.argsort(b.h), np.argsort(a.h)
    assert len(np.unique(b.h)) == len(b.h)
    np.testing.assert_array_equal(b.h[here], a.h[there])
    np.testing.assert_array_equal(b.bits[here], a.bits[there])
    same = sides(*found, here) == sides(*wanted, there)
    assert same, "other units on the sides"  # no diff of these lists: it takes minutes
    np.testing.assert_allclose(areas(b)[here], areas(a)[there], rtol=0, atol=1e-9)
    np.testing.assert_allclose(b.maps[here], a.maps[there], rtol=0, atol=1e-9 * max(1.0, np.abs(a.maps).max()))


def sides(soup: Soup, bundles: np.ndarray, order: np.ndarray) -> list[tuple[int, list[int]]]:
    """For every side the rank of its cell and the units that vanish along it, the one that cut there first in front."""
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    cell, rows = np.repeat(rank, np.diff(soup.off)).tolist(), bundles.tolist()
    found = []
    for c, label in zip(cell, soup.e.tolist(), strict=True):
        units = []
        while label >= BUNDLE:
            label, unit = rows[label - BUNDLE]
            units.insert(0, unit)
        found.append((c, [label, *units]))
    return sorted(found)


def areas(soup: Soup) -> np.ndarray:
    following = np.arange(1, len(soup.x) + 1)
    following[soup.off[1:] - 1] = soup.off[:-1]
    return np.add.reduceat(soup.x * soup.y[following] - soup.x[following] * soup.y, soup.off[:-1]) / 2


def assert_same_mesh(net: ReluNet, wanted: Found, found: Found) -> None:
    """Vertices, cells, edges and their units in number, after cells of one code are merged; V - E + F = 1."""
    merging = bool((net.kind == TOURNAMENT).any())
    meshes = [build(tuple(s[:6]), table, net.last, net.left, net.right, merging) for s, table in (wanted, found)]
    (lost, vertices, offsets, indices, edges, *_, units, _), other = meshes[1], meshes[0]
    assert lost == 0 and len(vertices) - len(edges) + len(offsets) - 1 == 1
    assert [len(array) for array in meshes[1][1:]] == [len(array) for array in other[1:]]
    np.testing.assert_array_equal(np.bincount(units), np.bincount(other[7]))
    mine, theirs = measured(vertices, offsets, indices)[0], measured(*other[1:4])[0]
    np.testing.assert_allclose(np.sort(mine), np.sort(theirs), rtol=0, atol=1e-9)


# ---- the same cells ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", [1 << 20, LARGE])
def test_random_networks(memory: int) -> None:
    assert compared(mlp(2, 16, 16, 1), square(4.0), memory) > 300
    assert compared(mlp(2, 32, 32, 32, 1), square(3.0, 7), memory) > 2000


def test_a_wide_network_in_groups() -> None:
    """More than 64 units a level, and so many cells that groups are cut in two and culled again and again."""
    assert compared(mlp(2, 90, 90, 2), square(1.0), 1 << 21) > 3000


@pytest.mark.parametrize("name", KINDS)
def test_kinds_of_networks(name: str) -> None:
    for memory in (SMALL, LARGE):
        assert compared(*listed(name), memory) >= 5


def test_a_network_with_pooling() -> None:
    torch.manual_seed(0)
    layers = (nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(3, 4, 3), nn.LeakyReLU(0.1))
    spline = ma.Spline(
        nn.Sequential(*layers, nn.Flatten(), nn.Linear(16, 3)).double(), torch.zeros(1, 1, 8, 8).double()
    )
    origin, u, v = torch.randn(3, 1, 8, 8, dtype=torch.float64)
    plane = ma.Plane.polygon(origin, u, v, degenerate.TRIANGLE)
    assert compared(spline, plane, LARGE) == compared(spline, plane, 1 << 21) > 300


def test_a_network_without_units_is_one_cell() -> None:
    assert compared(mlp(2, 3), square(1.0, 5), SMALL) == 1


def test_more_corners_than_compiled_cells_may_have() -> None:
    plane = square(4.0, 600)
    job = Job(reduced(mlp(2, 6, 1), plane), plane.corners, ZERO)
    found = find_cells_on(job, CPU, ALL, LARGE)
    np.testing.assert_allclose(areas(found[0]).sum(), plane.area, rtol=1e-12)
    assert np.diff(found[0].off).sum() == 4 * (len(found[0].h) - 1) + 600


# ---- coincidences -----------------------------------------------------------------------------------------------

COINCIDENT = (
    *("8 lines through the origin", "lines through (1/3, 1/3)", "duplicated units", "scaled and opposite units"),
    *("no bias, three layers", "re-used layer", "relu twice", "a unit that cancels", "slice inside a wall"),
    *("maxima that meet in one point", "pooled zeros", "a maximum with its relu", "all ramps on one grid"),
)


@pytest.mark.parametrize("polygon", ["box", "side on a wall"])
@pytest.mark.parametrize("name", COINCIDENT)
def test_coincidences_as_in_rational_arithmetic(name: str, polygon: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case, corners, spline = degenerate.CASES[name], degenerate.POLYGONS[polygon], degenerate.captured(name)
    axes = (torch.tensor([float(c) for c in axis], dtype=torch.float64) for axis in case.axes)
    plane = ma.Plane.polygon(*axes, corners)
    monkeypatch.setattr(planes, "find_cells", lambda job, *_: find_cells_on(job, CPU, ALL, SMALL))
    assert_same(as_plane(exact_partition(case.layers, corners, *case.axes), spline, plane), ma.partition(spline, plane))


def test_duplicated_weights_in_groups() -> None:
    """Every line three times, scaled; every unit of the second layer twice; all lines of the first through a point."""
    torch.manual_seed(0)
    first, second = nn.Linear(2, 8).double(), nn.Linear(24, 12).double()
    with torch.no_grad():
        first.bias.copy_(-first.weight @ torch.tensor([0.1, 0.3]).double())
        first.weight, first.bias = (
            nn.Parameter(torch.cat([k * p for k in (1.0, 3.7, -0.3)])) for p in (first.weight, first.bias)
        )
        for p in (second.weight, second.bias):
            p[6:] = p[:6]
    model = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 1)).double()
    spline = ma.Spline(model, torch.zeros(1, 2, dtype=torch.float64))
    for memory in (SMALL, LARGE):
        assert compared(spline, square(2.0), memory) > 100


def test_every_law_of_a_partition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(planes, "find_cells")  # the compiled search has no part in it
    spline = mlp(2, 24, 24, 2)
    laws.check_all(spline, ma.partition(spline, square(4.0), device="cpu"), 3000, general=True)


# ---- the parts --------------------------------------------------------------------------------------------------


def splitmix(k: int) -> int:
    """Steele, Lea & Flood, 2014, with Python's integers."""
    z, ones = (k + 1) * 0x9E3779B97F4A7C15, 2**64 - 1
    z = ((z & ones) ^ ((z & ones) >> 30)) * 0xBF58476D1CE4E5B9
    z = ((z & ones) ^ ((z & ones) >> 27)) * 0x94D049BB133111EB
    return (z & ones) ^ ((z & ones) >> 31)


def test_hashes() -> None:
    numbers = np.array([splitmix(k) for k in range(150)], np.uint64)
    np.testing.assert_array_equal(hashes_of(150, CPU).numpy().view(np.uint64), numbers)
    on = np.random.default_rng(0).random((40, 150)) < 0.5
    wanted = [np.bitwise_xor.reduce(numbers[row]) if row.any() else 0 for row in on]
    bits = np.zeros((40, 3), np.uint64)
    for k in range(150):
        bits[:, k >> 6] |= on[:, k].astype(np.uint64) << np.uint64(k & 63)
    found = hashed_bits(torch.from_numpy(bits.view(np.int64)), hashes_of(150, CPU))
    np.testing.assert_array_equal(found.numpy().view(np.uint64), np.array(wanted, np.uint64))


def test_every_tensor_is_made_on_the_device_asked_for() -> None:
    """Here everything that is made without naming a device comes to lie on 'meta', which does not mix with others."""
    plane = square(4.0)
    job = Job(reduced(mlp(2, 16, 16, 1), plane), plane.corners, ZERO)
    with torch.device("meta"):
        assert torch.zeros(1).device.type == "meta"
        found = find_cells_on(job, CPU, ALL, SMALL)
    assert_same_cells(find_cells(job, 1, ALL, None), found)


# ---- refusals ---------------------------------------------------------------------------------------------------


def test_a_limit_on_the_cells() -> None:
    plane = square(4.0)
    job = Job(reduced(mlp(2, 16, 16, 1), plane), plane.corners, ZERO)
    count = len(find_cells(job, 1, ALL, None)[0].h)
    for memory in (SMALL, LARGE):
        assert len(find_cells_on(job, CPU, count, memory)[0].h) == count
        for limit in (count - 1, count // 2, 1):
            with pytest.raises(MemoryBudgetError, match=f"stopped after {limit} cells"):
                find_cells_on(job, CPU, limit, memory)


def test_it_stops_within_a_level(monkeypatch: pytest.MonkeyPatch) -> None:
    """No round begins with more pieces than the limit allows cells."""
    seen: list[int] = []

    def watched(pieces: synchronous_cut.Pieces, *rest: object) -> synchronous_cut.Pieces:
        seen.append(len(pieces.parent))
        return whole(pieces, *rest)

    whole = synchronous_cut.cut_once
    monkeypatch.setattr(synchronous_cut, "cut_once", watched)
    plane = square(4.0)
    for memory in (SMALL, LARGE):
        with pytest.raises(MemoryBudgetError):
            find_cells_on(Job(reduced(mlp(2, 60, 1), plane), plane.corners, ZERO), CPU, 100, memory)
        assert 50 < max(seen) <= 100


def noise(kind: int) -> ReluNet:
    """relu(s), then 0.3 relu(s) - 0.1 relu(3 s) as float64 rounds it: zero on a half plane but for rounding."""
    A = np.array([[0, 1.0, 0], [0, 3.0, 0], [2e-17, 1e-17, 0], [0, 0, 0]])
    V = np.array([[0, 0, 0], [0, 0, 0], [0.3, -0.1, 0], [0, 0, 1.0]])
    flat, none = np.zeros(3, np.int64), np.zeros((0, 3), np.int64)
    kinds = np.array([ELEMENTWISE, ELEMENTWISE, kind])
    left, right = flat - 1, flat - 2
    return ReluNet(
        A,
        V,
        np.array([0, 2, 3]),
        np.ones(3),
        flat,
        np.arange(3),
        left,
        right,
        np.arange(3),
        kinds,
        none,
        (np.zeros(3, np.int64),),
    )


def test_a_unit_that_is_zero_up_to_rounding() -> None:
    """Refused, as the compiled search refuses it; in a maximum it is a tie."""
    corners = square(1.0).corners
    for search in (lambda job: find_cells(job, 1, ALL, None), lambda job: find_cells_on(job, CPU, ALL, LARGE)):
        with pytest.raises(Vanishing) as refusal:
            search(Job(noise(ELEMENTWISE), corners, ZERO))
        assert refusal.value.unit == 2
        assert len(search(Job(noise(TOURNAMENT), corners, ZERO))[0].h) == 2


def test_devices_that_cannot_serve() -> None:
    plane = square(1.0)
    job = Job(reduced(mlp(2, 3, 1), plane), plane.corners, ZERO)
    with pytest.raises(InputError, match="float64"):
        find_cells_on(job, torch.device("mps"), ALL, LARGE)
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="no CUDA device"):
            find_cells_on(job, torch.device("cuda"), ALL, LARGE)


# ---- on a GPU ---------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
@pytest.mark.parametrize("memory", [SMALL, LARGE])
def test_on_a_gpu(memory: int) -> None:
    device = torch.device("cuda")
    for spline, plane in ((mlp(2, 32, 32, 32, 1), square(3.0, 7)), listed("pool_overlapping"), listed("degenerate")):
        assert compared(spline, plane, memory, device) >= 5
