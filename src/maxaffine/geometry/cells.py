# pyright: reportArgumentType=false, reportReturnType=false
"""Finding the cells of a ReluNet in a polygon: the work, cut into independent tasks, and the arrays that come back."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from maxaffine.errors import DegenerateSliceError, InputError, MemoryBudgetError
from maxaffine.geometry.exploring import advance, explore
from maxaffine.geometry.kernels import BUNDLE, CULLED, LANES, LEAF, LENIENT, MAX_SIDES, SHRUNK, STRICT, TIED
from maxaffine.geometry.relunet import ELEMENTWISE, Floats, Ints, ReluNet

Track = Callable[[Iterable[int], str], Iterable[int]]
Arrays = tuple[Floats, Ints, Ints]  # of a net, for the kernels

PER_WORKER = 16  # tasks, at least


class Store(NamedTuple):
    """Cells that are cut by the units before some level; see kernels.py."""

    x: Floats
    y: Floats
    e: NDArray[np.int32]
    off: Ints
    bits: NDArray[np.uint64]
    h: NDArray[np.uint64]
    mother: Ints
    M: Floats
    koff: Ints
    kidx: Ints
    kz: Floats


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

    strict: (U,) STRICT for units for which vanishing on a whole cell up to rounding is an error, LENIENT where it
    counts as being zero; TIED for those of maxima, for which it is a tie.
    """

    net: ReluNet
    corners: Floats
    zero: float
    lenient: bool = False

    def arrays(self) -> Arrays:
        """(P, levels, ids) for the kernels."""
        matrix = np.zeros((3 + self.net.units, len(self.net.A) + LANES))
        matrix[:3, :-LANES], matrix[3:, :-LANES] = self.net.A.T, self.net.V.T
        return matrix, self.net.levels, np.arange(self.net.units)

    def root(self) -> Store:
        """The whole polygon as one cell. Raises InputError when it has too many corners."""
        too_many_sides(len(self.corners))
        words, n = max(1, -(-self.net.units // 64)), len(self.corners)
        x, y = (np.ascontiguousarray(c) for c in self.corners.T)
        sides = -1 - np.arange(n, dtype=np.int32)
        bits, h = np.zeros((1, words), np.uint64), np.zeros(1, np.uint64)
        inherited = (np.zeros((1, 3, 0)), np.zeros(2, np.int64), np.zeros(0, np.int64), np.zeros((0, 3)))
        return Store(x, y, sides, np.array([0, n]), bits, h, np.zeros(1, np.int64), *inherited)

    @property
    def eps(self) -> Floats:
        """(U,) what counts as zero."""
        return self.zero * self.net.magnitude

    @property
    def strict(self) -> NDArray[np.uint8]:
        """(U,) what vanishing up to rounding means for each unit."""
        alone = LENIENT if self.lenient else STRICT
        return np.where(self.net.kind == ELEMENTWISE, alone, TIED).astype(np.uint8)


def find_cells(job: Job, workers: int, limit: int, track: Track | None) -> tuple[Soup, NDArray[np.int32]]:
    """All cells of the job and the table of bundled labels.

    Raises MemoryBudgetError after more than `limit` cells, DegenerateSliceError when a unit vanishes on a cell up to
    rounding only.
    """
    wanted = 1 if workers == 1 and track is None else PER_WORKER * workers
    arrays = job.arrays()
    level, store = _started(job, arrays, wanted)
    soups, tables, left = [], [], limit
    with _compiling(track):
        for soup, table in _run(job, arrays, level, store, regions(store, wanted), workers, limit, track):
            left -= len(soup.h)
            if left < 0:
                raise stopped(limit)
            soups.append(soup)
            tables.append(table)
    return joined(soups, tables, workers)


def _compiling(track: Track | None) -> AbstractContextManager[object]:
    """A line on the terminal while the kernels are compiled, once in an environment, or read from the cache."""
    if explore.signatures or track is not None:
        return nullcontext()
    terminal = Console(stderr=True, force_jupyter=False)
    return terminal.status("compiling the kernels of partitions, once: they are kept for later")


def stopped(limit: int) -> MemoryBudgetError:
    """The answer to a partition with more cells than asked for."""
    return MemoryBudgetError(
        f"stopped after {limit} cells; take a smaller polygon, or allow more with limit= (cells) and memory= (bytes)"
    )


def _started(job: Job, arrays: Arrays, wanted: int) -> tuple[int, Store]:
    """Cut level by level until there are enough cells to hand out."""
    level, store, last = 0, job.root(), len(job.net.levels) - 1
    table = np.empty((0, 2), np.int32)
    while level < last and len(store.h) < wanted:
        new, table, count, failure = cast(Any, advance)(arrays, level, tuple(store), job.eps, job.strict, table, 0)
        check(failure)
        if count:  # a bundle's number would have to be known in every task: leave the work in one piece
            return 0, job.root()
        level, store = level + 1, Store(*new)
    return level, store


def regions(store: Store, wanted: int) -> list[Ints]:
    """Numbers of the cells in each of about `wanted` parts of the plane, by halving it again and again."""
    sums = np.stack([np.add.reduceat(c, store.off[:-1]) for c in (store.x, store.y)], 1)
    centres, parts = sums / np.diff(store.off)[:, None], [np.arange(len(store.h))]
    while len(parts) < wanted and max(len(p) for p in parts) > 1:
        parts = [half for part in parts for half in _halves(centres, part) if len(half)]
    return parts


def _halves(centres: Floats, part: Ints) -> tuple[Ints, Ints]:
    """The lower and the upper half of some cells, along the longer side of their box, each in its old order."""
    spread = np.ptp(centres[part], axis=0)
    order = np.argsort(centres[part, spread.argmax()], kind="stable")
    middle = len(part) // 2
    return np.sort(part[order[:middle]]), np.sort(part[order[middle:]])


def _run(
    job: Job,
    arrays: Arrays,
    level: int,
    store: Store,
    tasks: list[Ints],
    workers: int,
    limit: int,
    track: Track | None,
) -> Iterator[tuple[Soup, NDArray[np.int32]]]:
    halt, tuning = np.zeros(1, np.uint8), (limit, LEAF, CULLED, SHRUNK)

    def work(task: Ints) -> tuple[Soup, NDArray[np.int32]]:
        found, table, failure = cast(Any, explore)(
            arrays, level, tuple(taken(store, task)), job.eps, job.strict, halt, *tuning
        )
        if failure == -3:
            raise stopped(limit)
        check(failure)
        return Soup(*found), table

    numbers = range(len(tasks))
    shown = numbers if track is None else track(numbers, "cells of the plane")
    futures: list[Future[tuple[Soup, NDArray[np.int32]]]] = []
    with ThreadPoolExecutor(workers) as pool:  # one worker too is a thread: the main one can then be interrupted
        try:
            futures += [pool.submit(work, task) for task in tasks]
            yield from (future.result() for _, future in zip(shown, futures, strict=True))
        finally:
            halt[0] = 1
            for future in futures:
                future.cancel()


def taken(store: Store, members: Ints) -> Store:
    """The store of some of its cells."""
    mothers, mother = np.unique(store.mother[members], return_inverse=True)
    off, corners = _spans(store.off, members)
    koff, cuts = _spans(store.koff, mothers)
    return Store(
        store.x[corners],
        store.y[corners],
        store.e[corners],
        off,
        store.bits[members],
        store.h[members],
        mother,
        store.M[mothers],
        koff,
        store.kidx[cuts],
        store.kz[cuts],
    )


def _spans(off: Ints, members: Ints) -> tuple[Ints, Ints]:
    """New offsets of some spans off[i] .. off[i + 1], and the numbers of all that lies in them."""
    sizes = np.diff(off)[members]
    new = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
    return new, np.repeat(off[members] - new[:-1], sizes) + np.arange(new[-1])


def joined(soups: list[Soup], tables: list[NDArray[np.int32]], workers: int) -> tuple[Soup, NDArray[np.int32]]:
    """Soups one after the other; labels of bundles shifted to their place in the common table."""
    if len(soups) == 1:
        return soups[0], tables[0]
    rows = _ends([len(table) for table in tables])
    corners, cells = _ends([len(soup.x) for soup in soups]), _ends([len(soup.h) for soup in soups])
    spans = Soup(corners, corners, corners, cells, cells, cells, cells)
    whole = Soup(*(np.empty((n[-1], *a.shape[1:]), a.dtype) for a, n in zip(soups[0], spans, strict=True)))

    def copy(i: int) -> None:
        for labels in (soups[i].e, tables[i]):
            labels[labels >= BUNDLE] += rows[i]
        last = soups[i]._replace(off=soups[i].off[1:] + corners[i])
        for target, n, values in zip(whole, spans, last, strict=True):
            target[n[i] : n[i + 1]] = values

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(copy, range(len(soups))))
    return whole._replace(off=np.concatenate([np.zeros(1, np.int64), whole.off])), np.concatenate(tables)


def _ends(sizes: list[int]) -> Ints:
    return np.cumsum([0, *sizes])


def check(failure: int) -> None:
    """Raise what the failure of a kernel means; -1 and -3 (too many cells, a halt) pass."""
    if failure >= 0:
        raise Vanishing(failure)
    if failure == -2:
        too_many_sides(MAX_SIDES)
    if failure == -4:
        raise Doubtful("a corner of a cell lies as close to a line as rounding allows")


def too_many_sides(count: int) -> None:
    """Raise InputError when a cell has more sides than the kernels have room for."""
    if count >= MAX_SIDES:
        raise InputError(f"a cell has {MAX_SIDES} sides or more; give a polygon with fewer corners")


class Doubtful(DegenerateSliceError):
    """A corner of which it is doubtful whether it lies on a line, with this measure of zero."""


class Vanishing(DegenerateSliceError):
    """A unit that is zero up to rounding on a whole cell."""

    def __init__(self, unit: int) -> None:
        super().__init__(f"reduced unit {unit} vanishes on a whole cell up to rounding")
        self.unit = unit
