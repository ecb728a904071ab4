"""Near-duplicates of a data set: all pairs of rows whose codes differ in few units, and the groups that they make."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maxaffine import arguments
from maxaffine.code import Code
from maxaffine.errors import InputError, MemoryBudgetError, MissingExtraError
from maxaffine.search.index import CodeIndex
from maxaffine.search.part import Part
from maxaffine.search.scan import within
from maxaffine.types import Names

MEMORY = 2**30
PAIR, COMPARED = 24, 2**24  # bytes of a pair that is found; pairs compared at a time
Links = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]  # two cells and their Hamming distance


@dataclass(frozen=True, eq=False)
class Duplicates:
    """The near-duplicates among `count` rows.

    pairs (P, 2): ids, the lower first, by distance, then by ids; distances (P,): Eq. 15; groups: the ids of rows that
    are joined by pairs (connected components), the largest group first. Two rows of a group may be further apart than
    the radius.
    """

    pairs: Tensor
    distances: Tensor
    groups: tuple[Tensor, ...]
    count: int
    radius: float

    @property
    def redundant(self) -> Tensor:
        """Ids, ascending, of all rows but the lowest of each group: what may go if one of each shall stay."""
        rest = [group[1:] for group in self.groups]
        return torch.cat(rest).sort().values if rest else torch.empty(0, dtype=torch.int64)

    def __str__(self) -> str:
        rows = sum(map(len, self.groups))
        exact = int((self.distances == 0).sum())
        return (
            f"{rows} of {self.count} rows have a near-duplicate within {self.radius:g}: pairs {len(self.pairs)}, "
            f"of them in the same cell {exact}; groups {len(self.groups)}"
        )


def near_duplicates(
    codes: Code | CodeIndex,
    radius: float = 0.0,
    *,
    ids: Any = None,
    operators: Names | None = None,
    memory: float | None = None,
) -> Duplicates:
    """All pairs of rows at most `radius` apart by Eq. 15; exact, in blocks, whatever the kind of the index.

    radius 0 finds the rows that share a cell. operators: compare these alone, e.g. those of one depth (an index has its
    own). ids: names of the rows of a code. memory: bytes that the pairs may take, 1 GiB by default.
    Raises InputError for an empty index, MemoryBudgetError when there are too many pairs.

    >>> import torch, maxaffine as ma
    >>> spline = ma.Spline(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.ReLU()), torch.zeros(1, 4))
    >>> x = torch.tensor([[1.0, 1, 1, 1], [-1, -1, 1, 1], [2, 2, 2, 2], [1, 1, 1, -1]])
    >>> found = ma.near_duplicates(spline.code(x), radius=0.25)
    >>> found.pairs.tolist(), found.distances.tolist()
    ([[0, 2], [0, 3], [2, 3]], [0.0, 0.25, 0.25])
    >>> print(found)
    3 of 4 rows have a near-duplicate within 0.25: pairs 3, of them in the same cell 1; groups 1
    """
    index = _index(codes, ids, operators)
    if not len(index):
        raise InputError("there are no codes to compare; add some to the index first")
    radius = arguments.number(radius, "radius", 0.0, 1.0)
    layout, parts = index.state.layout, index.state.parts
    limit = arguments.budget(memory, MEMORY) // PAIR
    counts = np.concatenate([part.counts for part in parts])
    firsts = np.cumsum(counts) - counts
    rows = np.concatenate([part.live for part in parts])  # ids by cell; those of cell c start at firsts[c]
    total = int((counts * (counts - 1) // 2).sum())
    found = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int32))]
    for u, v, bits in _links(parts, counts, layout.radius(radius)):
        total += int((counts[u] * counts[v]).sum())
        _within_budget(total, limit, radius)
        found.append((u, v, bits))
    _within_budget(total, limit, radius)
    u, v, bits = (np.concatenate(part) for part in zip(*found, strict=True))
    pairs, of_pair = _pairs(u, v, bits, counts, firsts)
    named = np.sort(rows[pairs], 1)
    order = np.lexsort((named[:, 1], named[:, 0], of_pair))
    distances = torch.from_numpy(layout.distances(of_pair[order]))
    groups = _groups(u, v, np.repeat(np.arange(len(counts)), counts), rows)
    return Duplicates(torch.from_numpy(named[order]), distances, groups, len(index), radius)


def _index(codes: Code | CodeIndex, ids: Any, operators: Names | None) -> CodeIndex:
    if isinstance(codes, Code):
        return CodeIndex.build(codes, ids, operators=operators)
    index = arguments.require(codes, CodeIndex, "codes", "codes or an index of them")
    if ids is not None or operators is not None:
        raise InputError("ids and operators are those of the index; leave them out, or give codes")
    return index


def _within_budget(total: int, limit: int, radius: float) -> None:
    if total > limit:
        raise MemoryBudgetError(
            f"more than {limit} pairs of rows are within {radius:g}, {PAIR} bytes each; lower the radius, compare "
            "deeper or more operators, or raise memory="
        )


def _links(parts: Sequence[Part], counts: NDArray[np.int64], most: int) -> Iterator[Links]:
    """The pairs of different cells that are at most that many bits apart, each once, block by block."""
    starts = np.cumsum([0, *(len(part.rows) for part in parts)])
    for i, part in enumerate(parts):
        for j in range(i, len(parts)):
            if i == j and most == 0:
                continue  # the rows of one part differ
            step, size = max(1, COMPARED // len(parts[j].rows)), len(part.rows)
            for first in range(0, size, step):
                skip = first if i == j else 0
                u, v, bits = within(part.rows[first : first + step], parts[j].rows[skip:], most)
                u, v = u + first + starts[i], v + skip + starts[j]
                kept = (u < v) & (counts[u] > 0) & (counts[v] > 0)
                yield u[kept], v[kept], bits[kept]


def _pairs(
    u: NDArray[np.int64], v: NDArray[np.int64], bits: NDArray[np.int32], counts: Any, firsts: Any
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """The pairs of rows, as places, of linked cells and inside cells, and the Hamming distance of each."""
    cells = np.flatnonzero(counts > 1)
    u, v = np.concatenate([u, cells]), np.concatenate([v, cells])
    sizes = counts[u] * counts[v]
    within_pair = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    first, second = np.repeat(u, sizes), np.repeat(v, sizes)
    a, b = within_pair // counts[second], within_pair % counts[second]
    kept = (first != second) | (a < b)
    pairs = np.stack([firsts[first] + a, firsts[second] + b], 1)[kept]
    distance = np.concatenate([bits, np.zeros(len(cells), np.int32)])
    return pairs, np.repeat(distance, sizes)[kept]


def _groups(u: NDArray[np.int64], v: NDArray[np.int64], cell: Any, ids: NDArray[np.int64]) -> tuple[Tensor, ...]:
    """The ids of each connected component of two rows or more."""
    try:
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components
    except ImportError:
        raise MissingExtraError('groups of near-duplicates need scipy: pip install "maxaffine[search]"') from None
    size = int(cell.max()) + 1
    graph = coo_array((np.ones(len(u), bool), (u, v)), shape=(size, size))
    labels = connected_components(graph, directed=False)[1][cell]
    order = np.lexsort((ids, labels))
    cuts = np.flatnonzero(np.diff(labels[order])) + 1
    groups = [group for group in np.split(ids[order], cuts) if len(group) > 1]
    return tuple(torch.from_numpy(group) for group in sorted(groups, key=lambda g: (-len(g), g[0])))
