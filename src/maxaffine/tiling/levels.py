"""The cells after the first operators: a partition is built up by one operator after the other."""

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from maxaffine.geometry.plane import PlanePartition

Ints = NDArray[np.int64]


def edge_operators(plane: "PlanePartition") -> Ints:
    """(E,) the first operator that changes across each edge, by its place in the network; -1 on the border."""
    lists = plane.edge_units
    first = np.full(len(lists), len(lists.names), np.int64)
    np.minimum.at(first, np.repeat(np.arange(len(lists)), np.diff(lists.offsets)), lists.operators)
    return np.where(first < len(lists.names), first, -1)


def edges_of(plane: "PlanePartition", operator: str, unit: int) -> NDArray[np.bool_]:
    """(E,) whether one unit changes across each edge."""
    lists = plane.edge_units
    here = (lists.operators == lists.names.index(operator)) & (lists.units == unit)
    found = np.zeros(len(lists), bool)
    found[np.searchsorted(lists.offsets, np.flatnonzero(here), side="right") - 1] = True
    return found


def switching_units(plane: "PlanePartition", operator: str) -> Ints:
    """The units of an operator that change somewhere on the plane, the one with most edges first."""
    lists = plane.edge_units
    units, counts = np.unique(lists.units[lists.operators == lists.names.index(operator)], return_counts=True)
    return units[(-counts).argsort(kind="stable")]


def merge_cells(neighbours: Ints, count: int, walls: Collection[bool] | NDArray[np.bool_]) -> Ints:
    """Join cells across every edge that is no wall: (F,) the number of the joined cell, 0, 1, 2 ...

    A region of the first k operators is convex, so it is connected: with the edges of those operators as walls the
    joined cells are exactly the regions of the network that ends behind operator k.

    >>> merge_cells(np.array([[0, 1], [1, 2], [2, -1]]), 3, [True, False, True]).tolist()
    [0, 1, 1]
    """
    inner = (neighbours >= 0).all(1) & ~np.asarray(walls, bool)
    a, b = neighbours[inner].T
    lowest = np.arange(count)
    while (lowest[a] != lowest[b]).any():
        least = np.minimum(lowest[a], lowest[b])
        for end in (a, b):
            np.minimum.at(lowest, lowest[end], least)
        while (lowest[lowest] != lowest).any():
            lowest = lowest[lowest]
    return np.unique(lowest, return_inverse=True)[1].astype(np.int64)
