"""Operations that are taken apart before the graph is read: relu RNNs, and norms that are piecewise affine."""

from collections.abc import Callable
from math import inf
from typing import Any

import torch
from torch import Tensor


def decompositions() -> dict[Any, Callable[..., Any]]:
    """ATen operation -> the same in others; NotImplemented where it stays whole."""
    from torch._decomp.decompositions import rnn_relu_input  # loaded by torch.export anyway

    aten = torch.ops.aten
    return {
        aten.rnn_relu.input: rnn_relu_input,
        aten.rnn_relu_cell.default: _cell,
        aten.broadcast_tensors.default: _expanded,  # each output depends on its own operand alone
        aten.linalg_vector_norm.default: _norm,
        aten.cdist.default: _distances,
        aten.pairwise_distance.default: _distance,
        aten.l1_loss.default: _l1_loss,
    }


def _cell(x: Tensor, h: Tensor, w: Tensor, u: Tensor, b: Tensor | None = None, c: Tensor | None = None) -> Tensor:
    linear = torch.ops.aten.linear.default
    return torch.relu(linear(x, w, b) + linear(h, u, c))


def _expanded(tensors: list[Tensor]) -> list[Tensor]:
    shape = torch.broadcast_shapes(*[t.shape for t in tensors])
    return [t.expand(shape) for t in tensors]


def _norm(x: Tensor, order: float = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """|x|_1 = sum |x_i|, |x|_inf = max |x_i|, min |x_i| for -inf; any other is smooth."""
    if dtype is not None or order not in (1, inf, -inf):
        return NotImplemented
    axes, size = list(range(x.dim())) if dim is None else dim, x.abs()
    if order == 1:
        return size.sum(axes, keepdim)
    return size.amax(axes, keepdim) if order > 0 else size.amin(axes, keepdim)


def _distances(x: Tensor, y: Tensor, p: float = 2, mode: int | None = None) -> Any:  # noqa: ARG001
    return _norm(x.unsqueeze(-2) - y.unsqueeze(-3), p, -1) if p in (1, inf) else NotImplemented


def _distance(x: Tensor, y: Tensor, p: float = 2, eps: float = 1e-6, keepdim: bool = False) -> Any:
    return _norm(x - y + eps, p, -1, keepdim) if p in (1, inf) else NotImplemented


def _l1_loss(x: Tensor, y: Tensor, reduction: int = 1) -> Tensor:
    size = (x - y).abs()
    return size.mean() if reduction == 1 else size.sum() if reduction == 2 else size
