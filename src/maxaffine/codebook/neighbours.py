"""Nearest inputs by code, depth by depth, and how often they are of one class."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from maxaffine import arguments
from maxaffine.code import Code, distance_chunks, same_signature
from maxaffine.codebook.occupied import CODES, depths_of
from maxaffine.errors import InputError
from maxaffine.types import Names

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
Track = Callable[[Sequence, str], Iterable]
MEMORY = 2**28  # bytes of distances held at a time


@dataclass(frozen=True, eq=False)
class Nearest:
    """The k nearest of a pool: rows (Q, k) of the pool and distances (Q, k), nearest first; of equals the earlier."""

    rows: Integers
    distances: Floats


def nearest(
    queries: Code,
    pool: Code,
    k: int = 1,
    operators: Names | None = None,
    weights: Mapping[str, float] | Sequence[float] | None = None,
    *,
    own: ArrayLike | None = None,
) -> Nearest:
    """The k nearest codes of a pool by Eq. 15, exact, in bounded memory.

    own: (Q,) the row of the pool that each query is and that is therefore left out (leave-one-out). Raises InputError
    when the structures differ or k is larger than the pool.

    >>> import torch, maxaffine as ma
    >>> spline = ma.Spline(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.ReLU()), torch.zeros(1, 2))
    >>> code = spline.code(torch.tensor([[1.0, 1], [1, -1], [-1, -1]]))
    >>> nearest(code, code, 1, own=range(3)).rows.tolist()
    [[1], [0], [1]]
    """
    same_signature(queries, pool)
    left_out = None if own is None else arguments.indices(own, "own", max(1, len(pool))).numpy()
    if left_out is not None and len(left_out) != len(queries):
        raise InputError(f"own names {len(left_out)} rows for {len(queries)} queries; give one row of the pool each")
    most = len(pool) - (left_out is not None)
    if not 1 <= arguments.whole(k, "k") <= most:
        raise InputError(f"k is {k}, the pool has {most} inputs to find; give k from 1 to {most}")
    rows, found = np.empty((len(queries), k), np.int64), np.empty((len(queries), k))
    step = max(1, MEMORY // (8 * len(pool)))
    for chunk, part in distance_chunks(queries, pool, operators, weights, step):
        distances = part.numpy()
        if left_out is not None:
            distances[np.arange(len(distances)), left_out[chunk]] = np.inf
        rows[chunk] = _smallest(distances, k)
        found[chunk] = np.take_along_axis(distances, rows[chunk], 1)
    return Nearest(rows, found)


def _smallest(distances: Floats, k: int) -> Integers:
    """Places of the k smallest of each row, of equals the first: what a stable sort would begin with, without it."""
    if k == 1:
        return distances.argmin(1)[:, None]
    bounds = np.partition(distances, k - 1, axis=1)[:, k - 1]
    chosen = np.empty((len(distances), k), np.int64)
    for i, (row, bound) in enumerate(zip(distances, bounds, strict=True)):
        near = np.flatnonzero(row <= bound)
        chosen[i] = near[row[near].argsort(kind="stable")[:k]]
    return chosen


@dataclass(frozen=True, eq=False)
class Agreement:
    """How often neighbours by code are of one class, at each depth and for each k.

    depths: names of operators. shares: (depths, K) mean share of the k neighbours that are of the query's class.
    votes: (depths, K) share of queries whose class is the most frequent one among the k (of equally frequent ones that
    of the nearest). chance: the share to expect of neighbours drawn at random.
    """

    depths: tuple[str, ...]
    k: tuple[int, ...]
    shares: Floats
    votes: Floats
    chance: float
    queries: int

    def __str__(self) -> str:
        wide = max(len(name) for name in self.depths)
        head = f"{'operator':<{max(wide, 8)}}" + "".join(f"  k={k:<5}" for k in self.k)
        lines = [f"{n:<{max(wide, 8)}}" + "".join(f"  {v:<7.4f}" for v in r) for n, r in self._rows()]
        return "\n".join([head, *lines, f"chance {self.chance:.4f}, {self.queries} queries"])

    def _rows(self) -> Iterable[tuple[str, Floats]]:
        return zip(self.depths, self.shares, strict=True)


def class_agreement(
    code: Code,
    labels: ArrayLike,
    k: Sequence[int] = (1, 5, 20),
    operators: Names | None = None,
    *,
    queries: ArrayLike | None = None,
    track: Track | None = None,
) -> Agreement:
    """Class agreement of the k nearest neighbours by code, leave-one-out, one number a depth.

    labels: (N,) classes. queries: the rows whose neighbours are looked up among all (default: every row); the time goes
    with queries x N. track(steps, what) shows progress. Raises InputError for labels that do not fit.
    Source: Balestriero & Baraniuk 2018, arXiv 1805.06576 (their code reports it for k = 1).

    >>> import torch, maxaffine as ma
    >>> spline = ma.Spline(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.ReLU()), torch.zeros(1, 2))
    >>> code = spline.code(torch.tensor([[1.0, 1], [2, 1], [-1, -1], [-2, -1]]))
    >>> class_agreement(code, [0, 0, 1, 1], k=(1, 3)).shares.round(3).tolist()
    [[1.0, 0.333]]
    """
    classes = classes_of(labels, len(arguments.require(code, Code, "code", CODES)))
    rows = np.arange(len(code)) if queries is None else arguments.indices(queries, "queries", len(code)).numpy()
    names, counts = depths_of(code, operators), arguments.wholes(k, "k")
    shares, votes = np.empty((len(names), len(counts))), np.empty((len(names), len(counts)))
    asked: Any = code if queries is None else code[arguments.indices(rows, "queries", len(code))]
    for i, name in enumerate(names if track is None else track(names, "neighbours by code")):
        theirs = classes[nearest(asked, code, counts[-1], name, own=rows).rows]
        same = theirs == classes[rows, None]
        shares[i] = [same[:, :n].mean() for n in counts]
        votes[i] = [(_voted(theirs[:, :n]) == classes[rows]).mean() for n in counts]
    present = np.bincount(classes)
    chance = (present[classes[rows]] - 1).mean() / max(1, len(code) - 1)
    return Agreement(tuple(names), tuple(counts), shares, votes, float(chance), len(rows))


def classes_of(labels: ArrayLike, count: int) -> Integers:
    """The labels numbered 0, 1 ...; any values that can be sorted."""
    found = np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels)
    if found.shape != (count,):
        raise InputError(f"labels have shape {found.shape}; give one for each of the {count} codes")
    if found.dtype.kind == "f" and not np.isfinite(found).all():
        raise InputError("labels contain NaN or infinite values; give each code a class")
    return np.unique(found, return_inverse=True)[1].astype(np.int64)


def _voted(theirs: Integers) -> Integers:
    """The most frequent class of each row; of equally frequent ones that which stands first."""
    times = (theirs[:, :, None] == theirs[:, None, :]).sum(2)
    return theirs[np.arange(len(theirs)), times.argmax(1)]
