"""A spline on a slice as a small network of ReLU units: only what can switch there is left.

With p = (1, s, t) and units in topological order,

    z_k = A_k p + sum over j < k of V_kj relu(z_j),        output_i = A_i p + sum over j of V_ij relu(z_j).
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ELEMENTWISE, PAIR, TOURNAMENT = 0, 1, 2
RESIDUE = 0.01  # of what it is the difference of: the least measure of rounding of what is left of it
EQUAL = 1e-13  # of that: differences below are rounding
SOUND = 1e-10  # bounds are widened by this share of the terms' magnitudes: far above what rounding can do


@dataclass(frozen=True)
class ReluNet:
    """The reduced network: units (A, V) by levels, outputs behind them, and what each unit means for the code.

    A: (U + O, 3) against (1, s, t). V: (U + O, U), strictly lower triangular by levels. levels: (L + 1,) first unit of
    each level. magnitude: (U,) sum of the absolute terms of z, the measure of its rounding. operator, unit: (U,) whose
    piece changes where z_k changes sign. kind: (U,) ELEMENTWISE, PAIR (a maximum of two tensors) or TOURNAMENT. left,
    right: (U,) for a unit of a tournament what meets there: a unit of the tournament (>= 0) or candidate r (-1 - r).
    last: (U,) the unit whose winner is the maximum (or the candidate that wins anyway), outside of tournaments the unit
    itself. roots: (T, 3) operator, unit and last unit of each open tournament. base: for every operator the piece of
    each of its units where all its reduced units are off.
    """

    A: Floats
    V: Floats
    levels: Ints
    magnitude: Floats
    operator: Ints
    unit: Ints
    left: Ints
    right: Ints
    last: Ints
    kind: Ints
    roots: Ints
    base: tuple[Ints, ...]

    @property
    def units(self) -> int:
        """U."""
        return self.V.shape[1]


@dataclass
class Enclosure:
    """Bounds of affine expressions in (p, relu(z_0), ...) over the domain: a zonotope through the units so far.

    corners: (C, 3) the domain's corners as (1, s, t). Each relu(z_k) is enclosed by lin_k p + gen_k e with e in
    [-1, 1]^m; a unit adds relu(z) = lambda z + mu / 2 (1 + e) with lambda = h / (h - l), mu = -l lambda on [l, h]
    (Singh et al., 2018, Fast and Effective Robustness Certification, NeurIPS).
    """

    corners: Tensor
    lin: Tensor = field(default_factory=lambda: torch.zeros(0, 3, dtype=torch.float64))
    gen: Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.float64))
    top: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))

    def enclose(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(3 + u, n) coefficients -> lin (3, n), gen (m, n), magnitude (n,)."""
        u = len(rows) - 3
        lin = rows[:3] + self.lin[:u].T @ rows[3:]
        gen = self.gen[:u].T @ rows[3:]
        return lin, gen, self.magnitude(rows)

    def magnitude(self, rows: Tensor) -> Tensor:
        """(n,) the sum of the largest absolute values of the terms of each of n expressions."""
        u, reach = len(rows) - 3, self.corners.abs().amax(0)
        return reach @ rows[:3].abs() + self.top[:u] @ rows[3:].abs()

    def bounds(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Sound (low, high) of each of n expressions over the domain."""
        lin, gen, magnitude = self.enclose(rows)
        values = self.corners @ lin
        spread = gen.abs().sum(0) + SOUND * magnitude
        return values.amin(0) - spread, values.amax(0) + spread

    def add(self, rows: Tensor) -> Tensor:
        """The relu of each of n expressions becomes a unit; returns their magnitudes."""
        lin, gen, magnitude = self.enclose(rows)
        values = self.corners @ lin
        spread = gen.abs().sum(0) + SOUND * magnitude
        low = (values.amin(0) - spread).clamp(max=-1e-300)
        high = (values.amax(0) + spread).clamp(min=1e-300)
        slope = high / (high - low)
        half = -low * slope / 2
        new_lin = (lin * slope).T
        new_lin[:, 0] += half
        (known, old), count = self.gen.shape, rows.shape[1]
        whole = torch.zeros(known + count, old + count, dtype=torch.float64)
        whole[:known, :old] = self.gen
        whole[known:, :old] = (gen * slope).T
        whole[known:, old:].diagonal().copy_(half)
        self.gen = whole
        self.lin, self.top = torch.cat([self.lin, new_lin]), torch.cat([self.top, high])
        return magnitude


class Units:
    """The units found so far: their rows, what they mean for the code, and the bounds that they obey."""

    def __init__(self, corners: Tensor) -> None:
        self.enclosure = Enclosure(corners)
        self.rows: list[Tensor] = []
        self.levels = [0]
        self.magnitude: list[Tensor] = []
        self.meaning: list[Tensor] = []
        self.last: list[Tensor] = []
        self.kind: list[Tensor] = []
        self.roots: list[Tensor] = []
        self.base: list[Tensor] = []

    @property
    def count(self) -> int:
        """u, the units so far."""
        return self.levels[-1]

    def difference(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Rows b - a, nothing where they are equal up to rounding in the whole domain, and what rounding depends on.

        Where almost all of both cancels, what is left knows nothing of its own rounding.
        """
        rows, terms = b - a, self.enclosure.magnitude(a) + self.enclosure.magnitude(b)
        low, high = self.enclosure.bounds(rows)
        return torch.where(torch.maximum(-low, high) <= EQUAL * terms, 0.0, rows), RESIDUE * terms

    def add(
        self,
        rows: Tensor,
        operator: int,
        unit: Tensor,
        sides: tuple[Tensor, Tensor] | None = None,
        kind: int = ELEMENTWISE,
        floor: float | Tensor = 0.0,
    ) -> Tensor:
        """A level of n units with pre-activations rows (3 + u, n) and magnitudes of at least floor; their numbers."""
        n = rows.shape[1]
        if n == 0:
            return torch.arange(0)
        self.magnitude.append(self.enclosure.add(rows).clamp(min=torch.as_tensor(floor)))
        self.rows.append(rows)
        left, right = sides if sides is not None else (torch.full_like(unit, -1), torch.full_like(unit, -2))
        self.meaning.append(torch.stack([torch.full_like(unit, operator), unit, left, right]))
        self.levels.append(self.count + n)
        numbers = torch.arange(self.count - n, self.count)
        self.last.append(numbers)
        self.kind.append(torch.full((n,), kind))
        return numbers
