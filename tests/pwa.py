"""Complete partitions of two networks found by another program: cells A x <= b with the map C x + d."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from assets import asset
from torch import Tensor


@dataclass(frozen=True)
class Cell:
    """A polygon {x : A x <= b} and the affine map x -> C x + d on it, all float64."""

    A: Tensor
    b: Tensor
    C: Tensor
    d: Tensor

    def contains(self, x: Tensor) -> Tensor:
        """Which of the points x (N, 2) lie in the polygon (N,)."""
        return (x @ self.A.T <= self.b).all(1)


def reference(name: str) -> list[Cell]:
    """The cells listed for "pendulum" or "quadratic"."""
    from scipy.io import loadmat

    mat = loadmat(asset(f"nets/pwa_reference/{name}_pwa.mat"))

    def column(key: str, i: int) -> Tensor:
        return torch.from_numpy(np.asarray(mat[key][i, 0], np.float64))

    def cell(i: int) -> Cell:
        return Cell(column("A", i), column("b", i).ravel(), column("C", i), column("d", i).ravel())

    return [cell(i) for i in range(len(mat["A"]))]
