"""The affine map of each signal's region: A[x], b[x], as a matrix on demand or as an operator that is never built.

f(x') = A[x] x' + b[x]      for every x' in the region of x
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Protocol

import torch
from torch import Tensor

from maxaffine import arguments
from maxaffine.errors import InputError, MemoryBudgetError
from maxaffine.types import Shape

DEFAULT_MEMORY = 4 * 2**30


class LocalMaps(Protocol):
    """N affine maps: what a network frozen at N codes can do without building a matrix."""

    samples: int
    dtype: torch.dtype
    device: torch.device

    def value(self, x: Tensor) -> Tensor:
        """(N, *in) -> (N, *out): each map at its own point."""
        ...

    def tangent(self, v: Tensor) -> Tensor:
        """(N, *in) -> (N, *out): each linear part at its own direction."""
        ...

    def cotangent(self, u: Tensor) -> Tensor:
        """(N, *out) -> (N, *in): each adjoint at its own cotangent."""
        ...

    def rows(self, basis: Tensor) -> Tensor:
        """(K, *out) -> (N, K, *in): the same K cotangents for all maps."""
        ...

    def columns(self, basis: Tensor) -> Tensor:
        """(K, *in) -> (N, K, *out): the same K directions for all maps."""
        ...


@dataclass(frozen=True)
class AffineMap:
    """f(x') = A x' + b for N signals; A is built only when it is asked for.

    A: (N, *out, *in), b: (N, *out). Source: Balestriero & Baraniuk 2018, arXiv 1805.06576, section 2.

    >>> import torch, maxaffine as ma
    >>> net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2)).double()
    >>> x = torch.ones(1, 3, dtype=torch.float64)
    >>> f = ma.Spline(net, x).at(x)
    >>> f.A.shape, f.b.shape, bool((f(x) - net(x)).abs().max() < 1e-12)
    (torch.Size([1, 2, 3]), torch.Size([1, 2]), True)
    """

    maps: LocalMaps
    in_shape: Shape
    out_shape: Shape
    memory: int = DEFAULT_MEMORY

    def __len__(self) -> int:
        return self.maps.samples

    def __call__(self, x: Tensor) -> Tensor:
        """A x + b, row by row: (N, *in) -> (N, *out); one row is used for all maps."""
        return self.maps.value(self._rows(x, self.in_shape, "x"))

    @cached_property
    def A(self) -> Tensor:
        """(N, *out, *in): the matrices. Raises MemoryBudgetError when they would not fit."""
        outs, ins = prod(self.out_shape), prod(self.in_shape)
        self._afford(outs)
        if outs <= ins:
            basis = torch.eye(outs, dtype=self.maps.dtype, device=self.maps.device).reshape(outs, *self.out_shape)
            return self.maps.rows(basis).reshape(len(self), *self.out_shape, *self.in_shape)
        basis = torch.eye(ins, dtype=self.maps.dtype, device=self.maps.device).reshape(ins, *self.in_shape)
        columns = self.maps.columns(basis).flatten(2)
        return columns.mT.reshape(len(self), *self.out_shape, *self.in_shape)

    @cached_property
    def b(self) -> Tensor:
        """(N, *out): the maps at zero (the frozen network at 0, never f(x) - A x)."""
        return self.maps.value(torch.zeros(len(self), *self.in_shape, dtype=self.maps.dtype, device=self.maps.device))

    def mv(self, v: Tensor) -> Tensor:
        """A v for directions v (N, *in), without A: (N, *out)."""
        return self.maps.tangent(self._rows(v, self.in_shape, "v"))

    def vm(self, u: Tensor) -> Tensor:
        """A^T u for cotangents u (N, *out), without A: (N, *in)."""
        return self.maps.cotangent(self._rows(u, self.out_shape, "u"))

    def rows(self, classes: Sequence[int] | Tensor) -> Tensor:
        """Some rows of A: (N, K, *in) for K flat output indices. Raises InputError for an index that does not exist."""
        outs = prod(self.out_shape)
        chosen = arguments.indices(classes, "classes", outs)
        self._afford(len(chosen))
        basis = torch.zeros(len(chosen), outs, dtype=self.maps.dtype, device=self.maps.device)
        basis[torch.arange(len(chosen), device=chosen.device), chosen] = 1
        return self.maps.rows(basis.reshape(-1, *self.out_shape))

    def _rows(self, x: Tensor, shape: Shape, name: str) -> Tensor:
        arguments.rows(x, name, shape, self.maps.dtype, self.maps.device, "the map")
        if len(x) not in (1, len(self)):
            raise InputError(f"{name} has {len(x)} rows for {len(self)} maps; give {len(self)} rows, or one for all")
        return x.expand(len(self), *shape)

    def _afford(self, rows: int) -> None:
        size = len(self) * rows * prod(self.in_shape) * self.maps.dtype.itemsize
        if size > self.memory:
            raise MemoryBudgetError(
                f"A would take {arguments.sized(size)} ({len(self)} x {rows} x {prod(self.in_shape)}), the budget is "
                f"{arguments.sized(self.memory)}; use mv, vm or rows(classes), fewer inputs, or at(x, memory=bytes)"
            )
