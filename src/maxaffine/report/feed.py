"""The feed: how a stored row becomes a network input. Nothing is guessed; the page says what is done."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from maxaffine.data import Dataset
from maxaffine.errors import InputError

Numbers = tuple[float, ...]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Feed:
    """x = (factor * row - mean) / std, then the axes permuted, then reshaped to ``shape``.

    ``mean`` and ``std`` hold one number, or one for each entry of the row's first (or else last) axis.

    >>> feed = Feed(shape=(4, 1), factor=0.5)
    >>> feed(np.array([[[2, 4], [6, 8]]])).flatten().tolist()
    [1.0, 2.0, 3.0, 4.0]
    """

    shape: Shape
    factor: float = 1.0
    mean: Numbers = (0.0,)
    std: Numbers = (1.0,)
    permute: Shape | None = None

    def __call__(self, rows: np.ndarray) -> torch.Tensor:
        """Return the inputs (N, *shape), float64, of stored rows (N, *row)."""
        row = rows.shape[1:]
        x = (self.factor * rows.astype(np.float64) - _along(self.mean, row)) / _along(self.std, row)
        if self.permute is not None:
            x = x.transpose(0, *(axis + 1 for axis in self.permute))
        return torch.from_numpy(np.ascontiguousarray(x)).reshape(len(rows), *self.shape)

    def stored_order(self, values: np.ndarray, row: Shape) -> np.ndarray:
        """Return values of one input (*shape), such as a template, as they lie in a stored row (*row)."""
        permuted = values.reshape(_permuted(row, self.permute))
        return permuted if self.permute is None else permuted.transpose(np.argsort(self.permute))


@dataclass(frozen=True)
class Scaling:
    """What the user says about the network's inputs; ``factor`` None means that nothing was said."""

    factor: float | None = None
    mean: Numbers = (0.0,)
    std: Numbers = (1.0,)
    permute: Shape | None = None


def fit(data: Dataset, shape: Shape | None, scaling: Scaling) -> Feed:
    """Return the feed from rows of ``data`` to inputs of ``shape`` (None: the rows' own).

    A row is reshaped in row-major order when the number of values is right, except from one shape with three
    or more axes to another (height x width x channel to channel x height x width needs ``permute``).

    Raises:
        InputError: whole numbers without a scale, a scaling of the wrong length, or shapes that do not fit.
    """
    if scaling.factor is None and data.inputs.dtype.kind in "iu":
        stored = f"{data.source} holds whole numbers ({data.inputs.dtype}, up to {data.inputs.max()})"
        raise InputError(f"{stored}: say how the network takes them, e.g. --scale 1/255, or --scale 1 as stored")
    _check_scaling(scaling, data.row_shape)
    row = _permuted(data.row_shape, scaling.permute)
    wanted = row if shape is None else tuple(shape)
    if math.prod(row) != math.prod(wanted):
        sizes = f"{data.row_shape} ({math.prod(row)} values), the network takes {wanted} ({math.prod(wanted)})"
        raise InputError(f"{data.source}: a row has shape {sizes}: give data of the network's size")
    before, after = _long_axes(row), _long_axes(wanted)
    if before != after and min(len(before), len(after)) > 2:
        advice = "say the order of the row's axes, e.g. --permute 2,0,1 for height, width, channel"
        raise InputError(f"{data.source}: rows of shape {row} for inputs of shape {wanted}: {advice}")
    factor = 1.0 if scaling.factor is None else scaling.factor
    return Feed(wanted, factor, scaling.mean, scaling.std, scaling.permute)


def describe(feed: Feed, row: Shape) -> str:
    """Say in words what ``feed`` does to a row of shape ``row``.

    >>> describe(Feed((784,), 1 / 255), (28, 28))
    'x = row / 255; rows of 28 × 28 reshaped to 784'
    """
    text = "row" if feed.factor == 1 else f"{feed.factor:g} row"
    if feed.factor not in (0, 1) and abs(round(1 / feed.factor) * feed.factor - 1) < 1e-12:
        text = f"row / {round(1 / feed.factor)}"
    if feed.mean != (0.0,) or feed.std != (1.0,):
        text = f"({text} − {_listed(feed.mean)}) / {_listed(feed.std)}"
    parts = [f"x = {text}"]
    if feed.permute is not None:
        parts.append(f"axes in the order {', '.join(map(str, feed.permute))}")
    if _permuted(row, feed.permute) != feed.shape:
        parts.append(f"rows of {times(row)} reshaped to {times(feed.shape)}")
    return "; ".join(parts)


def times(shape: Shape) -> str:
    """Write a shape for people.

    >>> times((3, 32, 32))
    '3 × 32 × 32'
    """
    return " × ".join(map(str, shape)) if shape else "1"


def _check_scaling(scaling: Scaling, row: Shape) -> None:
    if scaling.factor is not None and (not math.isfinite(scaling.factor) or scaling.factor == 0):
        raise InputError(f"scale {scaling.factor}: give a finite number other than 0")
    for name, values in (("mean", scaling.mean), ("std", scaling.std)):
        if len(values) not in (1, row[0], row[-1]):
            raise InputError(f"{name} has {len(values)} values, a row has shape {row}: give 1, or 1 a channel")
        if not all(map(math.isfinite, values)) or (name == "std" and 0 in values):
            raise InputError(f"{name} {values}: give finite numbers, and no std of 0")


def _along(values: Numbers, row: Shape) -> np.ndarray:
    """Shape ``values`` to broadcast along the row's first axis, or along its last if only that one fits."""
    array = np.array(values)
    return array.reshape(-1, *[1] * (len(row) - 1)) if len(values) == row[0] else array


def _permuted(row: Shape, permute: Shape | None) -> Shape:
    order = tuple(range(len(row))) if permute is None else permute
    if sorted(order) != list(range(len(row))):
        raise InputError(f"permute {order}: not an order of the {len(row)} axes of a row of shape {tuple(row)}")
    return tuple(row[axis] for axis in order)


def _long_axes(shape: Shape) -> Shape:
    return tuple(n for n in shape if n != 1)


def _listed(values: Numbers) -> str:
    return f"{values[0]:g}" if len(values) == 1 else "(" + ", ".join(f"{v:g}" for v in values) + ")"
