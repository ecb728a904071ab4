"""Penalties on the rows of a matrix: the paper's formula, its normalisations, and what the authors' code computes."""

from collections.abc import Callable

import torch
from torch import Tensor

from maxaffine import arguments
from maxaffine.errors import InputError


def orthogonality(W: Tensor, kind: str = "sum") -> Tensor:
    """Energy of the inner products of different rows: 0-dim, differentiable in W, zero iff they are orthogonal.

        sum      sum_{c1 != c2} <w_c1, w_c2>^2 = |offdiag(W W^T)|_F^2,      gradient 4 offdiag(W W^T) W
        mean     sum / C^2
        cosine   mean of the rows divided by their norms (a zero row counts as orthogonal to all)
        authors  mean over the C^2 entries of (W W^T - diag(mean_d W^2))^2: what the paper's experiments ran. It takes
                 the mean instead of the sum off the diagonal, so that a penalty on the norms rides along:
                 authors(W) = mean(W) + norm_control(W), and it is zero only for W = 0 (or D = 1).

    W: (C, D), the rows of a classifier's last layer, or (N, C, D) templates A[x]: then the sum over N for "sum", the
    mean over N for the others. Both orders of a pair count. The filters of a convolution are W.flatten(1).
    Raises InputError for another shape or kind.
    Source: Balestriero & Baraniuk 2018, arXiv 1805.06576, sec. 5; "authors": github.com/RandallBalestriero/DNN.

    >>> import torch
    >>> W = torch.tensor([[1.0, 0.0], [1.0, 2.0]])
    >>> orthogonality(W).item(), orthogonality(W, "mean").item()
    (2.0, 0.5)
    """
    values = energies(W, kind)
    return values.sum() if kind == "sum" else values.mean()


def norm_control(W: Tensor) -> Tensor:
    """The penalty on the norms that hides in the authors' code, without any orthogonality.

        (1/C^2) sum_c ((1 - 1/D) |w_c|^2)^2

    W: (C, D), or (N, C, D) for the mean over N. Raises InputError for another shape.

    >>> import torch
    >>> W = torch.randn(3, 5, dtype=torch.float64)
    >>> bool((orthogonality(W, "authors") - orthogonality(W, "mean") - norm_control(W)).abs() < 1e-12)
    True
    """
    return energies(W, "norm_control").mean()


def energies(W: Tensor, kind: str) -> Tensor:
    """The penalty of each matrix: (C, D) -> 0-dim, (N, C, D) -> (N,). Raises InputError for another shape or kind."""
    give = "floating-point rows of vectors (C, D) or (N, C, D), of a convolution W.flatten(1)"
    W = arguments.values(W, "W", give)
    if W.dim() not in (2, 3) or not W.is_floating_point() or 0 in W.shape:
        raise InputError(f"W is {arguments.told(W)}; give {give}")
    check_kind(kind)
    return ENERGIES[kind](W)


def check_kind(kind: str) -> None:
    """Raise InputError unless there is a penalty of that name."""
    if not isinstance(kind, str) or kind not in ENERGIES:
        raise InputError(f"kind={kind!r} is unknown; choose one of {', '.join(ENERGIES)}")


def _sum(W: Tensor) -> Tensor:
    gram = W @ W.mT
    return (gram - gram.diagonal(dim1=-2, dim2=-1).diag_embed()).square().sum((-2, -1))


def _mean(W: Tensor) -> Tensor:
    return _sum(W) / W.shape[-2] ** 2


def _cosine(W: Tensor) -> Tensor:
    return _mean(torch.nn.functional.normalize(W, dim=-1))


def _authors(W: Tensor) -> Tensor:
    return (W @ W.mT - W.square().mean(-1).diag_embed()).square().mean((-2, -1))


def _norm_control(W: Tensor) -> Tensor:
    count, size = W.shape[-2:]
    return ((1 - 1 / size) * W.square().sum(-1)).square().sum(-1) / count**2


ENERGIES: dict[str, Callable[[Tensor], Tensor]] = {
    "sum": _sum,
    "mean": _mean,
    "cosine": _cosine,
    "authors": _authors,
    "norm_control": _norm_control,
}
"""Kind -> the penalty of each matrix of a stack: (..., C, D) -> (...)."""
