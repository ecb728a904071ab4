"""Penalties on a whole matrix, norms of the rows included: distance of the Gram matrix from the identity."""

import torch
from torch import Tensor

from maxaffine import arguments
from maxaffine.errors import InputError


def soft_orthogonality(W: Tensor) -> Tensor:
    """Squared distance of the smaller Gram matrix from the identity; a 0-dim tensor, differentiable.

        |W W^T - I_C|_F^2 for C <= D,  |W^T W - I_D|_F^2 for C > D

    Zero iff the rows (the columns, when there are more rows than columns) are orthonormal. The two sides differ by a
    constant, |W W^T - I_C|_F^2 = |W^T W - I_D|_F^2 + C - D, so they have the same gradient and the smaller is cheaper.
    W: (C, D). Raises InputError for another shape. Source: Bansal, Chen & Wang 2018, arXiv 1810.09102 ("SO").

    >>> import torch
    >>> soft_orthogonality(torch.eye(3, 5)).item(), soft_orthogonality(torch.zeros(3, 5)).item()
    (0.0, 3.0)
    """
    return _distance(W).square().sum()


def srip(W: Tensor, steps: int = 20) -> Tensor:
    """Spectral norm of the smaller Gram matrix minus the identity, by power iteration; a 0-dim tensor, differentiable.

        max_v |(G - I) v| / |v|,   G = W W^T for C <= D, else W^T W:   the largest |sigma^2 - 1| of W

    The iteration starts at the same vector each time, converges from below, and the gradient is the one of
    |(G - I) v| at the last v, exact once v has converged; two eigenvalues +l and -l do no harm. W: (C, D).
    Raises InputError for another shape or steps < 1.
    Source: Bansal, Chen & Wang 2018, arXiv 1810.09102 ("SRIP": restricted isometry of order one).

    >>> import torch
    >>> round(srip(torch.diag(torch.tensor([1.0, 2.0, 0.5]))).item(), 5)
    3.0
    """
    steps = arguments.whole(steps, "steps")
    distance = _distance(W)
    with torch.no_grad():
        start = torch.Generator().manual_seed(0)
        v = torch.randn(len(distance), generator=start, dtype=torch.float64).to(distance)
        v = v / v.norm()
        for _ in range(steps - 1):
            step = distance @ v
            v = step / step.norm().clamp_min(torch.finfo(step.dtype).tiny)
    return (distance @ v).norm()


def _distance(W: Tensor) -> Tensor:
    """G - I of the smaller Gram matrix."""
    W = arguments.values(W, "W", "a floating-point matrix (C, D)")
    if W.dim() != 2 or not W.is_floating_point() or 0 in W.shape:
        raise InputError(f"W is {arguments.told(W)}; a floating-point matrix (C, D) is needed")
    gram = W @ W.mT if W.shape[0] <= W.shape[1] else W.mT @ W
    return gram - torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
