"""Compiled passes over the units of a line's pieces, for operators with one knot: what is near it, and both pieces."""

from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor

from maxaffine.geometry.kernels import INNER, compiled, entry
from maxaffine.operators.elementwise import Elementwise
from maxaffine.operators.registry import SplineOperator
from maxaffine.types import flat

pass_over: Any = compiled(INNER | {"fastmath": {"nnan", "nsz", "reassoc"}})


@dataclass(frozen=True)
class Near:
    """Units (row, unit) that cross their knot inside the row's interval or are tiny on it, in the order of both.

    value: the distance to the knot in the middle; slope: its change with tau, positive away from the knot; small: the
    tiny ones. scale (n,): the largest number of each row. zeros: how many others are exactly zero on their interval.
    """

    row: Tensor
    unit: Tensor
    value: Tensor
    slope: Tensor
    small: Tensor
    scale: Tensor
    zeros: int


def simple(operator: SplineOperator) -> TypeGuard[Elementwise]:
    """Whether the compiled passes are for it (on the CPU): one knot, numbers only."""
    if type(operator) is not Elementwise or len(operator.knots) != 1:
        return False
    return not any(isinstance(v, Tensor) for v in (*operator.knots, *operator.slopes, *operator.offsets))


def near_knot(operator: Elementwise, value: Tensor, slope: Tensor, half: Tensor, small: float) -> Near:
    """Look for the operator's knot on intervals with these values in the middle, slopes (n, ...) and half lengths (n,).

    A unit is tiny when distance and slope are below that share of its row's scale, and one of them is not zero.
    """
    z, dz = (np.ascontiguousarray(flat(t).numpy()) for t in (value, slope))
    scale, state = np.empty(len(z)), np.empty(z.shape, np.uint8)
    found, zeros = _near(z, dz, half.numpy(), float(operator.knots[0]), small, scale, state)
    index = np.empty((2, found), np.int64)
    _listed(state, index)
    row, unit = index
    at, along, state = z[row, unit] - float(operator.knots[0]), dz[row, unit], state[row, unit]
    away = torch.from_numpy(np.where(at > 0, along, -along))
    rows, units, value, tiny, most = map(torch.from_numpy, (row, unit, np.abs(at), state == 2, scale))
    return Near(rows, units, value, away, tiny, most, zeros)


def active(operator: Elementwise, code: Tensor, value: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    """The pieces of that code applied to values and slopes."""
    z, dz, bits = (np.ascontiguousarray(t.numpy()) for t in (value, slope, code))
    out, along = np.empty(z.shape), np.empty(z.shape)
    table = np.array([operator.slopes, operator.offsets], np.float64)
    _active(z.reshape(-1), dz.reshape(-1), bits.reshape(-1), table, out.reshape(-1), along.reshape(-1))
    return torch.from_numpy(out), torch.from_numpy(along)


@pass_over
def _largest(z, dz):
    top = 0.0
    for q in range(len(z)):
        top = max(top, abs(z[q]), abs(dz[q]))
    return top


@entry
def _near(z, dz, half, knot, small, scale, state):
    """Set state (n, units): 1 crosses, 2 tiny, 0 neither; count both, and those that are exactly zero."""
    found, zeros = 0, 0
    for r in range(len(z)):
        scale[r] = _largest(z[r], dz[r])
        bound, reach, line, along, kind = small * scale[r], half[r], z[r], dz[r], state[r]
        for q in range(len(line)):
            value, speed = abs(line[q] - knot), abs(along[q])
            tiny, nothing = value <= bound and speed <= bound, value == 0 and speed == 0
            kind[q] = 2 * (tiny and not nothing) + (not tiny and value < speed * reach)
            found += kind[q] > 0
            zeros += nothing
    return found, zeros


@entry
def _listed(state, index):
    """The places that are not zero."""
    k = 0
    for r in range(len(state)):
        kind = state[r]
        for q in range(len(kind)):
            if kind[q] > 0:
                index[0, k], index[1, k] = r, q
                k += 1


@entry
def _active(z, dz, code, table, out, along):
    for q in range(len(z)):
        slope = table[0, 1] if code[q] else table[0, 0]
        out[q] = z[q] * slope + (table[1, 1] if code[q] else table[1, 0])
        along[q] = dz[q] * slope
