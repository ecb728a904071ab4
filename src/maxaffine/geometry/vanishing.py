"""Units that are nothing but rounding on a whole cell: zero in the whole region around it, or the slice in their wall?

A wall is crossed in some direction of the input space. A unit that changes in none, up to rounding, is a difference of
equal functions: it has no wall there, and counts as exactly zero, which is piece 0 of a ReLU.
"""

from collections.abc import Iterator
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from maxaffine.errors import DegenerateSliceError
from maxaffine.geometry.cells import Job, Soup
from maxaffine.geometry.exploring import FLAT
from maxaffine.geometry.line_cut import CHUNK
from maxaffine.geometry.line_network import Network
from maxaffine.geometry.relunet import ELEMENTWISE, Floats, Ints
from maxaffine.geometry.scales import PROBES, ZERO, unit_scale
from maxaffine.program.links import AffineLink
from maxaffine.program.plan import Step
from maxaffine.slice import Plane
from maxaffine.spline import Spline


def vanishing(operator: str, unit: int) -> DegenerateSliceError:
    """The answer when a unit is nothing but rounding on a whole cell."""
    return DegenerateSliceError(
        f"unit {unit} of operator {operator!r} is zero, up to rounding, on a whole cell of the plane: "
        "the slice lies inside its wall; move the origin off the wall"
    )


class Surroundings:
    """What the units of a spline are around a plane: asked about those that are next to nothing on it."""

    def __init__(self, spline: Spline, plane: Plane) -> None:
        self.spline, self.plane = spline, plane
        self.size = max(float(v.square().mean().sqrt()) for v in (plane.origin, plane.u, plane.v))

    @cached_property
    def network(self) -> Network:
        """The spline, run on points and directions."""
        return Network(self.spline.to("cpu").to(torch.float64))

    def step(self, operator: int) -> Step:
        """The spline operator with that number."""
        return [link for link in self.network.links if not isinstance(link, AffineLink)][operator]

    def random(self, count: int) -> Tensor:
        """(count, *in): random directions of the size of the plane's inputs, always the same."""
        generator = torch.Generator().manual_seed(0)
        return self.size * torch.randn(count, *self.plane.origin.shape, generator=generator, dtype=torch.float64)

    def scale(self, operator: int) -> Tensor:
        """(units,): how large each unit of an operator is there."""
        base, nudge = self.random(2 * PROBES).chunk(2)
        return unit_scale(self.network, self.step(operator), self.plane.origin + base, nudge)

    def require_no_wall(self, operator: int, points: Floats, units: Ints) -> None:
        """Raise DegenerateSliceError where a unit, zero at points (n, 2) of the plane, changes beside the plane.

        Each is watched in a random direction of the input space: it changes by less than 1e-12 of the largest number
        of its operator, or the slice lies in its wall.
        """
        for rows in np.array_split(np.arange(len(units)), 1 + len(units) * 8 * self.network.largest // CHUNK):
            x = self.plane.embed(points[rows])
            there = self.network.at(self.step(operator), x, self.random(1).expand_as(x))
            speed = self.network.walls(there, there.slopes, True).abs().amax(0)[torch.arange(len(x)), units[rows]]
            wall = (speed > ZERO * self.network.scale(there, len(x))).numpy()
            if wall.any():
                raise vanishing(self.spline.operators[operator].name, int(units[rows][wall][0]))

    def require_no_walls(self, job: Job, soup: Soup) -> None:
        """The same for all units that vanish on a cell up to rounding."""
        cells, units = noise(job, soup)
        sums = np.stack([np.add.reduceat(c, soup.off[:-1]) for c in (soup.x, soup.y)], 1)
        centres = sums / np.diff(soup.off)[:, None]
        for k in np.unique(job.net.operator[units]):
            mine = job.net.operator[units] == k
            self.require_no_wall(k, centres[cells[mine]], job.net.unit[units[mine]])


def noise(job: Job, soup: Soup) -> tuple[Ints, Ints]:
    """Cells and reduced units that vanish on them up to rounding, but not exactly: see exploring.noisy."""
    found = [(first + cell, unit) for first, part in _chunks(job, soup) for cell, unit in [_flat(job, part)]]
    cells, units = zip(*found, strict=True) if found else ((), ())
    return np.concatenate([np.zeros(0, np.int64), *cells]), np.concatenate([np.zeros(0, np.int64), *units])


def _chunks(job: Job, soup: Soup) -> Iterator[tuple[int, Soup]]:
    """The cells in parts that fit in memory, and the number of the first of each."""
    count = len(soup.h)
    parts = 1 + count * 64 * max(1, job.net.units) // CHUNK
    for a, b in pairwise(np.unique(np.linspace(0, count, parts + 1).astype(np.int64)).tolist()):
        span = slice(soup.off[a], soup.off[b])
        x, y, e = soup.x[span], soup.y[span], soup.e[span]
        yield a, Soup(x, y, e, soup.off[a : b + 1] - soup.off[a], soup.bits[a:b], soup.h[a:b], soup.maps[a:b])


def _flat(job: Job, soup: Soup) -> tuple[Ints, Ints]:
    z, eps = _maps(job, soup), job.eps
    corner = np.repeat(np.arange(len(soup.h)), np.diff(soup.off))
    points = np.stack([np.ones_like(soup.x), soup.x, soup.y])
    values = sum(points[c][:, None] * z[c][corner] for c in range(3))
    high = np.maximum.reduceat(np.abs(values), soup.off[:-1], 0)
    flat = (high <= eps) & (np.abs(z[1]) + np.abs(z[2]) <= FLAT * eps) & (z != 0).any(0)
    return np.nonzero(flat & (job.net.kind == ELEMENTWISE))  # type: ignore[return-value]


def _maps(job: Job, soup: Soup) -> Floats:
    """(3, F, U): the map of every reduced unit on every cell."""
    net = job.net
    on = np.unpackbits(soup.bits.view(np.uint8), axis=1, bitorder="little")[:, : net.units]
    z = np.empty((3, len(soup.h), net.units))
    for a, b in pairwise(net.levels.tolist()):
        z[..., a:b] = net.A[a:b].T[:, None] + (z[..., :a] * on[:, :a]) @ net.V[a:b, :a].T
    return z
