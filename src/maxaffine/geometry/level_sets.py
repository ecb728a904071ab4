"""Level sets of an output on a plane: one segment a cell, joined to polylines by the edges they cross."""

import numpy as np

from maxaffine.geometry.kernels import entry
from maxaffine.geometry.relunet import Floats, Ints

ROUNDING = 1e-13  # of the terms of a value


def trace(vertices: Floats, edges: Ints, neighbours: Ints, slope: Floats, shift: Floats) -> list[Floats]:
    """Polylines where g = 0, with g = shift + slope (s, t) affine on each of F cells and continuous.

    On a cell the set is a segment between two of its edges. Each vertex has one value of g (a vertex on the level, up
    to rounding, counts as above it), so neighbours agree on which edges are crossed and the segments join by edge
    numbers.
    """
    owner = neighbours[:, 0]
    value, size = np.empty(len(vertices)), np.empty(len(vertices))
    for side in (1, 0):
        terms = slope[owner] * vertices[edges[:, side]]
        value[edges[:, side]] = shift[owner] + terms.sum(1)
        size[edges[:, side]] = np.abs(shift[owner]) + np.abs(terms).sum(1)
    value[np.abs(value) <= ROUNDING * size] = 0
    above = value >= 0
    crossed = np.flatnonzero(above[edges[:, 0]] != above[edges[:, 1]])
    if not len(crossed):
        return []
    a, c = (value[edges[crossed, k]] for k in (0, 1))
    share = (a / (a - c))[:, None]
    points = vertices[edges[crossed, 0]] * (1 - share) + vertices[edges[crossed, 1]] * share
    order, starts = _chains(neighbours[crossed], len(slope))
    lines = (points[order[p:q]] for p, q in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True))
    return [line for line in map(_apart, lines) if len(line) > 1]


def _apart(line: Floats) -> Floats:
    """Without points that equal the one before: the line passed through a vertex."""
    return line[np.concatenate([[True], (line[1:] != line[:-1]).any(1)])]


@entry
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
