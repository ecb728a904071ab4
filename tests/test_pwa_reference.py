"""Our maps against complete partitions that another program found: 18 and 202 cells."""

from __future__ import annotations

from functools import lru_cache

import laws
import numpy as np
import pytest
import torch
from assets import needs_assets
from pwa import Cell, reference
from real_models import pendulum, quadratic
from real_nets import PWA
from scipy.optimize import linprog
from torch import Tensor

import maxaffine as ma

pytestmark = needs_assets
LOADERS = {
    "pendulum": (pendulum, "NN_params_pendulum.mat"),
    "quadratic": (quadratic, "quadratic_weights.npz"),
}
HALF_WIDTH = {"pendulum": np.pi / 2, "quadratic": 1.0}
each = pytest.mark.parametrize("name", LOADERS)


@lru_cache
def spline_of(name: str) -> ma.Spline:
    load, file = LOADERS[name]
    return ma.Spline(load(PWA + file), torch.zeros(1, 2, dtype=torch.float64))


def centre(cell: Cell) -> Tensor:
    """The centre of the largest disc in a cell: a linear program."""
    a, b = cell.A.numpy(), cell.b.numpy()
    lengths = np.linalg.norm(a, axis=1, keepdims=True)
    best = linprog([0, 0, -1], np.hstack((a, lengths)), b, bounds=[(None, None)] * 2 + [(0, None)])
    assert best.x[2] > 0
    return torch.from_numpy(best.x[:2])


@each
def test_maps_at_ten_thousand_points(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x = (2 * torch.rand(10_000, 2, generator=generator, dtype=torch.float64) - 1) * HALF_WIDTH[name]
    f, seen = spline_of(name).at(x), torch.zeros(len(x), dtype=torch.bool)
    for cell in reference(name):
        inside = cell.contains(x)
        laws.assert_close(f.A[inside], cell.C.expand_as(f.A[inside]))
        laws.assert_close(f.b[inside], cell.d.expand_as(f.b[inside]))
        seen |= inside
    assert bool(seen.all())


@each
def test_map_and_walls_of_every_cell(name: str) -> None:
    spline, cells = spline_of(name), reference(name)
    centres = torch.stack([centre(cell) for cell in cells])
    f = spline.at(centres)
    laws.assert_close(f.A, torch.stack([cell.C for cell in cells]))
    laws.assert_close(f.b, torch.stack([cell.d for cell in cells]))
    assert len(set(spline.code(centres).ids())) == len(cells)
    for cell, point in zip(cells, centres, strict=True):
        corners = vertices(cell)
        region = spline.region(point)
        assert bool(region.contains(point + 0.999 * (corners - point)).all())
        beyond = point + 1.001 * (corners - point)
        inside_domain = (beyond.abs() < HALF_WIDTH[name]).all(1)
        assert not bool(region.contains(beyond)[inside_domain].any())


def vertices(cell: Cell) -> Tensor:
    """The corners of a cell: intersections of two of its lines that satisfy all the others."""
    corners = []
    for i in range(len(cell.b)):
        for j in range(i):
            pair = torch.stack((cell.A[i], cell.A[j]))
            if torch.linalg.det(pair).abs() > 1e-9:
                corners.append(torch.linalg.solve(pair, cell.b[[i, j]]))
    points = torch.stack(corners)
    return points[(points @ cell.A.T <= cell.b + 1e-7).all(1)]
