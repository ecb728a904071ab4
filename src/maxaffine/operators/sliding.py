"""Sliding windows as index tables: which inputs does each output of a convolution or pooling see."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from maxaffine.errors import InputError

Sizes = int | Sequence[int]


@dataclass(frozen=True, eq=False)
class Sliding:
    """All P windows of S positions each, row-major, over one channel of a grid.

    indices: (P, S) int64 into the flattened grid, -1 on padding.
    boxed: (P, S) bool, False where a position lies beyond even the padded grid (last window of ceil_mode).
    shape: the output grid; P = prod(shape).
    """

    indices: Tensor
    boxed: Tensor
    shape: tuple[int, ...]


def sliding(
    grid: Sequence[int],
    kernel: Sizes,
    stride: Sizes = 1,
    padding: Sizes | str = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
) -> Sliding:
    """The windows of a 1-, 2- or 3-dimensional grid, numbered and padded as torch does.

    Raises:
        InputError: a parameter of the wrong length, or a window larger than the padded grid.

    >>> sliding([4], 3, stride=2, padding=1).indices.tolist()
    [[-1, 0, 1], [1, 2, 3]]
    """
    n = len(grid)
    sizes, steps, gaps = (
        per_axis(v, n, w) for v, w in ((kernel, "kernel"), (stride, "stride"), (dilation, "dilation"))
    )
    pads = margins(padding, sizes, gaps)
    index, valid, boxed = (
        torch.zeros(1, dtype=torch.long),
        torch.ones(1, dtype=torch.bool),
        torch.ones(1, dtype=torch.bool),
    )
    shape = []
    for a in range(n):
        at = positions(grid[a], sizes[a], steps[a], pads[a], gaps[a], ceil_mode)
        view = [1] * (2 * n)
        view[a], view[n + a] = at.shape
        index, valid = index * grid[a] + at.view(view), valid & ((at >= 0) & (at < grid[a])).view(view)
        boxed = boxed & (at < grid[a] + pads[a][1]).view(view)
        shape.append(len(at))
    flat = (prod(shape), prod(sizes))
    return Sliding(index.where(valid, -1).reshape(flat), boxed.expand(index.shape).reshape(flat), tuple(shape))


def positions(length: int, kernel: int, stride: int, pad: tuple[int, int], dilation: int, ceil_mode: bool) -> Tensor:
    """Coordinates (windows, kernel) along one axis; negative or >= length on padding."""
    room = length + sum(pad) - dilation * (kernel - 1) - 1
    if min(kernel, stride, dilation) < 1 or min(pad) < 0 or room < 0:
        given = f"kernel={kernel}, stride={stride}, padding={pad}, dilation={dilation} on {length} positions"
        raise InputError(f"sliding windows: {given} leave no window: make the kernel smaller or the padding larger")
    count = (-(-room // stride) if ceil_mode else room // stride) + 1
    if ceil_mode and (count - 1) * stride >= length + pad[0]:
        count -= 1  # torch's rule: a window must start inside the grid or its left padding
    return torch.arange(count)[:, None] * stride - pad[0] + torch.arange(kernel) * dilation


def per_axis(value: Sizes, n: int, what: str) -> tuple[int, ...]:
    """One integer for each of the n axes."""
    sizes = (value,) * n if isinstance(value, int) else tuple(value)
    sizes = sizes * n if len(sizes) == 1 else sizes
    if len(sizes) != n:
        raise InputError(f"sliding windows: {what}={value} has {len(sizes)} entries: give one integer or {n}")
    return sizes


def margins(padding: Sizes | str, kernel: Sequence[int], dilation: Sequence[int]) -> list[tuple[int, int]]:
    """Padding (before, after) on each axis; 'same' puts the odd one after, as torch does."""
    if isinstance(padding, str):
        if padding not in ("same", "valid"):
            raise InputError(f"sliding windows: padding={padding!r} is unknown: give integers, 'same' or 'valid'")
        total = [d * (k - 1) * (padding == "same") for k, d in zip(kernel, dilation, strict=True)]
        return [(t // 2, t - t // 2) for t in total]
    return [(p, p) for p in per_axis(padding, len(kernel), "padding")]
