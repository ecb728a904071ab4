"""Approximate search: faiss looks at some of the rows only, so that neighbours may be missed. Distances are exact."""

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from maxaffine.search.layout import Rows
from maxaffine.search.part import Found, Part, hashes
from maxaffine.search.scan import faiss_for

EXACT, TABLES, LINKS, BEAM = "exact", 8, 32, 64


def _multihash(faiss: ModuleType, bits: int) -> Any:
    """Eight tables of 16 bits (fewer in short rows): rows that differ in at most one bit of some table are compared."""
    length = min(16, bits)
    made = faiss.IndexBinaryMultiHash(bits, max(1, min(TABLES, bits // length)), length)
    made.nflip = 1
    return made


def _hnsw(faiss: ModuleType, bits: int) -> Any:
    """A graph with 32 links a row, walked greedily with 64 candidates (Malkov & Yashunin 2016, arXiv 1603.09320)."""
    made = faiss.IndexBinaryHNSW(bits, LINKS)
    made.hnsw.efSearch = BEAM
    return made


_MADE: dict[str, Callable[[ModuleType, int], Any]] = {"multihash": _multihash, "hnsw": _hnsw}
KINDS = (EXACT, *_MADE)


class Approximate:
    """The distinct rows that an index was ever given, as faiss keeps them; grows, and forgets nothing."""

    def __init__(self, kind: str, width: int, parts: Sequence[Part]) -> None:
        self._faiss = faiss_for(kind)
        self._width = width
        self._index = _MADE[kind](self._faiss, 8 * width)
        self._known = np.empty(0, np.uint64)
        for part in parts:
            self.add(part)

    def add(self, part: Part) -> None:
        """The rows of a part that are not there yet."""
        rows = np.asarray(part.rows)
        keys = hashes(rows)
        new = ~np.isin(keys, self._known)
        if new.any():
            self._index.add(np.ascontiguousarray(rows[new]))
            self._known = np.concatenate([self._known, keys[new]])

    def nearest(self, queries: Rows, k: int, parts: Sequence[Part]) -> list[Found]:
        """What the parts hold of at most k rows for each query."""
        bits, places = self._index.search(np.ascontiguousarray(queries), k)
        q, rank = np.nonzero(places >= 0)
        rows, bits = self._rows()[places[q, rank]], bits[q, rank]
        return [(q[i], ids, bits[i]) for i, ids, _ in (part.lookup(rows) for part in parts)]

    def _rows(self) -> Rows:
        """(n, width), a view of what faiss keeps."""
        kept = self._faiss.downcast_IndexBinary(self._index.storage)
        return self._faiss.rev_swig_ptr(kept.xb.data(), kept.ntotal * self._width).reshape(-1, self._width)
