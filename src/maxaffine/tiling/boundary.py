"""The decision boundary on a plane: where the two largest outputs are equal."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from maxaffine.geometry.plane import PlanePartition

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
CHUNK = 2**22  # numbers at a time
TIED = 1e-9  # of the outputs' size: equal along an edge


def decision_boundary(plane: "PlanePartition", level: float = 0.0) -> Floats:
    """Segments (n, 2, 2) in (s, t) where the largest output is not unique; of one output: where it is ``level``.

    In a cell all outputs are affine: f_i = f_j >= f_k is a line cut off by the half-planes of the cell's sides and of
    the other outputs f_k. Edges along which two outputs tie, each of them the largest on one side, belong to it too.
    """
    A, b = maps(plane, level)
    parts = []
    for cells in _chunks(A):
        rivals = _rivals(plane, A, b, cells)[1]
        cell, i, j = _pairs_of(rivals)
        parts.append(_clipped(plane, A, b, cells[cell], i, j, rivals[cell]))
    return np.concatenate([*parts, _along_edges(plane, A, b)])


def maps(plane: "PlanePartition", level: float = 0.0) -> tuple[Floats, Floats]:
    """A (F, K, 2) and b (F, K) of the flat outputs; a single output f comes second, behind the constant ``level``."""
    A, b = plane.A.reshape(len(plane), -1, 2), plane.b.reshape(len(plane), -1)
    if A.shape[1] == 1:
        A, b = np.concatenate([0 * A, A], 1), np.concatenate([np.full_like(b, level), b], 1)
    return A, b


def leading_outputs(plane: "PlanePartition") -> tuple[Ints, Ints]:
    """For each cell the largest output at its centre (F,), and all that may be the largest in it (F, R).

    Rows of the second are filled up with the largest at the centre; see `maps` for a single output.
    """
    A, b = maps(plane)
    best, rows = np.zeros(len(A), np.int64), []
    for cells in _chunks(A):
        best[cells], rivals = _rivals(plane, A, b, cells)
        row, column = np.nonzero(rivals)
        place = np.arange(len(row)) - np.searchsorted(row, row)
        filled = np.repeat(best[cells][:, None], place.max(initial=0) + 1, axis=1)
        filled[row, place] = column
        rows.append(filled)
    width = max(filled.shape[1] for filled in rows)
    return best, np.concatenate([np.pad(filled, ((0, 0), (0, width - filled.shape[1])), "edge") for filled in rows])


def _chunks(A: Floats) -> list[Ints]:
    """The cells in groups whose corners have few enough values."""
    return np.array_split(np.arange(len(A)), -(-len(A) * 8 * A.shape[1] // CHUNK))


def _rivals(plane: "PlanePartition", A: Floats, b: Floats, cells: Ints) -> tuple[Ints, NDArray[np.bool_]]:
    """The largest output at the centres of n cells (n,), and which may be the largest in them (n, K).

    Where the first is the largest at all corners it is so in the whole cell, and no output is marked.
    """
    at, corner = _corners(plane, cells)
    values = (A[cells[at]] @ corner[..., None])[..., 0] + b[cells[at]]
    centre = (A[cells] @ plane.centres[cells][..., None])[..., 0] + b[cells]
    best = centre.argmax(1)
    exceeds = values > values[np.arange(len(at)), best[at]][:, None]
    rivals = np.zeros(centre.shape, bool)
    np.logical_or.at(rivals, at, exceeds)  # only these can be the largest anywhere in the cell
    rivals[np.arange(len(cells)), best] = rivals.any(1)
    return best, rivals


def _pairs_of(chosen: NDArray[np.bool_]) -> tuple[Ints, Ints, Ints]:
    """Rows and both columns of every pair of chosen entries of one row."""
    row, column = np.nonzero(chosen)
    last = np.searchsorted(row, row, side="right")
    counts = last - np.arange(len(row)) - 1
    first = np.repeat(np.arange(len(row)), counts)
    second = np.arange(len(first)) - np.repeat(np.cumsum(counts) - counts, counts) + first + 1
    return row[first], column[first], column[second]


def _clipped(
    plane: "PlanePartition", A: Floats, b: Floats, cell: Ints, i: Ints, j: Ints, rivals: NDArray[np.bool_]
) -> Floats:
    """The part of each line f_i = f_j that lies in its cell and below no other output."""
    normal, offset = A[cell, i] - A[cell, j], b[cell, i] - b[cell, j]
    size = np.linalg.norm(normal, axis=1)
    real = size > 0
    cell, i, normal, offset, size = cell[real], i[real], normal[real], offset[real], size[real]
    rivals, j = rivals[real], j[real]
    unit = normal / size[:, None]
    start = plane.centres[cell]
    start = start - ((normal * start).sum(1) + offset)[:, None] / size[:, None] * unit
    along = np.stack([-unit[:, 1], unit[:, 0]], axis=1)
    low, high = np.full(len(cell), -np.inf), np.full(len(cell), np.inf)
    at, point = _corners(plane, cell)
    ahead = _following(point, at) - point
    inward = np.stack([-ahead[:, 1], ahead[:, 0]], axis=1)
    _cut(low, high, at, (inward * (start[at] - point)).sum(1), (inward * along[at]).sum(1))
    rivals[np.arange(len(i)), i] = rivals[np.arange(len(j)), j] = False
    at, k = np.nonzero(rivals)
    over, rest = A[cell[at], i[at]] - A[cell[at], k], b[cell[at], i[at]] - b[cell[at], k]
    _cut(low, high, at, (over * start[at]).sum(1) + rest, (over * along[at]).sum(1))
    ends = start[:, None] + np.stack([low, high], 1)[..., None] * along[:, None]
    return ends[low < high]


def _cut(low: Floats, high: Floats, at: Ints, value: Floats, rise: Floats) -> None:
    """Shrink the intervals [low, high] to where value + tau * rise >= 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        zero = -value / rise
    np.maximum.at(low, at[rise > 0], zero[rise > 0])
    np.minimum.at(high, at[rise < 0], zero[rise < 0])
    np.minimum.at(high, at[(rise == 0) & (value < 0)], -np.inf)


def _corners(plane: "PlanePartition", cells: Ints) -> tuple[Ints, Floats]:
    """The corners of some cells, one after the other: which of the cells (0, 1 ...), and (s, t)."""
    offsets, indices = plane.cells
    counts = offsets[cells + 1] - offsets[cells]
    at = np.repeat(np.arange(len(cells)), counts)
    place = np.arange(len(at)) - np.repeat(np.cumsum(counts) - counts, counts) + offsets[cells][at]
    return at, plane.vertices[indices[place]]


def _following(points: Floats, at: Ints) -> Floats:
    """The next corner of the same cell."""
    following = np.arange(1, len(at) + 1)
    first = np.flatnonzero(np.diff(at, prepend=-1))
    following[np.append(first[1:], len(at))[: len(first)] - 1] = first
    return points[following]


def _along_edges(plane: "PlanePartition", A: Floats, b: Floats) -> Floats:
    """Edges on which the largest outputs of both sides tie, but are not the same output."""
    best = ((A @ plane.centres[..., None])[..., 0] + b).argmax(1)
    inner = np.flatnonzero((plane.neighbours >= 0).all(1))
    first, second = plane.neighbours[inner].T
    differ = best[first] != best[second]
    inner, first, second = inner[differ], first[differ], second[differ]
    ends = plane.vertices[plane.edges[inner]]
    gap, size = np.zeros(len(inner)), np.full(len(inner), 1e-300)
    for point in (ends[:, 0], ends[:, 1]):
        one, other = ((A[first, best[side]] * point).sum(1) + b[first, best[side]] for side in (first, second))
        gap, size = np.maximum(gap, np.abs(one - other)), np.maximum(size, np.abs(one))
    return ends[gap <= TIED * size]
