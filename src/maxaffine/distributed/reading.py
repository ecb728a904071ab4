"""A partition in files: its totals, its cells batch by batch, and the whole of it in memory."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from maxaffine.distributed.job import Setup
from maxaffine.distributed.manifest import read_manifest
from maxaffine.distributed.parts import Pieces, Summary, as_pieces, lists_of, path_of, read_groups, read_summary
from maxaffine.distributed.pieces import outlines, unmatched
from maxaffine.errors import FileFormatError, MemoryBudgetError
from maxaffine.geometry.cells import Soup
from maxaffine.geometry.mesh import build
from maxaffine.geometry.plane import PlaneCodes, PlanePartition, UnitLists
from maxaffine.geometry.planes import too_close
from maxaffine.geometry.relunet import Floats, Ints
from maxaffine.slice import Plane

if TYPE_CHECKING:
    import pyarrow as pa

PIECE = 600  # bytes of a piece's corners, sides and edges while the shared vertices are found


@dataclass(frozen=True, eq=False)
class CellBatch:
    """Some whole cells of a plane partition.

    offsets: (n + 1,), corners: (k, 2) in (s, t): cell i is the convex polygon corners[offsets[i]:offsets[i + 1]],
    counter-clockwise. walls: for the side that leaves each corner the (operator name, flat unit index) whose walls it
    lies on, () on the domain's border. A: (n, *out, 2), b: (n, *out): f = b + A (s, t). codes: built on demand.
    names: (n,) uint64, hashes of the codes. areas: (n,) in (s, t).
    """

    offsets: Ints
    corners: Floats
    walls: UnitLists
    A: Floats
    b: Floats
    codes: PlaneCodes
    names: NDArray[np.uint64]
    areas: Floats

    def __len__(self) -> int:
        return len(self.offsets) - 1


@dataclass(frozen=True, eq=False)
class PartitionFiles:
    """The finished partition of a plane in a folder, made by `stream_partition`.

    A row of a Parquet file is a convex piece of a cell: the whole cell, unless a maximum over more than two candidates
    was cut; pieces of one cell have the same `cell`. len: the number of cells.
    """

    folder: Path
    setup: Setup
    parts: tuple[Summary, ...]

    @staticmethod
    def open(folder: str | Path) -> "PartitionFiles":
        """The partition in a folder. Raises FileFormatError when it is none, or not finished."""
        folder = Path(folder)
        if not read_manifest(folder)["complete"]:
            raise FileFormatError(f"{folder} is not finished; call stream_partition with it again")
        return opened(folder, Setup.load(folder))

    @property
    def plane(self) -> Plane:
        """The plane that was cut."""
        return self.setup.plane

    @cached_property
    def cells(self) -> int:
        """The number of cells: distinct codes."""
        inside = sum(part.cells for part in self.parts)
        seen = [table["cell"].to_numpy() for table in self._tables(border=True, columns=["cell"])]
        return inside + (len(np.unique(np.concatenate(seen))) if seen else 0)

    @property
    def area(self) -> float:
        """The cells' area in (s, t)."""
        return math.fsum(part.area for part in self.parts)

    def __len__(self) -> int:
        return self.cells

    def batches(self) -> Iterator[CellBatch]:
        """All cells, each once, in batches; one batch is in memory at a time.

        The cells that a maximum left in pieces in several chunks come together in the last batch.
        """
        if not self.setup.merging:
            yield from (self._whole(as_pieces([table])) for table in self._tables())
            return
        yield from (self._merged(as_pieces([table])) for table in self._tables(border=False))
        border = list(self._tables(border=True))
        if border:
            yield self._merged(as_pieces(border))

    def load(self, memory: int | None = None) -> PlanePartition:
        """The partition in memory, with shared vertices, edges and neighbours: what `maxaffine.partition` gives.

        memory: bytes it may take. Raises MemoryBudgetError, and DegenerateSliceError where lines of the partition lie
        closer together than float64 can tell apart.
        """
        net, setup = self.setup.job.net, self.setup
        pieces = sum(part.pieces for part in self.parts)
        needed = pieces * (PIECE + 8 * setup.frontier.store.bits.shape[1] + 24 * (len(net.A) - net.units))
        if memory is not None and needed > memory:
            raise MemoryBudgetError(
                f"{pieces} pieces of cells would take about {needed / 1e9:.3g} GB in memory; read them with batches(), "
                "or allow more with memory="
            )
        soup, bundles, _, _ = as_pieces(list(self._tables()))
        found = cast(Any, build)(tuple(soup[:6]), bundles, net.last, net.left, net.right, setup.merging)
        lost, vertices, offsets, indices, edges, neighbours, where, units, member = found
        if lost or len(vertices) - len(edges) + len(offsets) - 1 != 1:
            raise too_close()
        labels = UnitLists(self.setup.operators, where, net.operator[units], net.unit[units])
        A, b, codes = self._maps(soup, member)
        return PlanePartition(setup.plane, vertices, offsets, indices, edges, neighbours, labels, A, b, codes)

    def verify(self) -> bool:
        """Whether every side inside the domain has exactly one other half and the areas add up to the domain's."""
        border, links, lost = list(self._tables(border=True)), sum(part.links for part in self.parts), 0
        if border:
            soup, table, _, _ = as_pieces(border)
            lost = unmatched(soup.e, soup.off, soup.bits, soup.h, table)
        whole = self.plane.area
        return lost == links and not any(p.torn for p in self.parts) and abs(self.area - whole) <= 1e-9 * whole

    def _tables(self, border: bool | None = None, columns: list[str] | None = None) -> "Iterator[pa.Table]":
        for task, part in enumerate(self.parts):
            yield from read_groups(path_of(self.folder, task), part, border, columns)

    def _whole(self, pieces: Pieces) -> CellBatch:
        every = np.arange(len(pieces.soup.h))
        return self._assembled(pieces, pieces.soup.off, np.arange(len(pieces.soup.x)), every, pieces.areas)

    def _merged(self, pieces: Pieces) -> CellBatch:
        net, soup = self.setup.job.net, pieces.soup
        rows = (soup.e, soup.off, soup.bits, soup.h)
        offsets, sides, member, group = outlines(rows, pieces.table, net.last, net.left, net.right)
        areas = np.zeros(len(member))
        np.add.at(areas, group, pieces.areas)
        return self._assembled(pieces, offsets, sides, member, areas)

    def _assembled(self, pieces: Pieces, offsets: Ints, sides: Ints, member: Ints, areas: Floats) -> CellBatch:
        net, soup = self.setup.job.net, pieces.soup
        where, units = lists_of(soup.e[sides], pieces.table)
        inside = units >= 0
        where = np.concatenate([np.zeros(1, np.int64), np.cumsum(inside, dtype=np.int64)])[where]
        walls = UnitLists(self.setup.operators, where, net.operator[units[inside]], net.unit[units[inside]])
        corners = np.stack([soup.x[sides], soup.y[sides]], 1)
        return CellBatch(offsets, corners, walls, *self._maps(soup, member), pieces.names[member], areas)

    def _maps(self, soup: Soup, member: Ints) -> tuple[Floats, Floats, PlaneCodes]:
        net, out, maps = self.setup.job.net, self.setup.out, soup.maps[member]
        slim = replace(net, A=net.A[:0], V=net.V[:0, :0])
        A, b = maps[..., 1:].reshape(len(maps), *out, 2), np.ascontiguousarray(maps[..., 0]).reshape(len(maps), *out)
        return A, b, PlaneCodes(self.setup.signature, slim, soup.bits[member])

    def __repr__(self) -> str:
        return f"PartitionFiles({self.cells} cells in {len(self.parts)} parts, {str(self.folder)!r})"


def opened(folder: Path, setup: Setup) -> PartitionFiles:
    """All parts of a job. Raises FileFormatError when one is missing, damaged or of another job."""
    parts = []
    for task in range(setup.count):
        path = path_of(folder, task)
        if not path.is_file():
            raise FileFormatError(f"{path} is missing; call stream_partition with the folder again")
        parts.append(belonging(setup, path))
    return PartitionFiles(folder, setup, tuple(parts))


def belonging(setup: Setup, path: Path) -> Summary:
    """The summary of a part. Raises FileFormatError when it is damaged or of another job."""
    found = read_summary(path)
    if found.job != setup.name:
        raise FileFormatError(f"{path} belongs to another partition; delete it or take a new folder")
    return found
