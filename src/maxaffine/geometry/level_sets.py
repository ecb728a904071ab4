"""Level sets of an output on a plane: one segment a cell, joined to polylines by the edges they cross."""

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from maxaffine.errors import InputError
from maxaffine.geometry.relunet import Floats, Ints

if TYPE_CHECKING:
    from maxaffine.geometry.plane import PlanePartition


def trace(plane: "PlanePartition", i: int, j: int | None, level: float) -> list[Floats]:
    """Polylines where out[i] - out[j] (out[i] without j) equals level.

    On a cell g = b + A (s, t) is affine, so the set is a segment between two of its edges. Each vertex has one value of
    g (a vertex on the level counts as above it), so neighbouring cells agree on which edges are crossed and the
    segments join by edge numbers.
    """
    A, b = plane.A.reshape(len(plane), -1, 2), plane.b.reshape(len(plane), -1)
    outputs = b.shape[1]
    for index in (i, j):
        if index is not None and not -outputs <= index < outputs:
            raise InputError(f"output {index} of a network with {outputs} outputs")
    slope, shift = A[:, i], b[:, i] - level
    if j is not None:
        slope, shift = slope - A[:, j], shift - b[:, j]
    ends, owner = plane.edges, plane.neighbours[:, 0]
    value = np.empty(len(plane.vertices))
    for side in (1, 0):
        value[ends[:, side]] = shift[owner] + (slope[owner] * plane.vertices[ends[:, side]]).sum(1)
    above = value >= 0
    crossed = np.flatnonzero(above[ends[:, 0]] != above[ends[:, 1]])
    if not len(crossed):
        return []
    a, c = (value[ends[crossed, k]] for k in (0, 1))
    share = (a / (a - c))[:, None]
    points = plane.vertices[ends[crossed, 0]] * (1 - share) + plane.vertices[ends[crossed, 1]] * share
    order, starts = _chains(plane.neighbours[crossed], len(plane))
    return [points[order[p:q]] for p, q in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)]


@njit(cache=True)
def _chains(neighbours: Ints, cells: int) -> tuple[Ints, Ints]:
    """Crossed edges in the order of the polylines, and where each begins; a closed one ends with its first edge."""
    pair = np.full((cells, 2), -1, np.int64)
    for k in range(len(neighbours)):
        for side in range(2):
            c = neighbours[k, side]
            if c >= 0:
                pair[c, 0 if pair[c, 0] < 0 else 1] = k
    done = np.zeros(len(neighbours), np.bool_)
    order, starts, at, count = np.empty(2 * len(neighbours), np.int64), np.zeros(len(neighbours) + 1, np.int64), 0, 0
    for closed in range(2):
        for first in range(len(neighbours)):
            if done[first] or (closed == 0 and neighbours[first, 1] >= 0 and neighbours[first, 0] >= 0):
                continue
            k, cell = first, neighbours[first, 0]
            while True:
                order[at], done[k] = k, True
                at += 1
                if cell < 0:
                    break
                k = pair[cell, 0] if pair[cell, 1] == k else pair[cell, 1]
                if done[k]:
                    order[at] = first
                    at += 1
                    break
                cell = neighbours[k, 0] if neighbours[k, 1] == cell else neighbours[k, 1]
            count += 1
            starts[count] = at
    return order[:at], starts[: count + 1]
