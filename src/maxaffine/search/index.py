"""An index of codes: the rows of a data set by their cells, in memory or in a folder."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from maxaffine import arguments
from maxaffine.code import Code
from maxaffine.errors import InputError
from maxaffine.search import changes, store
from maxaffine.search.kinds import EXACT, Approximate
from maxaffine.search.layout import Rows
from maxaffine.search.neighbours import Neighbours
from maxaffine.search.part import Ids, Part, each, lowest
from maxaffine.search.scan import Counts, faiss_for
from maxaffine.search.store import State
from maxaffine.types import Names

Kind = Literal["exact", "multihash", "hnsw"]
QUERIES = 4096  # searched at a time


class CodeIndex:
    """The codes of a data set, each with the id of its row, to search by the distance of Eq. 15.

    Rows with equal codes are kept once. kind: "exact" looks at every code; "multihash" and "hnsw" look at some and may
    miss neighbours (see `recall`). Codes of another structure or of other weights are refused.
    Source: Balestriero & Baraniuk 2018, arXiv 1805.06576, section 5; the bits are counted by faiss (Douze et al. 2024,
    arXiv 2401.08281) where the extra "search" is installed, else by numba, with the same answers.

    >>> import torch, maxaffine as ma
    >>> spline = ma.Spline(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.ReLU()), torch.zeros(1, 4))
    >>> x = torch.tensor([[1.0, 1, 1, 1], [1, 1, 1, -1], [2, 2, 2, 2]])
    >>> index = ma.CodeIndex.build(spline.code(x))
    >>> distances, ids = index.search(spline.code(x[:1]), k=3)
    >>> ids.tolist(), distances.tolist()
    ([[0, 2, 1]], [[0.0, 0.0, 0.25]])
    """

    def __init__(self, state: State, folder: Path | None = None) -> None:
        self._state, self._folder = state, folder
        self._fast: Approximate | None = None

    @staticmethod
    def build(code: Code, ids: Any = None, *, kind: Kind = EXACT, operators: Names | None = None) -> "CodeIndex":
        """An index in memory, of all operators or of some; ids: whole numbers, one a row, or running numbers.

        Raises InputError for ids that are repeated, negative or not whole, MissingExtraError for an approximate kind
        without faiss.
        """
        index = CodeIndex(changes.empty(code, kind, operators))
        index.add(code, ids)
        return index

    @staticmethod
    def create(
        path: str | Path, code: Code, ids: Any = None, *, kind: Kind = EXACT, operators: Names | None = None
    ) -> "CodeIndex":
        """As `build`, in a new folder, where every change is committed before the call returns.

        `code[:0]` makes an index that holds nothing yet. Raises FileFormatError for a folder that is not empty or
        cannot be written.
        """
        return CodeIndex.build(code, ids, kind=kind, operators=operators).save(path)

    @staticmethod
    def open(path: str | Path, *, verify: bool = True) -> "CodeIndex":
        """The index in a folder, its rows mapped into memory; verify=False does not read them to check the checksums.

        Raises FileFormatError for a folder without an index, and when a file is missing or damaged.
        """
        folder = arguments.path_of(path)
        state = store.read(folder, arguments.require(verify, bool, "verify", "True or False"))
        if state.kind != EXACT:
            faiss_for(state.kind)
        return CodeIndex(state, folder)

    def save(self, path: str | Path) -> "CodeIndex":
        """Write all of it to a new folder: the index there."""
        folder = arguments.path_of(path)
        return CodeIndex(store.create(folder, self._state), folder)

    def __len__(self) -> int:
        return len(self._state)

    def __repr__(self) -> str:
        layout, cells = self._state.layout, sum(len(part.rows) for part in self._state.parts)
        where = "in memory" if self._folder is None else f"in {str(self._folder)!r}"
        return (
            f"CodeIndex({len(self)} codes of {layout.units} units, {cells} rows of {layout.width} bytes, "
            f"{self._state.kind}, {where})"
        )

    @property
    def state(self) -> State:
        """What it holds: layout, weights, kind and parts; immutable, another one after each change."""
        return self._state

    @property
    def ids(self) -> Tensor:
        """(N,) the ids of the rows that it holds, ascending."""
        found = [part.live for part in self._state.parts]
        return torch.from_numpy(np.sort(np.concatenate([np.empty(0, np.int64), *found])))

    def add(self, code: Code, ids: Any = None) -> Tensor:
        """Add codes, completely or not at all: their ids (N,); running numbers follow the largest id ever given."""
        state, fresh, named = changes.added(self._state, code, ids)
        if fresh is not None:
            self._state = state if self._folder is None else store.commit(self._folder, self._state, state)
            if self._fast is not None:
                self._fast.add(fresh)
        return torch.from_numpy(named.copy())

    def remove(self, ids: Any) -> None:
        """Remove rows, completely or not at all. Raises InputError for ids that are not there."""
        state = changes.without(self._state, ids)
        self._state = state if self._folder is None else store.commit(self._folder, self._state, state)

    def search(self, code: Code, k: int = 10) -> Neighbours:
        """The k nearest rows of each code: distances (N, k) float64 and ids (N, k), by distance, ties by id.

        Approximate kinds may find fewer than k: the distance is then inf and the id -1.
        Raises InputError for an empty index, or k larger than it.
        """
        changes.check(self._state, code)
        if not len(self):
            raise InputError("the index is empty; add codes before searching")
        most = arguments.whole(k, "k", 1, len(self))
        state = self._state
        if state.kind != EXACT and (self._fast is None or self._fast.stale(state.parts)):
            self._fast = Approximate(state.kind, state.layout, state.parts)
        found = [_nearest(state.parts, self._fast, rows, most) for rows in _batches(state.layout.rows(code))]
        none = np.empty((0, most), np.int32), np.empty((0, most), np.int64)
        bits, ids = (np.concatenate(part) for part in zip(none, *found, strict=True))
        distances = np.where(ids < 0, np.inf, state.layout.distances(bits))
        return Neighbours(torch.from_numpy(distances), torch.from_numpy(ids))

    def within(self, code: Code, radius: float) -> list[Neighbours]:
        """Every row at most that far from each code (exact, whatever the kind), by distance, ties by id."""
        changes.check(self._state, code)
        layout = self._state.layout
        most = layout.radius(arguments.number(radius, "radius", 0.0, 1.0))
        rows = layout.rows(code)
        found = each([part.within(rows, most) for part in self._state.parts], len(rows))
        return [Neighbours(torch.from_numpy(layout.distances(b)), torch.from_numpy(ids)) for b, ids in found]

    def lookup(self, code: Code) -> list[Tensor]:
        """The ids of the rows in the same cell as each code, ascending."""
        changes.check(self._state, code)
        rows = self._state.layout.rows(code)
        found = each([part.lookup(rows) for part in self._state.parts], len(rows))
        return [torch.from_numpy(ids) for _, ids in found]

    def recall(self, code: Code, k: int = 10) -> float:
        """Share of the k nearest rows that `search` finds, by distance: 1.0 for an exact index."""
        found = self.search(code, k).distances
        exact = CodeIndex(replace(self._state, kind=EXACT)).search(code, k).distances
        return float((found <= exact[:, -1:]).double().mean())


def _batches(rows: Rows) -> Iterator[Rows]:
    return (rows[start : start + QUERIES] for start in range(0, len(rows), QUERIES))


def _nearest(held: Sequence[Part], fast: Approximate | None, rows: Rows, k: int) -> tuple[Counts, Ids]:
    """The k lowest (distance, id) of each query, of all rows or of those that the approximate kind looks at."""
    found = [part.nearest(rows, k) for part in held] if fast is None else fast.nearest(rows, k, held)
    return lowest(found, len(rows), k)
