"""Paths of few straight pieces through the tube f +- e around a function."""

from dataclasses import dataclass

import torch
from torch import Tensor

from maxaffine.approximation.smooth import SAMPLES_PER_PIECE, Smooth

STARTS = 24  # places on a piece from which the next one is tried


@dataclass(frozen=True, eq=False)
class Tube:
    """Samples x (M,) of f +- e; landing (M,): the right tail where it may be taken, NaN elsewhere."""

    x: Tensor
    f: Tensor
    e: float
    landing: Tensor


def march(target: Smooth, x: Tensor, e: float, limit: int) -> tuple[Tensor, Tensor] | None:
    """Corners (x, y) of a path of at most `limit` pieces through the tube f +- e, tails included, else None.

    Each piece starts anywhere on the one before it and ends as far as a straight line can stay in the tube. A
    path without tails has its two ends among the corners.
    """
    tube, start, height = enter(target, x, e)
    corners: list[Tensor] = []
    if (crossing := meeting(target, tube, start)) is not None and limit >= 2:
        return crossing
    for _ in range(limit - (0 if target.tails is None else 2)):
        if not len(start):
            return None
        window, low, high = reach(tube, start, height)
        end = (low <= high).sum(1) - 1
        landed = land(tube, window, start, height, low, high)
        s = int(end.argmax()) if landed is None else landed[0]
        corners.append(torch.stack([x[start[s]], height[s]]))
        if landed is not None:
            return corner_lists([*corners, torch.stack([x[landed[1]], tube.landing[landed[1]]])])
        slope, stop = (low[s, end[s]] + high[s, end[s]]) / 2, int(end[s]) + window.start
        if target.tails is None and stop == len(x) - 1:
            final = torch.stack([x[-1], height[s] + slope * (x[-1] - x[start[s]])])
            return corner_lists([*corners, final])
        start = torch.linspace(stop, (int(start[s]) + stop) // 2, STARTS).round().long()
        height = corners[-1][1] + slope * (x[start] - corners[-1][0])
    return None


def corner_lists(corners: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Abscissas and heights of the corners."""
    both = torch.stack(corners, dim=1)
    return both[0], both[1]


def enter(target: Smooth, x: Tensor, e: float) -> tuple[Tube, Tensor, Tensor]:
    """The tube, and where its first piece may start: indices and heights (none if a tail leaves the tube)."""
    f, nothing = target.f(x), torch.full_like(x, torch.nan)
    if target.tails is None:
        start = torch.zeros(STARTS, dtype=torch.long)
        return Tube(x, f, e, nothing), start, f[0] + e * torch.linspace(-1, 1, STARTS, dtype=x.dtype)
    (left, base), (right, top) = target.tails
    on_left = ((left * x + base - f).abs() <= e).long().cumprod(0)
    on_right = ((right * x + top - f).abs() <= e).long().flip(0).cumprod(0).flip(0)
    count = int(on_left.sum()) if on_right[-1] else 0
    start = torch.linspace(count - 1, 0, STARTS).round().long()[: STARTS * bool(count)]
    return Tube(x, f, e, torch.where(on_right > 0, right * x + top, nothing)), start, left * x[start] + base


def meeting(target: Smooth, tube: Tube, start: Tensor) -> tuple[Tensor, Tensor] | None:
    """The point where the two tails themselves cross, if both stay in the tube up to it."""
    if target.tails is None or not len(start) or target.tails[0][0] == target.tails[1][0]:
        return None
    (left, base), (right, top) = target.tails
    x = tube.x.new_tensor([(top - base) / (left - right)])
    landed = tube.x[tube.landing.isfinite()][0]
    return (x, left * x + base) if landed <= x <= tube.x[start.max()] else None


def reach(tube: Tube, start: Tensor, height: Tensor) -> tuple[slice, Tensor, Tensor]:
    """Slopes [low, high] with which a line from each start stays in the tube up to each sample of a window.

    low rises and high falls along the window, so a line can go on exactly while low <= high.
    """
    begin, size = int(start.min()), int(start.max() - start.min()) + 2 * SAMPLES_PER_PIECE
    while True:
        window = slice(begin, min(begin + size, len(tube.x)))
        run = tube.x[window] - tube.x[start][:, None]
        rise, ahead = tube.f[window] - height[:, None], run > 0
        low = torch.where(ahead, (rise - tube.e) / run, -torch.inf).cummax(1).values
        high = torch.where(ahead, (rise + tube.e) / run, torch.inf).cummin(1).values
        if window.stop == len(tube.x) or not (low[:, -1] <= high[:, -1]).any():
            return window, low, high
        size *= 2


def land(tube: Tube, window: slice, start: Tensor, height: Tensor, low: Tensor, high: Tensor) -> tuple[int, int] | None:
    """A start and a sample on the right tail that one straight line in the tube joins, if there are any."""
    slope = (tube.landing[window] - height[:, None]) / (tube.x[window] - tube.x[start][:, None])
    possible = ((low <= slope) & (slope <= high) & (tube.x[window] > tube.x[start][:, None])).nonzero()
    return (int(possible[0, 0]), int(possible[0, 1]) + window.start) if len(possible) else None
