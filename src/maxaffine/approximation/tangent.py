"""Tangents: a convex function from below, as one max-affine spline."""

import torch
from torch import Tensor

from maxaffine.approximation.smooth import Function
from maxaffine.errors import InputError
from maxaffine.operators.maso import MASO


def tangents(f: Function, points: Tensor) -> MASO:
    """The tangents of a convex f: R^D -> R at R points t_r as a MAS: max_r f(t_r) + <f'(t_r), x - t_r>.

    It lies below f and touches it at the points. With equally spaced points the sup error is O(1 / R^2): on
    x^2 and an interval of length L, with the middles of R equal parts as points, it is L^2 / (4 R^2).

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
