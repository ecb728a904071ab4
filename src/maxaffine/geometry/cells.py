# pyright: reportArgumentType=false, reportReturnType=false
"""Finding the cells of a ReluNet in a polygon: the work, cut into independent tasks, and the arrays that come back."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from maxaffine.errors import DegenerateSliceError, InputError, MemoryBudgetError
from maxaffine.geometry.exploring import advance, explore
from maxaffine.geometry.kernels import BUNDLE, CULLED, LANES, LEAF, SHRUNK
from maxaffine.geometry.relunet import ELEMENTWISE, Floats, Ints, ReluNet

Track = Callable[[Iterable[int], str], Iterable[int]]

SMALL = 200  # units: such a net is done in one go
PER_WORKER = 16  # tasks


class Store(NamedTuple):
    """Cells that are cut by the units before some level; see kernels.py."""

    x: Floats
    y: Floats
    e: NDArray[np.int32]
    off: Ints
    M: Floats
    bits: NDArray[np.uint64]
    h: NDArray[np.uint64]


class Soup(NamedTuple):
    """Finished cells as separate polygons: corners, labels of the sides, offsets, bits, hashes, maps (F, O, 3)."""

    x: Floats
    y: Floats
    e: NDArray[np.int32]
    off: Ints
    bits: NDArray[np.uint64]
    h: NDArray[np.uint64]
    maps: Floats


@dataclass(frozen=True)
class Job:
    """A ReluNet on a polygon, with what counts as zero for each unit.

    strict: (U,) units for which vanishing identically up to rounding is an error; in a maximum it is a tie.
    """

    net: ReluNet
    corners: Floats
    zero: float

    def arrays(self) -> tuple[Floats, Ints, Ints]:
        """(P, levels, ids) for the kernels."""
        matrix = np.zeros((3 + self.net.units, len(self.net.A) + LANES))
        matrix[:3, :-LANES], matrix[3:, :-LANES] = self.net.A.T, self.net.V.T
        return matrix, self.net.levels, np.arange(self.net.units)

    def root(self) -> Store:
        """The whole polygon as one cell."""
        words, n = max(1, -(-self.net.units // 64)), len(self.corners)
        x, y = (np.ascontiguousarray(c) for c in self.corners.T)
        sides = -1 - np.arange(n, dtype=np.int32)
        bits, h = np.zeros((1, words), np.uint64), np.zeros(1, np.uint64)
        return Store(x, y, sides, np.array([0, n]), np.zeros((1, 0, 3)), bits, h)

    @property
    def eps(self) -> Floats:
        """(U,) what counts as zero."""
        return self.zero * self.net.magnitude

    @property
    def strict(self) -> NDArray[np.bool_]:
        """(U,) not part of a maximum."""
        return self.net.kind == ELEMENTWISE


def find_cells(job: Job, workers: int, limit: int, track: Track | None) -> tuple[Soup, NDArray[np.int32]]:
    """All cells of the job and the table of bundled labels.

    Raises MemoryBudgetError after more than `limit` cells, DegenerateSliceError when a unit vanishes on a cell up to
    rounding only.
    """
    level, store = 0, job.root()
    if workers > 1 or job.net.units > SMALL or track is not None:
        level, store = _started(job, PER_WORKER * workers)
    tasks = _ranges(len(store.h), PER_WORKER * workers if len(store.h) > 1 else 1)
    arrays, left = job.arrays(), limit
    soups, tables = [], []
    for soup, table in _run(job, arrays, level, store, tasks, workers, limit, track):
        left -= len(soup.h)
        if left < 0:
            raise stopped(limit)
        soups.append(soup)
        tables.append(table)
    return joined(soups, tables)


def stopped(limit: int) -> MemoryBudgetError:
    """The answer to a partition with more cells than asked for."""
    return MemoryBudgetError(
        f"stopped after {limit} cells; take a smaller polygon, or allow more with limit= (cells) and memory= (bytes)"
    )


def _started(job: Job, wanted: int) -> tuple[int, Store]:
    """Cut level by level until there are enough cells to hand out."""
    level, store, last = 0, job.root(), len(job.net.levels) - 1
    table = np.empty((0, 2), np.int32)
    while level < last and len(store.h) < wanted:
        new, table, count, failure = advance(job.arrays(), level, tuple(store), job.eps, job.strict, table, 0)
        _check(failure)
        if count:  # a bundle's number would have to be known in every task: leave the work in one piece
            return 0, job.root()
        level, store = level + 1, Store(*new)
    return level, store


def _ranges(cells: int, tasks: int) -> list[tuple[int, int]]:
    edges = np.unique(np.linspace(0, cells, min(cells, tasks) + 1).astype(int))
    return list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))


def _run(
    job: Job,
    arrays: tuple[Floats, Ints, Ints],
    level: int,
    store: Store,
    tasks: list[tuple[int, int]],
    workers: int,
    limit: int,
    track: Track | None,
) -> Iterator[tuple[Soup, NDArray[np.int32]]]:
    def work(task: tuple[int, int]) -> tuple[Soup, NDArray[np.int32]]:
        piece = taken(store, *task)
        found, table, failure = explore(arrays, level, tuple(piece), job.eps, job.strict, limit, LEAF, CULLED, SHRUNK)
        if failure == -3:
            raise stopped(limit)
        _check(failure)
        return Soup(*found), table

    numbers = range(len(tasks))
    shown = numbers if track is None else track(numbers, "cells of the plane")
    if workers == 1:
        yield from (work(tasks[i]) for i in shown)
        return
    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(work, task) for task in tasks]
        try:
            yield from (futures[i].result() for i in shown)
        finally:
            for future in futures:
                future.cancel()


def taken(store: Store, first: int, last: int) -> Store:
    """Cells first .. last of a store."""
    a, b = store.off[first], store.off[last]
    return Store(
        store.x[a:b].copy(),
        store.y[a:b].copy(),
        store.e[a:b].copy(),
        store.off[first : last + 1] - a,
        store.M[first:last].copy(),
        store.bits[first:last].copy(),
        store.h[first:last].copy(),
    )


def joined(soups: list[Soup], tables: list[NDArray[np.int32]]) -> tuple[Soup, NDArray[np.int32]]:
    """Soups one after the other; labels of bundles shifted to their place in the common table."""
    if len(soups) == 1:
        return soups[0], tables[0]
    rows = 0
    for soup, table in zip(soups, tables, strict=True):
        for labels in (soup.e, table):
            labels[labels >= BUNDLE] += rows
        rows += len(table)
    starts = np.cumsum([0, *(len(s.x) for s in soups)])
    off = np.concatenate([np.zeros(1, np.int64), *(s.off[1:] + a for s, a in zip(soups, starts, strict=False))])
    merged = {name: np.concatenate([getattr(s, name) for s in soups]) for name in ("x", "y", "e", "bits", "h", "maps")}
    return Soup(off=off, **merged), np.concatenate(tables)


def _check(failure: int) -> None:
    if failure >= 0:
        raise Vanishing(failure)
    if failure == -2:
        raise InputError("a cell has more than 500 sides; give a polygon with fewer corners")


class Vanishing(DegenerateSliceError):
    """A unit that is zero up to rounding on a whole cell."""

    def __init__(self, unit: int) -> None:
        super().__init__(f"reduced unit {unit} vanishes on a whole cell up to rounding")
        self.unit = unit
