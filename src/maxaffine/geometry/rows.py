"""Coefficient rows of a value, those that have a single entry kept as that entry: the units of the last operator.

A unit that was just made has coefficient 1 (or a change of slope) at its own place and 0 elsewhere. Operations that
send one entry to few places (convolution, linear, pooling, reshaping) need not be run on such rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from maxaffine.operators.convolution import geometry
from maxaffine.types import Shape, flat


def _none() -> Tensor:
    return torch.zeros(0, dtype=torch.int64)


@dataclass(frozen=True)
class Rows:
    """dense: (3 + d, *shape); then h rows with one entry each: values (h,) at flat places (h,)."""

    dense: Tensor
    places: Tensor = field(default_factory=_none)
    values: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))

    def __len__(self) -> int:
        return len(self.dense) + len(self.places)

    @property
    def shape(self) -> Shape:
        """Of one row."""
        return tuple(self.dense.shape[1:])

    def full(self, count: int | None = None) -> Tensor:
        """All rows (count, *shape), zero rows behind them."""
        count = len(self) if count is None else count
        if count == len(self.dense):
            return self.dense
        out = self.dense.new_zeros(count, self.dense[0].numel())
        out[: len(self.dense)] = flat(self.dense)
        out[torch.arange(len(self.dense), len(self)), self.places] = self.values
        return out.reshape(count, *self.shape)


def spread(op: str, rows: Rows, args: Sequence[Any], shape: Shape) -> Rows | Tensor | None:
    """The single-entry rows after an operation: still single entries (places and values), or dense; None: no rule."""
    if op in SAME:
        return Rows(rows.dense[:0], rows.places, rows.values)
    rule = RULES.get(op)
    return rule(rows, args, shape) if rule else None


def _linear(rows: Rows, args: Sequence[Any], shape: Shape) -> Tensor | None:  # noqa: ARG001
    if len(rows.shape) != 1:
        return None
    return args[1].T[rows.places] * rows.values[:, None]


def _convolution(rows: Rows, args: Sequence[Any], shape: Shape) -> Tensor | None:
    """out[:, y', x'] = w[:, c, i, j] value where y' stride + i dilation - padding = y, and the same for x."""
    weight, stride, padding, dilation, _, groups = geometry(args, 2, False)
    if groups != 1:
        return None
    _, height, width = rows.shape
    channel, y, x = rows.places // (height * width), rows.places // width % height, rows.places % width
    out = rows.dense.new_zeros(len(rows.places), *shape)
    for i in range(weight.shape[2]):
        for j in range(weight.shape[3]):
            up, left = y + padding[0] - i * dilation[0], x + padding[1] - j * dilation[1]
            down, right = up // stride[0], left // stride[1]
            real = (up % stride[0] == 0) & (left % stride[1] == 0) & (down >= 0) & (right >= 0)
            k = (real & (down < shape[1]) & (right < shape[2])).nonzero(as_tuple=True)[0]
            out[k, :, down[k], right[k]] = weight[:, channel[k], i, j].T * rows.values[k, None]
    return out


def _average(rows: Rows, args: Sequence[Any], shape: Shape) -> Rows | None:
    """Windows that do not overlap: one entry stays one entry."""
    kernel, stride = _two(args[1]), _two(args[2]) if len(args) > 2 and args[2] else _two(args[1])
    padding, rest = _two(args[3]) if len(args) > 3 else [0, 0], args[4:]
    _, height, width = rows.shape
    if kernel != stride or padding != [0, 0] or any(rest) or height % kernel[0] or width % kernel[1]:
        return None
    channel, y, x = rows.places // (height * width), rows.places // width % height, rows.places % width
    places = (channel * shape[1] + y // kernel[0]) * shape[2] + x // kernel[1]
    return Rows(rows.dense[:0], places, rows.values / (kernel[0] * kernel[1]))


def _two(value: Sequence[int] | int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * 2 if len(values) == 1 else values


SAME = {
    "aten.view.default",
    "aten._unsafe_view.default",
    "aten.reshape.default",
    "aten.flatten.using_ints",
    "aten.clone.default",
    "aten.dropout.default",
}
RULES: dict[str, Callable[[Rows, Sequence[Any], Shape], Rows | Tensor | None]] = {
    "aten.linear.default": _linear,
    "aten.conv2d.default": _convolution,
    "aten.avg_pool2d.default": _average,
}
