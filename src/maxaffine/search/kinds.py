"""Approximate search: faiss looks at some of the rows only, so that neighbours may be missed. Distances are exact."""

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maxaffine.search.layout import CHUNK, Layout, Rows
from maxaffine.search.part import Found, Part, hashes
from maxaffine.search.scan import faiss_for

EXACT, TABLES, LINKS, BEAM = "exact", 8, 32, 64


def _multihash(faiss: ModuleType, size: int, bits: int) -> Any:
    """Eight tables of 16 bits (fewer in short rows): rows with at most one other bit in some table are compared."""
    length = max(1, min(16, bits))
    made = faiss.IndexBinaryMultiHash(size, max(1, min(TABLES, bits // length)), length)
    made.nflip = 1
    return made


def _hnsw(faiss: ModuleType, size: int, bits: int) -> Any:  # noqa: ARG001
    """A graph with 32 links a row, walked greedily with 64 candidates (Malkov & Yashunin 2016, arXiv 1603.09320)."""
    made = faiss.IndexBinaryHNSW(size, LINKS)
    made.hnsw.efSearch = BEAM
    return made


_MADE: dict[str, Callable[[ModuleType, int, int], Any]] = {"multihash": _multihash, "hnsw": _hnsw}
KINDS = (EXACT, *_MADE)


class Approximate:
    """The distinct rows that an index was given, as faiss keeps them; grows, and forgets nothing: see `stale`.

    Their bits are shuffled: the tables of a multihash take the first ones, which would be units of one corner of an
    image in the first layer, almost the same for all rows.
    """

    def __init__(self, kind: str, layout: Layout, parts: Sequence[Part]) -> None:
        self._faiss = faiss_for(kind)
        self._shuffle = np.random.default_rng(0).permutation(layout.bits)
        self._back = np.argsort(self._shuffle)
        self._index = _MADE[kind](self._faiss, 8 * layout.width, layout.bits)
        self._known = np.empty(0, np.uint64)
        for part in parts:
            self.add(part)

    def add(self, part: Part) -> None:
        """The rows of a part that are not there yet."""
        rows = np.asarray(part.rows)
        keys = hashes(rows)
        new = ~np.isin(keys, self._known)
        if new.any():
            self._index.add(shuffled(rows[new], self._shuffle))
            self._known = np.concatenate([self._known, keys[new]])

    def stale(self, parts: Sequence[Part]) -> bool:
        """Whether most of its rows were removed since, so that they would stand before those that are left."""
        return len(self._known) > 2 * sum(len(part.rows) for part in parts)

    def nearest(self, queries: Rows, k: int, parts: Sequence[Part]) -> list[Found]:
        """What the parts hold of at most k rows for each query."""
        bits, places = self._index.search(shuffled(queries, self._shuffle), k)
        q, rank = np.nonzero(places >= 0)
        rows, bits = shuffled(self._rows()[places[q, rank]], self._back), bits[q, rank]
        return [(q[i], ids, bits[i]) for i, ids, _ in (part.lookup(rows) for part in parts)]

    def _rows(self) -> Rows:
        """(n, width), a view of what faiss keeps."""
        kept = self._faiss.downcast_IndexBinary(self._index.storage)
        return self._faiss.rev_swig_ptr(kept.xb.data(), kept.ntotal * kept.code_size).reshape(-1, kept.code_size)


def shuffled(rows: Rows, order: NDArray[np.int64]) -> Rows:
    """The rows with their first bits in another order.

    >>> shuffled(np.array([[0b10100000]], np.uint8), np.array([1, 0, 3, 2])).tolist() == [[0b01010000]]
    True
    """
    found, step = np.empty(rows.shape, np.uint8), max(1, CHUNK // (8 * rows.shape[1]))
    for start in range(0, len(rows), step):
        bits = np.unpackbits(rows[start : start + step], axis=1)
        bits[:, : len(order)] = bits[:, order]
        found[start : start + step] = np.packbits(bits, axis=1)
    return found
