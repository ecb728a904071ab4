"""Approximation of smooth functions by splines with a stated sup error: tangents, and paths in a tube."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from maxaffine.errors import InputError
from maxaffine.operators.maso import MASO

Function = Callable[[Tensor], Tensor]
Line = tuple[float, float]
"""Slope and offset."""

SAMPLES_PER_PIECE, STARTS, CELLS_PER_SAMPLE = 128, 24, 8


def tangents(f: Function, points: Tensor) -> MASO:
    """The tangents of a convex f: R^D -> R at R points t_r as a MAS: max_r f(t_r) + <f'(t_r), x - t_r>.

    It lies below f and touches it at the points. With equally spaced points the sup error is O(1 / R^2): on x^2 and
    an interval of length L, whose R points are the middles of R equal parts, it is L^2 / (4 R^2).

    Args:
        f: (N, D) -> (N,), differentiable.
        points: (R, D) or (R,) for D = 1.

    Raises:
        InputError: a tangent lies above f at another of the points: f is not convex.

    >>> tangents(lambda x: (x**2).sum(1), torch.tensor([-1.0, 1.0])).A.flatten().tolist()
    [-2.0, 2.0]

    Source: Magnani and Boyd, Convex piecewise-linear fitting, 2009.
    """
    points = (points[:, None] if points.dim() == 1 else points).detach().clone().requires_grad_()
    value = f(points)
    (slope,) = torch.autograd.grad(value.sum(), points)
    value, points = value.detach(), points.detach()
    maso = MASO(slope[None], (value - (slope * points).sum(1))[None])
    above = maso.candidates(points)[:, 0] - value[:, None]
    scale = 1 + value.abs().max() + maso.B.abs().max()
    if above.max() > 100 * torch.finfo(value.dtype).eps * scale:
        at, of = divmod(int(above.argmax()), len(points))
        where = f"the tangent at {points[of].tolist()} lies above f at {points[at].tolist()}"
        raise InputError(f"tangents: {where}: f is not convex, use approximate(...) instead")
    return maso


@dataclass(frozen=True, eq=False)
class Approximation:
    """A continuous piecewise-affine g(x) = slopes[r] x + offsets[r], r = #{knots < x}, with |f - g| <= error.

    knots (R - 1,), slopes (R,) and offsets (R,) are float64. The error holds on `interval`, the
    whole line when f was given with its tails.
    """

    knots: Tensor
    slopes: Tensor
    offsets: Tensor
    error: float
    interval: tuple[float, float]

    @property
    def pieces(self) -> int:
        """R."""
        return len(self.slopes)

    def __call__(self, x: Tensor) -> Tensor:
        """Values of the spline, shaped like x."""
        r = torch.searchsorted(self.knots.to(x), x.contiguous())
        return self.slopes.to(x)[r] * x + self.offsets.to(x)[r]


@dataclass(frozen=True)
class Smooth:
    """A smooth activation: the interval where it bends, and the lines that it approaches on both sides of it.

    Beyond the interval f minus its tail must be monotone and go to 0.
    """

    f: Function
    interval: tuple[float, float]
    tails: tuple[Line, Line] | None


ZERO, ONE, IDENTITY = (0.0, 0.0), (0.0, 1.0), (1.0, 0.0)
SMOOTH = {
    "sigmoid": Smooth(torch.sigmoid, (-25, 25), (ZERO, ONE)),
    "tanh": Smooth(torch.tanh, (-14, 14), ((0.0, -1.0), ONE)),
    "gelu": Smooth(F.gelu, (-8, 8), (ZERO, IDENTITY)),
    "gelu_tanh": Smooth(lambda x: F.gelu(x, approximate="tanh"), (-8, 8), (ZERO, IDENTITY)),
    "silu": Smooth(F.silu, (-28, 28), (ZERO, IDENTITY)),
    "softplus": Smooth(F.softplus, (-25, 25), (ZERO, IDENTITY)),
    "logsigmoid": Smooth(F.logsigmoid, (-25, 25), (IDENTITY, ZERO)),
    "elu": Smooth(F.elu, (-25, 1), ((0.0, -1.0), IDENTITY)),
    "mish": Smooth(F.mish, (-28, 28), (ZERO, IDENTITY)),
    "erf": Smooth(torch.erf, (-6, 6), ((0.0, -1.0), ONE)),
}
"""Smooth activations by name, as torch computes them (its softplus is x itself above 20)."""


def approximate(
    f: Function | str,
    interval: tuple[float, float] | None = None,
    *,
    pieces: int | None = None,
    error: float | None = None,
    tails: tuple[Line, Line] | None = None,
) -> Approximation:
    """A continuous spline g near f in the sup norm: the smallest error for at most `pieces`, or the reverse.

    g stays in the tube f - e <= g <= f + e; each piece is drawn as far as the tube lets it, which needs the
    fewest pieces, and e is bisected. On a convex stretch g touches f + e and f - e in turn, and with n pieces
    e ~ (integral of sqrt |f''|)^2 / (16 n^2). With tails, the lines that f approaches, g ends in them and `error`
    holds on the whole line, else on the interval. The stated error is a bound, computed by `sup_error`.

    Args:
        f: elementwise, differentiable by torch (f' may jump); or a name in `SMOOTH`: interval and tails are known.
        interval: where f bends; beyond it f minus its tail must shrink monotonically.
        pieces: the most pieces allowed, tails included.
        error: the sup error that must not be exceeded.
        tails: left and right line, each (slope, offset).

    Raises:
        InputError: an unknown name, not exactly one of pieces and error, f not finite, tails that f does not
            approach, or too few pieces to join them.

    >>> g = approximate("tanh", error=0.01)
    >>> g.pieces, bool((g(x := torch.linspace(-9, 9, 999)) - torch.tanh(x)).abs().max() <= g.error <= 0.01)
    (9, True)

    Source: Imai and Iri, An optimal algorithm for approximating a piecewise linear function, 1986.
    """
    target = resolve(f, interval, tails)
    if (pieces is None) == (error is None) or (pieces or 1) < 1 or not (error or 1.0) > 0:
        raise InputError(f"approximate: pieces={pieces}, error={error}: give exactly one of them, positive")
    bend = float(bends(target)[1].sum())
    if pieces is not None:
        x = samples(target, max(pieces, 16))
        return fewest_error(target, x, pieces, max(bend, 1e-9) ** 2 / (16 * pieces**2))
    assert error is not None
    x = samples(target, 16 + math.ceil(bend / (4 * math.sqrt(error))))
    for slack in (0.998, 0.99, 0.95, 0.8):
        path = march(target, x, slack * error, len(x))
        if path is not None and (found := spline(target, x, *path)).error <= error:
            return found
    raise InputError(
        f"approximate: error={error:g} cannot be reached on {target.interval}: widen the interval or the error"
    )


def fewest_error(target: Smooth, x: Tensor, pieces: int, guess: float) -> Approximation:
    """Bisect the half-width of the tube for the smallest that `pieces` pieces can cross."""
    low, high, best = 0.0, guess, None
    while best is None:
        if high > 1e6 * (1 + float(target.f(x).abs().max())):
            raise InputError(f"approximate: {pieces} pieces cannot join the tails of f: give more pieces")
        best = march(target, x, high, pieces)
        low, high = (low, high) if best is not None else (high, 2 * high)
    while high - low > 1e-5 * high:
        middle = (low + high) / 2
        path = march(target, x, middle, pieces)
        low, high, best = (low, middle, path) if path is not None else (middle, high, best)
    return spline(target, x, *best)


def resolve(
    f: Function | str, interval: tuple[float, float] | None, tails: tuple[Line, Line] | None
) -> Smooth:
    """The function with its interval and tails, checked."""
    if isinstance(f, str):
        if f not in SMOOTH:
            raise InputError(f"approximate: {f!r} is unknown: give one of {', '.join(SMOOTH)}, or a function")
        target = SMOOTH[f] if interval is None else Smooth(SMOOTH[f].f, interval, tails)
    elif interval is None or not interval[0] < interval[1]:
        raise InputError(f"approximate: interval={interval}: give (low, high) with low < high")
    else:
        target = Smooth(f, interval, tails)
    ends = torch.tensor(target.interval, dtype=torch.float64)
    beyond = torch.exp2(torch.arange(-6, 20, dtype=torch.float64)) * (ends[1] - ends[0])
    for end, sign, tail in zip(ends, (-1, 1), target.tails or (), strict=False):
        x = torch.cat([end[None], end + sign * beyond])
        gap = (target.f(x) - (tail[0] * x + tail[1])).abs()
        if not (gap.diff() <= 1e-15 * (1 + x[1:].abs())).all():
            raise InputError(
                f"approximate: f does not approach its tail {tail} steadily beyond {end.item():g}"
            )
    return target


def derivative(f: Function, x: Tensor) -> Tensor:
    """f'(x) by autograd."""
    x = x.detach().clone().requires_grad_()
    (slope,) = torch.autograd.grad(f(x).sum(), x)
    if not slope.isfinite().all():
        raise InputError("approximate: f or its derivative is not finite on the interval: give a smaller one")
    return slope


def bends(target: Smooth) -> tuple[Tensor, Tensor]:
    """A first sampling x (P,) and sqrt(|f''|) dx of its cells (P - 1,): in proportion to it knots are needed."""
    x = torch.linspace(*target.interval, 20001, dtype=torch.float64)
    return x, (derivative(target.f, x).diff().abs() * x.diff()).sqrt()


def samples(target: Smooth, pieces: int) -> Tensor:
    """Abscissas of the tube: about SAMPLES_PER_PIECE in each of the pieces to come, a tenth of them evenly spread."""
    x, bend = bends(target)
    share = 0.9 * bend / bend.sum().clamp(min=1e-300) + 0.1 / len(bend)
    filled = torch.cat([share.new_zeros(1), share.cumsum(0)])
    even = np.linspace(0, float(filled[-1]), SAMPLES_PER_PIECE * pieces)
    found = torch.from_numpy(np.interp(even, filled.numpy(), x.numpy()))
    found[0], found[-1] = x[0], x[-1]
    return found


@dataclass(frozen=True, eq=False)
class Tube:
    """Samples x (M,) of f +- e; landing (M,): the right tail where it may be taken, NaN elsewhere."""

    x: Tensor
    f: Tensor
    e: float
    landing: Tensor


def march(target: Smooth, x: Tensor, e: float, limit: int) -> tuple[Tensor, Tensor] | None:
    """Corners (x, y) of a path of at most `limit` pieces through the tube f +- e, tails included, else None.

    Each piece starts anywhere on the one before it and ends as far as a straight line can stay in the tube. A path
    without tails has its two ends among the corners.
    """
    tube, start, height = enter(target, x, e)
    corners: list[Tensor] = []
    for _ in range(limit - (0 if target.tails is None else 2)):
        if not len(start):
            return None
        window, low, high = reach(tube, start, height)
        end = (low <= high).sum(1) - 1
        landed = land(tube, window, start, height, low, high)
        s = int(end.argmax()) if landed is None else landed[0]
        corners.append(torch.stack([x[start[s]], height[s]]))
        if landed is not None:
            return path([*corners, torch.stack([x[landed[1]], tube.landing[landed[1]]])])
        slope, stop = (low[s, end[s]] + high[s, end[s]]) / 2, int(end[s]) + window.start
        if target.tails is None and stop == len(x) - 1:
            final = torch.stack([x[-1], height[s] + slope * (x[-1] - x[start[s]])])
            return path([*corners, final])
        start = torch.linspace(stop, (int(start[s]) + stop) // 2, STARTS).round().long()
        height = corners[-1][1] + slope * (x[start] - corners[-1][0])
    return None


def path(corners: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Abscissas and heights of the corners."""
    both = torch.stack(corners, dim=1)
    return both[0], both[1]


def enter(target: Smooth, x: Tensor, e: float) -> tuple[Tube, Tensor, Tensor]:
    """The tube, and where its first piece may start: indices and heights (none: a tail is further than e from f)."""
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


def land(
    tube: Tube, window: slice, start: Tensor, height: Tensor, low: Tensor, high: Tensor
) -> tuple[int, int] | None:
    """A start and a sample on the right tail that one straight line in the tube joins, if there are any."""
    slope = (tube.landing[window] - height[:, None]) / (tube.x[window] - tube.x[start][:, None])
    possible = ((low <= slope) & (slope <= high) & (tube.x[window] > tube.x[start][:, None])).nonzero()
    return (int(possible[0, 0]), int(possible[0, 1]) + window.start) if len(possible) else None


def spline(target: Smooth, x: Tensor, corners: Tensor, heights: Tensor) -> Approximation:
    """The path as knots, slopes and offsets, with its error."""
    slopes = heights.diff() / corners.diff()
    offsets = heights[:-1] - slopes * corners[:-1]
    knots, interval = corners[1:-1], target.interval
    if target.tails is not None:
        ends = torch.tensor(target.tails, dtype=x.dtype)
        knots, interval = corners, (-math.inf, math.inf)
        slopes, offsets = (
            torch.cat([ends[:1, i], inner, ends[1:, i]]) for i, inner in enumerate((slopes, offsets))
        )
    g = Approximation(knots, slopes, offsets, math.nan, interval)
    return replace(g, error=sup_error(target.f, g, x))


def sup_error(f: Function, g: Approximation, x: Tensor) -> float:
    """A bound of |f - g| between the first and last of the samples x.

    The samples are refined and joined with the knots of g, so g is affine on each cell. Where f' is monotone on a cell
    of width h, f stays within h |change of f'| / 4 of its chord (the triangle of its two tangents), hence
    |f - g| <= max at the two ends + h |change of f'| / 4. A cell with an inflection inside takes the largest change of
    itself and its neighbours.
    """
    share = torch.arange(CELLS_PER_SAMPLE, dtype=x.dtype) / CELLS_PER_SAMPLE
    fine = torch.cat([(x[:-1, None] + share * x.diff()[:, None]).flatten(), x[-1:], g.knots])
    fine = fine[(fine >= x[0]) & (fine <= x[-1])].unique()
    gap, change = (f(fine) - g(fine)).abs(), derivative(f, fine).diff().abs()
    change = F.max_pool1d(change[None], 3, stride=1, padding=1)[0]
    bound = torch.maximum(gap[1:], gap[:-1]) + fine.diff() * change / 4
    rounding = 8 * torch.finfo(x.dtype).eps * (1 + float(f(fine).abs().max()))
    return float(bound.max()) + rounding
