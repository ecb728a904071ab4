"""Penalties that make templates orthogonal."""

from torch import Tensor

from maxaffine.errors import InputError


def orthogonality(W: Tensor) -> Tensor:
    """Sum over pairs of different rows of their squared inner products; a 0-dim tensor, differentiable in W.

        sum_{c1 != c2} <w_c1, w_c2>^2 = |W W^T|_F^2 - sum_c |w_c|^4,      gradient 4 offdiag(W W^T) W

    W: (C, D), the rows of a classifier's last layer, or (N, C, D) templates A[x], then the sum over N. Both orders of
    a pair count. Raises InputError for another shape. Source: Balestriero & Baraniuk 2018, arXiv 1805.06576, sec. 5.

    >>> import torch
    >>> orthogonality(torch.tensor([[1.0, 0.0], [1.0, 2.0]])).item()
    2.0
    """
    if W.dim() < 2:
        raise InputError(f"W has shape {tuple(W.shape)}; rows of vectors (C, D) or (N, C, D) are needed")
    gram = W @ W.mT
    return (gram - gram.diagonal(dim1=-2, dim2=-1).diag_embed()).square().sum()
