"""The region of one signal: a convex polytope {z : G z <= h}, one row for every wall of every spline operator."""

from dataclasses import dataclass
from math import inf, prod
from numbers import Real

import torch
from torch import Tensor

from maxaffine import arguments
from maxaffine.errors import InputError
from maxaffine.types import Shape

ROUNDING = 1e-12


def dual_exponent(norm: float) -> float:
    """Q with 1/p + 1/q = 1. Raises InputError for what is no p >= 1."""
    if not isinstance(norm, Real) or isinstance(norm, bool) or not norm >= 1:
        raise InputError(f"norm is {arguments.told(norm)}; give 1, 2, inf or any p >= 1")
    if norm == 1:
        return inf
    return 1.0 if norm == inf else float(norm) / (float(norm) - 1)


@dataclass(frozen=True)
class Region:
    """{z : G @ z.flatten() <= h}, float64, around the point it was asked for.

    G: (m, D), h: (m,). slack: (m,) h - G x0 as evaluated by the operators themselves, >= 0; owners: for every wall its
    operator's name and flat unit. Walls whose affine function is constant on the region are left out.
    Source: Balestriero & Baraniuk 2018, arXiv 1805.06576, section 6.

    >>> import torch, maxaffine as ma
    >>> spline = ma.Spline(torch.nn.ReLU(), torch.zeros(1, 2, dtype=torch.float64))
    >>> region = spline.region(torch.tensor([3.0, -4.0], dtype=torch.float64))
    >>> (region.G + 0).tolist(), region.margin().item(), region.margin(norm=1).item()
    ([[-1.0, 0.0], [0.0, 1.0]], 3.0, 3.0)
    """

    point: Tensor
    G: Tensor
    h: Tensor
    slack: Tensor
    owners: tuple[tuple[str, int], ...]

    def contains(self, z: Tensor) -> Tensor:
        """Whether z (*in) or each of (N, *in) lies in the closed region, to a rounding of 1e-12 of the terms.

        Raises InputError when z does not have the shape of the point.
        """
        shape: Shape = tuple(self.point.shape)
        arguments.floats(z, "z", f"a tensor of inputs of shape {shape}")
        if tuple(z.shape[z.dim() - len(shape) :]) != shape or z.dim() > len(shape) + 1:
            raise InputError(f"z has shape {tuple(z.shape)}, the region is of inputs of shape {shape}")
        flat = z.double().reshape(*z.shape[: z.dim() - len(shape)], prod(shape))
        terms = flat.abs() @ self.G.abs().T + self.h.abs()
        return (flat @ self.G.T - self.h <= ROUNDING * terms).all(-1)

    def margin(self, norm: float = 2) -> Tensor:
        """Distance from the point to the nearest wall, 0-dim float64: min_i slack_i / |G_i|_dual; inf without walls.

        Inside the open ball of this radius the network is one affine map. Source: Lee et al. 2019, arXiv 1907.03207.
        """
        if len(self.slack) == 0:
            return self.slack.new_tensor(inf)
        largest = self.G.abs().amax(1)
        directions = self.G / largest[:, None]  # whose powers stay in float64
        return (self.slack / largest / torch.linalg.vector_norm(directions, dual_exponent(norm), dim=1)).min()
