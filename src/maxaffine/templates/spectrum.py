"""The spectral norm of A[x]: the Lipschitz constant of the network inside the region of x."""

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from maxaffine import arguments
from maxaffine.affine import AffineMap
from maxaffine.errors import InputError


@dataclass(frozen=True, eq=False)
class SpectralNorm:
    """|A|_2 of N maps: values (N,), and how they were found.

    method "gram": from the eigenvalues of the smaller of A A^T and A^T A, exact to rounding. method "power": power
    iteration, then values are bounds from below with residual (N,) = |A^T A v - s^2 v| / s^2 <= tolerance, after that
    many iterations.
    """

    values: Tensor
    method: str
    residual: Tensor | None = None
    iterations: int = 0


def spectral_norm(
    f: AffineMap,
    method: str | None = None,
    *,
    tolerance: float = 1e-3,
    iterations: int = 10_000,
    generator: torch.Generator | None = None,
) -> SpectralNorm:
    """The largest singular value of each A[x] (inputs and outputs flattened), with respect to Euclidean norms.

        max over u of |A u| / |u|  =  sqrt(max eigenvalue of A A^T)

    method: "gram" builds A, "power" uses only mv and vm; default: the first when A and its Gram matrix fit into
    f.memory. The square of what power iteration finds is within a share `residual` of the square of a singular value,
    and far closer, about the square of the residual over the relative gap, to the largest where that one stands apart.
    Raises InputError for another method and when power iteration does not reach the tolerance.
    Source of the iteration: von Mises & Pollaczek-Geiringer 1929, as in Miyato et al. 2018, arXiv 1802.05957.

    >>> import torch, maxaffine as ma
    >>> layer = torch.nn.Linear(3, 2)
    >>> f = ma.Spline(torch.nn.Sequential(layer), torch.zeros(1, 3)).at(torch.zeros(1, 3))
    >>> bool((spectral_norm(f).values - torch.linalg.matrix_norm(layer.weight, 2)).abs() < 1e-5)
    True
    """
    arguments.require(f, AffineMap, "f", "the affine maps spline.at(x)")
    if method not in (None, "gram", "power"):
        raise InputError(f'method={method!r}; give "gram", "power" or None')
    if not (arguments.is_number(tolerance) and tolerance >= 0):
        raise InputError(f"tolerance={arguments.told(tolerance)}; a residual >= 0, such as 1e-3, is needed")
    if generator is not None:
        arguments.require(generator, torch.Generator, "generator", "a torch.Generator or None")
    iterations = arguments.whole(iterations, "iterations")
    outs, ins = prod(f.out_shape), prod(f.in_shape)
    size = len(f) * (outs * ins + min(outs, ins) ** 2) * f.maps.dtype.itemsize
    if method == "gram" or (method is None and size <= f.memory):
        A = f.A.reshape(len(f), outs, ins)
        gram = A @ A.mT if outs <= ins else A.mT @ A
        return SpectralNorm(torch.linalg.eigvalsh(gram)[:, -1].clamp(min=0).sqrt(), "gram")
    return _power(f, tolerance, iterations, generator)


def _power(f: AffineMap, tolerance: float, iterations: int, generator: torch.Generator | None) -> SpectralNorm:
    shape = (len(f), *f.in_shape)
    v = _unit(torch.randn(shape, generator=generator, dtype=f.maps.dtype, device=f.maps.device))
    residual = v.new_full((1,), torch.inf)
    for k in range(1, iterations + 1):
        w = f.vm(f.mv(v))
        square = (v * w).flatten(1).sum(1)  # the Rayleigh quotient |A v|^2
        rest = (w - square.reshape(-1, *[1] * (w.dim() - 1)) * v).flatten(1).norm(dim=1)
        residual = torch.where(square > 0, rest / square, rest)  # of a zero map both are 0
        if bool((residual <= tolerance).all()):
            return SpectralNorm(square.sqrt(), "power", residual, k)
        v = _unit(w)
    raise InputError(
        f"power iteration left a residual of {float(residual.max()):.1e} after {iterations} iterations, the tolerance "
        f'is {tolerance:.1e}; give more iterations, a larger tolerance, or method="gram"'
    )


def _unit(v: Tensor) -> Tensor:
    lengths = v.flatten(1).norm(dim=1).reshape(-1, *[1] * (v.dim() - 1))
    return v / torch.where(lengths > 0, lengths, 1)
