"""Which cell each pixel lies in, for all pixels of a picture at once."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from maxaffine.geometry.plane import PlanePartition

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Window:
    """The rectangle left <= s <= right, bottom <= t <= top, cut into columns x rows pixels.

    >>> Window(0.0, 2.0, 0.0, 1.0, 4, 2).centres()[0].tolist()
    [0.25, 0.25]
    """

    left: float
    right: float
    bottom: float
    top: float
    columns: int
    rows: int

    @property
    def pixel(self) -> tuple[float, float]:
        """Width and height of a pixel in (s, t)."""
        return (self.right - self.left) / self.columns, (self.top - self.bottom) / self.rows

    def centres(self) -> Floats:
        """Centres of the pixels (rows * columns, 2), the lowest row first."""
        width, height = self.pixel
        s = self.left + width * (np.arange(self.columns) + 0.5)
        t = self.bottom + height * (np.arange(self.rows) + 0.5)
        return np.stack([a.ravel() for a in np.meshgrid(s, t)], axis=1).astype(np.float64)


def window_of(corners: Floats, size: int) -> Window:
    """The smallest rectangle around points (n, 2), with ``size`` pixels along its longer side."""
    (left, bottom), (right, top) = corners.min(0).tolist(), corners.max(0).tolist()
    scale = size / max(right - left, top - bottom)
    columns, rows = (max(1, round(scale * d)) for d in (right - left, top - bottom))
    return Window(left, right, bottom, top, columns, rows)


def cell_image(plane: "PlanePartition", window: Window) -> Ints:
    """(rows, columns): the cell that holds the centre of each pixel, -1 outside; the lowest row first.

    A row of pixels meets the falling sides of cells (counter-clockwise: the cell lies to their right) in points; the
    cell of a pixel is that of the last such point before it. The work is that of the sides and the pixels.
    """
    cells, lower, upper, falling = _sides(plane)
    side, row, column, s = _crossings(lower[falling], upper[falling], window)
    order = np.lexsort((s, column, row))
    starts = np.zeros((window.rows, window.columns + 1), np.int64)
    # The last of several crossings before one pixel wins: they come in order.
    starts[row[order], column[order]] = np.arange(1, len(order) + 1)
    last = np.maximum.accumulate(starts, axis=1)[:, :-1]
    found = np.concatenate([[-1], cells[falling][side[order]]])[last]
    _, row, column, _ = _crossings(lower[~falling], upper[~falling], window)
    ends = np.zeros(window.rows, np.int64)
    np.maximum.at(ends, row, column)
    return np.where(np.arange(window.columns) < ends[:, None], found, -1)


def _sides(plane: "PlanePartition") -> tuple[Ints, Floats, Floats, NDArray[np.bool_]]:
    """Of every side of every cell: the cell, its lower and its upper end, and whether it falls."""
    offsets, corners = plane.cells
    following = np.arange(1, len(corners) + 1)
    following[offsets[1:] - 1] = offsets[:-1]
    start, end = plane.vertices[corners], plane.vertices[corners[following]]
    falling = start[:, 1] > end[:, 1]
    lower, upper = (np.where(falling[:, None], *pair) for pair in ((end, start), (start, end)))
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets)), lower, upper, falling


def _crossings(lower: Floats, upper: Floats, window: Window) -> tuple[Ints, Ints, Ints, Floats]:
    """Where sides meet the middle of pixel rows: side, row, first column whose middle is not before it, and s."""
    width, height = window.pixel
    first, stop = (
        np.clip(np.ceil((end[:, 1] - window.bottom) / height - 0.5), 0, window.rows).astype(np.int64)
        for end in (lower, upper)
    )
    counts = stop - first
    side = np.repeat(np.arange(len(lower)), counts)
    row = np.arange(len(side)) - np.repeat(np.cumsum(counts) - counts - first, counts)
    t = window.bottom + height * (row + 0.5)
    a, b = lower[side], upper[side]
    s = a[:, 0] + (t - a[:, 1]) / (b[:, 1] - a[:, 1]) * (b[:, 0] - a[:, 0])
    column = np.clip(np.ceil((s - window.left) / width - 0.5), 0, window.columns).astype(np.int64)
    return side, row, column, s
