"""Numbers of each cell of a plane partition."""

from typing import NamedTuple

import numpy as np

from maxaffine.geometry.plane import PlanePartition
from maxaffine.geometry.relunet import Floats, Ints


class Statistics(NamedTuple):
    """Per cell (F,): number of sides, area in (s, t), eccentricity in [0, 1), and the spectral norm of A."""

    sides: Ints
    area: Floats
    eccentricity: Floats
    slope: Floats


def statistics(plane: PlanePartition) -> Statistics:
    """Sides, area, eccentricity and slope of every cell.

    eccentricity: sqrt(1 - m / M) of the ellipse with the cell's second moments (m <= M), 0 for a disc or square, near 1
    for a sliver. slope: largest singular value of A (out, 2), in output units per unit of (s, t).

    >>> import torch, maxaffine as ma
    >>> spline = ma.Spline(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.ReLU()), torch.zeros(1, 2))
    >>> plane = ma.partition(spline, ma.Plane.square(torch.zeros(2), torch.tensor([1.0, 0]), torch.tensor([0, 1.0])))
    >>> statistics(plane).sides.tolist(), sorted(statistics(plane).slope.tolist())
    ([4, 4, 4, 4], [0.0, 1.0, 1.0, 1.0])
    """
    offsets, indices = plane.cells
    sides = np.diff(offsets)
    cell = np.repeat(np.arange(len(plane)), sides)
    following = np.arange(1, len(indices) + 1)
    following[offsets[1:] - 1] = offsets[:-1]
    p = plane.vertices[indices] - plane.centres[cell]
    q = p[following]
    weight = (p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]) / 2  # areas of the triangles around the centre
    area = np.maximum(plane.areas, np.finfo(float).tiny)
    total = lambda values: np.add.reduceat(values, offsets[:-1]) / area  # noqa: E731
    mean = np.stack([total(weight * (p[:, k] + q[:, k]) / 3) for k in (0, 1)], 1)
    moment = lambda k, m: (  # noqa: E731  of a triangle with corners 0, p, q
        total(weight * (2 * p[:, k] * p[:, m] + 2 * q[:, k] * q[:, m] + p[:, k] * q[:, m] + q[:, k] * p[:, m]) / 12)
        - mean[:, k] * mean[:, m]
    )
    xx, xy, yy = moment(0, 0), moment(0, 1), moment(1, 1)
    middle, spread = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
    ratio = np.clip((middle - spread) / np.maximum(middle + spread, np.finfo(float).tiny), 0, 1)
    slope = np.linalg.norm(plane.A.reshape(len(plane), -1, 2), 2, axis=(1, 2))
    return Statistics(sides, plane.areas, np.sqrt(1 - ratio), slope)
