"""Distances to the nearest wall for batches and big networks: the whole matrix of a region is never held."""

from sys import maxsize
from typing import NamedTuple

import torch
from torch import Tensor

from maxaffine import arguments
from maxaffine.errors import MemoryBudgetError
from maxaffine.polytope import dual_exponent
from maxaffine.program.local import cached_rows
from maxaffine.program.walls import nearest, wall_norms
from maxaffine.spline import Spline, in_double, walls_of


class Margin(NamedTuple):
    """Distance of N inputs to their nearest walls (N,) float64; each wall's operator and flat unit ("", -1: none)."""

    values: Tensor
    operators: list[str]
    units: Tensor


def margin(spline: Spline, x: Tensor, norm: float = 2, memory: int | None = None) -> Margin:
    """Distance from each input to the nearest wall of its region, in float64.

        margin(x) = min_k w_k(x) / |grad w_k|_dual      over the walls w_k >= 0 of all spline operators

    Inside the open ball of that radius the network is one affine map. A wall whose gradient is rounding alone (of
    a dead unit, of a difference of equal functions) counts as constant: one that a computation with other roundings
    changes by more than 1 %. However small a gradient is beside others, its wall counts.

    x: (N, *in). norm: 1, 2, inf or any p >= 1. memory: bytes that the accumulated norms of one chunk may take.
    Raises NotPiecewiseAffineError, InputError (wrong points; gradients whose powers leave float64),
    MemoryBudgetError. Source: Lee et al. 2019, arXiv 1907.03207.

    >>> import torch, maxaffine as ma
    >>> spline = ma.Spline(torch.nn.ReLU(), torch.zeros(1, 2))
    >>> found = ma.margin(spline, torch.tensor([[3.0, -4.0]]))
    >>> found.values.item(), found.operators, found.units.tolist()
    (3.0, ['relu'], [0])
    """
    dual, budget = dual_exponent(norm), arguments.budget(memory, maxsize)
    arguments.require(spline, Spline, "spline", "maxaffine.Spline(model, example)")
    points = in_double(spline, x)
    double = spline if spline.dtype == torch.float64 else spline.to(torch.float64)
    local = walls_of(double, points)
    walls = sum(o.units * (o.pieces if "max" in o.op or "min" in o.op else 2) for o in spline.operators) * 16
    if walls > budget:
        raise MemoryBudgetError(
            f"the walls of one input take {arguments.sized(walls)}, the budget is {arguments.sized(budget)}"
        )
    rows: list[tuple[float, str, int]] = []
    copies = max(1, min(points[0].numel(), cached_rows(local.device) // local.row_bytes))
    for chunk in local.chunks(copies, cached_rows(local.device) // 2):
        rows += nearest(wall_norms(local, chunk, points[chunk], dual), chunk.stop - chunk.start)
    values = torch.tensor([r[0] for r in rows], dtype=torch.float64, device="cpu")
    return Margin(values, [r[1] for r in rows], torch.tensor([r[2] for r in rows], dtype=torch.long, device="cpu"))
