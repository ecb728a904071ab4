"""Continuous splines that are close to a function in the sup norm, with a bound of the error."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from maxaffine.approximation.smooth import Function, Line, Smooth, bends, derivative, resolve, samples
from maxaffine.approximation.tube import march
from maxaffine.errors import InputError

CELLS_PER_SAMPLE = 8  # of the grid on which the error is bounded


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
    e ~ (integral of sqrt |f''|)^2 / (16 n^2). With tails, the lines that f approaches, g ends in them and
    `error` holds on the whole line, else on the interval. It is a bound, computed by `sup_error`.

    Args:
        f: elementwise, differentiable by torch (f' may jump), or a name in `SMOOTH` (its interval is known).
        interval: where f bends; beyond it f minus its tail must shrink monotonically.
        pieces: the most pieces allowed, tails included.
        error: the sup error that must not be exceeded.
        tails: left and right line, each (slope, offset).

    Raises:
        InputError: an unknown name, not exactly one of pieces and error, f with a pole or a jump, tails that f does not
            approach, or too few pieces to join them.

    >>> g = approximate("tanh", error=0.01)
    >>> g.pieces, bool((g(x := torch.linspace(-9, 9, 999)) - torch.tanh(x)).abs().max() <= g.error <= 0.01)
    (9, True)

    Source: Imai and Iri, An optimal algorithm for approximating a piecewise linear function, 1986.
    """
    target = resolve(f, interval, tails)
    given = [value for value in (pieces, error) if value is not None]
    if len(given) != 1 or not given[0] > 0:
        raise InputError(f"approximate: pieces={pieces}, error={error}: give exactly one of them, positive")
    bend = float(bends(target)[1].sum())
    if pieces is not None:
        x = samples(target, max(pieces, 16))
        return least_error(target, x, pieces, max(bend, 1e-9) ** 2 / (16 * pieces**2))
    assert error is not None
    x = samples(target, 16 + math.ceil(bend / (4 * math.sqrt(error))))
    for slack in (0.998, 0.99, 0.95, 0.8):
        path = march(target, x, slack * error, len(x))
        if path is not None and (found := spline(target, x, *path)).error <= error:
            return found
    where = f"on the interval {target.interval}"
    raise InputError(f"approximate: error={error:g} cannot be reached {where}: widen the interval or the error")


def least_error(target: Smooth, x: Tensor, pieces: int, guess: float) -> Approximation:
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


def spline(target: Smooth, x: Tensor, corners: Tensor, heights: Tensor) -> Approximation:
    """The path as knots, slopes and offsets, with its error."""
    slopes = heights.diff() / corners.diff()
    offsets = heights[:-1] - slopes * corners[:-1]
    knots, interval = corners[1:-1], target.interval
    if target.tails is not None:
        ends = torch.tensor(target.tails, dtype=x.dtype)
        knots, interval = corners, (-math.inf, math.inf)
        slopes, offsets = (torch.cat([ends[:1, i], inner, ends[1:, i]]) for i, inner in enumerate((slopes, offsets)))
    g = Approximation(knots, slopes, offsets, math.nan, interval)
    return replace(g, error=sup_error(target.f, g, x))


def sup_error(f: Function, g: Approximation, x: Tensor) -> float:
    """A bound of |f - g| between the first and last of the samples x.

    The samples are refined and joined with the knots of g, so g is affine on each cell. Where f' is monotone
    on a cell of width h, f stays within h |change of f'| / 4 of its chord (the triangle of its two tangents),
    hence |f - g| <= max at the two ends + h |change of f'| / 4. Each cell takes the largest change of itself
    and its two neighbours, for the sake of cells with an inflection inside.
    """
    share = torch.arange(CELLS_PER_SAMPLE, dtype=x.dtype) / CELLS_PER_SAMPLE
    fine = torch.cat([(x[:-1, None] + share * x.diff()[:, None]).flatten(), x[-1:], g.knots])
    fine = fine[(fine >= x[0]) & (fine <= x[-1])].unique()
    gap, change = (f(fine) - g(fine)).abs(), derivative(f, fine).diff().abs()
    change = F.max_pool1d(change[None], 3, stride=1, padding=1)[0]
    bound = torch.maximum(gap[1:], gap[:-1]) + fine.diff() * change / 4
    rounding = 8 * torch.finfo(x.dtype).eps * (1 + float(f(fine).abs().max()))
    return float(bound.max()) + rounding
