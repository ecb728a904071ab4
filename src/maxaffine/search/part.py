"""A part of an index: distinct rows of bits, and the ids of the data rows that share each of them.

The distinct rows stand in the order of the lowest id of each, so that a scan that gives ties to the first position
gives them to the lowest id.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maxaffine.search.layout import Rows
from maxaffine.search.scan import nearest, within

Ids = NDArray[np.int64]
Found = tuple[NDArray[np.int64], Ids, NDArray[np.int32]]  # queries, ids, Hamming distances, one entry a row found
ARRAYS = ("rows", "ids", "offsets", "keys", "order")
SPARE, PAIRS = 16, 2**24  # candidates asked for beyond k where rows were removed; pairs compared at a time


@dataclass(frozen=True, eq=False)
class Part:
    """Immutable; rows (G, width) uint8, ids (N,) by row, those of row g at offsets[g]:offsets[g + 1], ascending.

    keys (G,) uint64: hashes of the rows, ascending; order (G,): the row of each. removed (N,) bool, or None.
    """

    rows: Rows
    ids: Ids
    offsets: NDArray[np.uint32]
    keys: NDArray[np.uint64]
    order: NDArray[np.uint32]
    removed: NDArray[np.bool_] | None = None
    name: str = ""

    def __len__(self) -> int:
        return len(self.ids) - (0 if self.removed is None else int(self.removed.sum()))

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """(G,) how many ids of each row are left."""
        left = np.ones(len(self.ids), bool) if self.removed is None else ~self.removed
        return np.add.reduceat(left.astype(np.int64), self.offsets[:-1]) if len(self.rows) else np.empty(0, np.int64)

    @property
    def live(self) -> Ids:
        """The ids that are left."""
        return np.asarray(self.ids if self.removed is None else self.ids[~self.removed])

    def without(self, ids: Ids) -> "Part":
        """The part with these ids marked as removed."""
        gone = np.isin(self.ids, ids)
        return replace(self, removed=gone if self.removed is None else gone | self.removed)

    def nearest(self, queries: Rows, k: int) -> Found:
        """Rows among which are the k lowest (distance, id) of each query, or all if there are fewer."""
        size = len(self.rows)
        ask = min(size, k if self.removed is None else k + SPARE)
        todo, found = np.arange(len(queries)), []
        while len(todo):
            bits, places = nearest(queries[todo], self.rows, ask)
            settled = self._settled(bits, places, k)
            found.append(self._expand(np.repeat(todo[settled], ask), places[settled].ravel(), bits[settled].ravel(), k))
            todo, ask = todo[~settled], min(size, 2 * ask)
        return _joined(found)

    def _settled(self, bits: NDArray[np.int32], places: NDArray[np.int64], k: int) -> NDArray[np.bool_]:
        """Which queries have their k nearest among the candidates, ties included."""
        if self.removed is None or places.shape[1] == len(self.rows):
            return np.ones(len(bits), bool)
        closer = bits < bits[:, -1:]
        return (self.counts[places] * closer).sum(1) >= k

    def within(self, queries: Rows, most: int) -> Found:
        """Every row at most that many bits from each query."""
        step, found = max(1, PAIRS // len(self.rows)), []
        for start in range(0, len(queries), step):
            q, places, bits = within(queries[start : start + step], self.rows, most)
            found.append(self._expand(q + start, places, bits))
        return _joined(found)

    def equal(self, queries: Rows) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Which queries stand among the rows, and where: (P,) queries, (P,) places."""
        keys = hashes(queries)
        left, right = (np.searchsorted(self.keys, keys, side) for side in ("left", "right"))
        places = np.full(len(queries), -1)
        for step in range(int((right - left).max(initial=0))):  # one, unless two rows have the same hash
            some = np.flatnonzero(left + step < right)
            here = self.order[left[some] + step]
            same = (np.asarray(self.rows[here]) == queries[some]).all(1)
            places[some[same]] = here[same]
        some = np.flatnonzero(places >= 0)
        return some, places[some]

    def lookup(self, queries: Rows) -> Found:
        """The rows equal to each query."""
        q, places = self.equal(queries)
        return self._expand(q, places, np.zeros(len(q), np.int32))

    def _expand(
        self, q: NDArray[np.int64], places: NDArray[np.int64], bits: NDArray[np.int32], most: int | None = None
    ) -> Found:
        """Ids instead of places of distinct rows, the lowest `most` of each row."""
        if len(self.ids) == len(self.rows):
            found, rows = np.asarray(self.ids)[places], places
        else:
            first = self.offsets[places].astype(np.int64)
            sizes = self.offsets[places.astype(np.int64) + 1] - first
            sizes = sizes if most is None or self.removed is not None else np.minimum(sizes, most)
            rows = np.repeat(first - np.cumsum(sizes) + sizes, sizes) + np.arange(sizes.sum())
            q, found, bits = np.repeat(q, sizes), np.asarray(self.ids)[rows], np.repeat(bits, sizes)
        if self.removed is None:
            return q, found, bits
        left = ~self.removed[rows]
        return q[left], found[left], bits[left]


def hashes(rows: Rows) -> NDArray[np.uint64]:
    """(N,) 64-bit hashes of rows of bits; equal rows have equal ones, and hardly any others do."""
    found = np.full(len(rows), 0x9E3779B97F4A7C15, np.uint64)
    for word in np.ascontiguousarray(rows).view(np.uint64).T:
        found ^= word
        found *= np.uint64(0xBF58476D1CE4E5B9)  # splitmix64
        found ^= found >> np.uint64(29)
    return found


def fold(rows: Rows, ids: Ids, of: NDArray[np.int64] | None = None) -> Part:
    """The part of N ids, of which ids[i] has the row rows[of[i]], `of` ascending; equal rows become one."""
    keys = hashes(rows)
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    new = np.ones(len(rows), bool)
    same = np.flatnonzero(keys[1:] == keys[:-1]) + 1
    new[same] = (rows[order[same]] != rows[order[same - 1]]).any(1)
    if new[same].any():  # two rows with one hash: sort by the rows themselves
        order = np.lexsort(rows.T[::-1])
        keys = hashes(rows)[order]
        new[1:] = (rows[order[1:]] != rows[order[:-1]]).any(1)
    if len(ids) == len(rows) and new.all():
        return _distinct(rows, ids, keys, order)
    label = np.empty(len(rows), np.int64)
    label[order] = np.cumsum(new) - 1
    kept, keys, groups = order[new], keys[new], label if of is None else label[of]
    by_group = np.lexsort((ids, groups))
    offsets = np.concatenate([[0], np.cumsum(np.bincount(groups, minlength=len(kept)))])
    rank = np.argsort(ids[by_group[offsets[:-1]]], kind="stable")  # by the lowest id of each
    place = np.empty(len(kept), np.int64)
    place[rank] = np.arange(len(kept))
    by_place = np.lexsort((ids, place[groups]))
    sizes = np.concatenate([[0], np.cumsum(np.diff(offsets)[rank])])
    by_key = np.argsort(keys, kind="stable")
    return Part(rows[kept[rank]], ids[by_place], sizes.astype(np.uint32), keys[by_key], place[by_key].astype(np.uint32))


def _distinct(rows: Rows, ids: Ids, keys: NDArray[np.uint64], order: NDArray[Any]) -> Part:
    """The usual part, of rows that all differ, with few copies: one id a row."""
    if (ids[1:] < ids[:-1]).any():
        by_id = np.argsort(ids)
        place = np.empty(len(ids), np.uint32)
        place[by_id] = np.arange(len(ids), dtype=np.uint32)
        rows, ids, order = rows[by_id], ids[by_id], place[order]
    if (keys[1:] < keys[:-1]).any():
        by_key = np.argsort(keys, kind="stable")
        keys, order = keys[by_key], order[by_key]
    return Part(rows, ids, np.arange(len(ids) + 1, dtype=np.uint32), keys, order.astype(np.uint32))


def merge(parts: Sequence[Part]) -> Part:
    """The parts as one, without what was removed."""
    rows, ids, of, start = [], [], [], 0
    for part in parts:
        counts = part.counts
        kept = np.flatnonzero(counts)
        rows.append(np.asarray(part.rows) if len(kept) == len(part.rows) else part.rows[kept])
        ids.append(part.live)
        of.append(np.repeat(np.arange(len(kept)) + start, counts[kept]))
        start += len(kept)
    return fold(np.concatenate(rows), np.concatenate(ids), np.concatenate(of))


def lowest(found: Sequence[Found], count: int, k: int) -> tuple[NDArray[np.int32], Ids]:
    """(Q, k) distances and ids: the lowest (distance, id) of each query; -1 and the id -1 where there are fewer."""
    q, ids, bits = _sorted(found)
    starts = np.searchsorted(q, np.arange(count))
    rank = np.arange(len(q)) - starts[q]
    kept = rank < k
    best, named = np.full((count, k), -1, np.int32), np.full((count, k), -1, np.int64)
    best[q[kept], rank[kept]], named[q[kept], rank[kept]] = bits[kept], ids[kept]
    return best, named


def each(found: Sequence[Found], count: int) -> Iterator[tuple[NDArray[np.int32], Ids]]:
    """Distances and ids of each query, by (distance, id)."""
    q, ids, bits = _sorted(found)
    limits = np.searchsorted(q, np.arange(count + 1))
    for first, last in pairwise(limits):
        yield bits[first:last], ids[first:last]


def _sorted(found: Sequence[Found]) -> Found:
    q, ids, bits = _joined(found)
    order = np.lexsort((ids, bits, q))
    return q[order], ids[order], bits[order]


def _joined(found: Sequence[Found]) -> Found:
    none = np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int32)
    q, ids, bits = (np.concatenate(part) for part in zip(none, *found, strict=True))
    return q, ids, bits
