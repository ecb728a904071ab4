"""Exact search in rows of bits: all of them are looked at. faiss counts the bits where it is installed, else numba.

Both give the same answer: the lowest pairs (distance, position), so that ties go to the row that stands first.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray

from maxaffine.errors import MissingExtraError
from maxaffine.search.layout import Rows

Positions = NDArray[np.int64]
Counts = NDArray[np.int32]
QUERIES, BLOCK = 64, 2**14  # numba: pairs at a time, 8 MiB of counts
BYTES, WHOLE = 2**25, 2**24  # numba: of rows at a time; faiss gives distances within a radius in float32


def faiss_or_none() -> ModuleType | None:
    """The library, if it is installed."""
    try:
        import faiss
    except ImportError:
        return None
    return faiss


def faiss_for(kind: str) -> ModuleType:
    """The library, which the approximate kinds of index cannot do without. Raises MissingExtraError."""
    found = faiss_or_none()
    if found is None:
        raise MissingExtraError(f'an index of kind {kind!r} needs faiss: pip install "maxaffine[search]"')
    return found


def nearest(queries: Rows, rows: Rows, k: int) -> tuple[Counts, Positions]:
    """(Q, k) Hamming distances and positions of the k nearest rows, ascending, ties by position; k <= len(rows)."""
    faiss = faiss_or_none()
    if faiss is not None:
        return faiss.knn_hamming(np.ascontiguousarray(queries), rows, k)
    found = [np.empty((0, k), np.int64)]
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        starts = range(0, len(queries), QUERIES)
        found += list(pool.map(lambda start: _lowest(queries[start : start + QUERIES], rows, k), starts))
    keys = np.concatenate(found)
    return (keys // len(rows)).astype(np.int32), keys % len(rows)


def within(queries: Rows, rows: Rows, most: int) -> tuple[Positions, Positions, Counts]:
    """Every pair of rows at most that many bits apart, by query and position: queries, positions, distances (P,)."""
    faiss = faiss_or_none()
    if faiss is None or 8 * rows.shape[1] >= WHOLE:
        return _within_numba(queries, rows, most)
    queries = np.ascontiguousarray(queries)
    found = faiss.RangeSearchResult(len(queries))
    given = faiss.swig_ptr(queries), faiss.swig_ptr(rows), len(queries), len(rows), most + 1, rows.shape[1]
    faiss.hamming_range_search(*given, found)
    limits = faiss.rev_swig_ptr(found.lims, len(queries) + 1).astype(np.int64)
    if not limits[-1]:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int32)
    positions, distances = (faiss.rev_swig_ptr(p, int(limits[-1])) for p in (found.labels, found.distances))
    return np.repeat(np.arange(len(queries)), np.diff(limits)), positions.copy(), distances.astype(np.int32)


def _within_numba(queries: Rows, rows: Rows, most: int) -> tuple[Positions, Positions, Counts]:
    found = []
    for first in range(0, len(queries), QUERIES):
        for start, counts in _counts(queries[first : first + QUERIES], rows):
            q, p = np.nonzero(counts <= most)
            found.append((q + first, p + start, counts[q, p].astype(np.int32)))
    q, p, d = (np.concatenate(part) for part in zip(*found, strict=True))
    order = np.lexsort((p, q))
    return q[order], p[order], d[order]


def _lowest(queries: Rows, rows: Rows, k: int) -> NDArray[np.int64]:
    """The k lowest keys distance * len(rows) + position of each query, ascending."""
    best = np.empty((len(queries), 0), np.int64)
    for start, counts in _counts(queries, rows):
        keys = counts.astype(np.int64) * len(rows) + np.arange(start, start + counts.shape[1])
        best = np.concatenate([best, keys], 1)
        if best.shape[1] > k:
            best = np.partition(best, k - 1, axis=1)[:, :k]
    return np.sort(best, 1)


def _counts(queries: Rows, rows: Rows) -> Iterator[tuple[int, NDArray[np.uint64]]]:
    """The Hamming distances (Q, B) to each block of rows, and where the block starts."""
    from maxaffine.code.popcount import differing

    own = np.ascontiguousarray(queries).view(np.uint64)
    widths = np.ones(own.shape[1], np.int64)
    step = max(1, min(BLOCK, BYTES // rows.shape[1]))
    for start in range(0, len(rows), step):
        block = np.ascontiguousarray(np.ascontiguousarray(rows[start : start + step]).view(np.uint64).T)
        total = np.empty((len(own), block.shape[1]), np.uint64)
        differing(own, block, widths, total)
        yield start, total
