"""Six colours for the cells of a plane, so that no two neighbours have the same."""

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
COLOURS = 6
SEED = 0


def colour_cells(neighbours: Ints, count: int) -> Ints:
    """Give each of ``count`` cells a number 0 to 5, different from those of its neighbours.

    neighbours: (E, 2) cells on both sides of each edge, -1 outside. A planar graph always has a vertex of degree 5 or
    less. Such vertices are taken away again and again, many at a time; put back in the reverse order each meets at
    most five neighbours that have a colour. The choice among the free colours is random, with a fixed seed.

    >>> len(set(colour_cells(np.array([[0, 1], [1, 2], [2, 0], [2, -1]]), 3).tolist()))
    3
    """
    pairs = _pairs(neighbours, count)
    random = np.random.default_rng(SEED)
    rank = _peeled(pairs, count) * count + random.permutation(count)
    later, sooner = np.where((rank[pairs[:, 0]] > rank[pairs[:, 1]])[:, None], pairs[:, ::-1], pairs).T
    return _put_back(later, sooner, count, random)


def _pairs(neighbours: Ints, count: int) -> Ints:
    """Neighbouring cells (P, 2), each pair once: two cells may share several edges."""
    inner = np.sort(neighbours[(neighbours >= 0).all(1)], axis=1)
    keys = np.unique(inner[:, 0] * count + inner[:, 1])
    return np.stack([keys // count, keys % count], axis=1)


def _peeled(pairs: Ints, count: int) -> Ints:
    """The round in which each cell is taken away."""
    rounds, alive, now = np.zeros(count, np.int64), np.ones(count, bool), 0
    while alive.any():
        free = alive & (np.bincount(pairs.ravel(), minlength=count) < COLOURS)
        if not free.any():  # not planar: what is left shares colours
            free = alive
        rounds[free], now = now, now + 1
        alive &= ~free
        pairs = pairs[alive[pairs].all(1)]
    return rounds


def _put_back(later: Ints, sooner: Ints, count: int, random: np.random.Generator) -> Ints:
    """Colour each cell as soon as all neighbours that go before it (taken away later) have a colour."""
    colours = np.full(count, -1, np.int64)
    used = np.zeros(count, np.int64)
    waiting = np.ones(count, bool)
    while waiting.any():
        ready = waiting.copy()
        ready[later] = False
        cells = np.flatnonzero(ready)
        colours[cells] = _free(used[cells], random)
        waiting[cells] = False
        done = ready[sooner]
        np.bitwise_or.at(used, later[done], 1 << colours[sooner[done]])
        later, sooner = later[~done], sooner[~done]
    return colours


def _free(used: Ints, random: np.random.Generator) -> Ints:
    """A random colour whose bit is not set."""
    start = random.integers(0, COLOURS, len(used))
    best = start.copy()
    for step in reversed(range(COLOURS)):
        colour = (start + step) % COLOURS
        best = np.where(used >> colour & 1, best, colour)
    return best
