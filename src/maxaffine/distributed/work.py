"""The work on one task: its root cells are cut in chunks of bounded size and written as one part."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np

from maxaffine.distributed.job import Frontier, Labels, Setup, divided
from maxaffine.distributed.parts import Summary, write_part
from maxaffine.errors import MemoryBudgetError
from maxaffine.geometry.cells import Soup, taken
from maxaffine.geometry.exploring import explore
from maxaffine.geometry.kernels import BUNDLE, CULLED, LEAF, SHRUNK
from maxaffine.geometry.relunet import Floats

FRONT = BUNDLE + (1 << 29)  # labels from here on are rows of the table that the work began with
PARTS = 8  # into which work is divided whose cells do not fit into a chunk
Halted = Callable[[], bool]


class Interrupted(Exception):
    """The work was given up between two chunks because the driver stops."""


def never() -> bool:
    """Nobody stops the work."""
    return False


def work(setup: Setup, folder: Path, task: int, chunk: int, limit: int, halted: Halted = never) -> Summary:
    """Cut one task and write its part.

    chunk: cells that are held at once. Raises MemoryBudgetError after more than `limit` cells, DegenerateSliceError,
    FileFormatError when the part cannot be written, Interrupted.
    """
    roots = setup.frontier.some(int(setup.tasks[task]), int(setup.tasks[task + 1]))
    chunks = explored(setup, setup.job.arrays()[0], roots, chunk)
    return write_part(setup, folder, task, _counted(chunks, limit, halted))


def explored(setup: Setup, matrix: Floats, roots: Frontier, chunk: int) -> Iterator[tuple[Soup, Labels]]:
    """The finished cells of some roots with their table of bundled labels, at most `chunk` at a time.

    Roots with more cells than that are found out by running into the limit; they are then divided, a single one after
    being cut by a few more units.
    """
    job, net = setup.job, (matrix, roots.levels, np.arange(setup.job.net.units))
    raised = taken(roots.store, np.arange(len(roots.store.h)))
    raised.e[raised.e >= BUNDLE] += FRONT - BUNDLE
    halt, tuning = np.zeros(1, np.uint8), (chunk, LEAF, CULLED, SHRUNK)
    found, new, failure = cast(Any, explore)(net, roots.level, tuple(raised), job.eps, job.strict, halt, *tuning)
    setup.check(failure)
    if failure != -3:
        yield Soup(*found), _settled(found[2], new, roots.table)
        return
    roots = divided(setup, matrix, roots, PARTS) if len(roots.store.h) == 1 else roots
    edges = np.unique(np.linspace(0, len(roots.store.h), PARTS + 1).astype(int)).tolist()
    for first, last in pairwise(edges):
        yield from explored(setup, matrix, roots.some(first, last), chunk)


def _settled(e: Labels, new: Labels, table: Labels) -> Labels:
    """Put the rows that the work began with before its own; labels in e are changed in place."""
    for labels in (e, new):
        own = (labels >= BUNDLE) & (labels < FRONT)
        labels[own] += len(table)
        labels[labels >= FRONT] -= FRONT - BUNDLE
    return np.concatenate([table, new])


def _counted(chunks: Iterator[tuple[Soup, Labels]], limit: int, halted: Halted) -> Iterator[tuple[Soup, Labels]]:
    count = 0
    for soup, table in chunks:
        count += len(soup.h)
        if count > limit:
            raise stopped(limit)
        if halted():
            raise Interrupted
        yield soup, table


def stopped(limit: int) -> MemoryBudgetError:
    """The answer to a partition with more cells than asked for."""
    return MemoryBudgetError(
        f"stopped after {limit} cells; the finished parts are kept: call again with a larger limit= to go on"
    )
