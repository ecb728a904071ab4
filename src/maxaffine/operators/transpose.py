"""Adjoints of the affine operators, in closed form where it pays; the rest by one local vector-Jacobian product.

A transpose takes the cotangent g of the output, the operator's arguments (live operands replaced by None), the shape of
one live operand and its position, and returns the cotangent of that operand (None: there is no closed form here).
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from maxaffine.types import Shape

Transpose = Callable[[Tensor, Sequence[Any], Shape, int], Tensor | None]
aten = torch.ops.aten


def identity(g: Tensor, args: Sequence[Any], shape: Shape, at: int) -> Tensor:  # noqa: ARG001
    """Y = x."""
    return g


def reshape(g: Tensor, args: Sequence[Any], shape: Shape, at: int) -> Tensor:  # noqa: ARG001
    """Y = x in another shape."""
    return g.reshape(shape)


def negative(g: Tensor, args: Sequence[Any], shape: Shape, at: int) -> Tensor:  # noqa: ARG001
    """Y = -x."""
    return -g


def permute(g: Tensor, args: Sequence[Any], shape: Shape, at: int) -> Tensor:  # noqa: ARG001
    """Y = x with its axes permuted."""
    order = [d % len(shape) for d in args[1]]
    return g.permute([order.index(i) for i in range(len(shape))])


def swap(g: Tensor, args: Sequence[Any], shape: Shape, at: int) -> Tensor:  # noqa: ARG001
    """Y = x with two axes exchanged."""
    return g.transpose(args[1], args[2])


def linear(g: Tensor, args: Sequence[Any], shape: Shape, at: int) -> Tensor:  # noqa: ARG001
    """Y = x W^T + b."""
    return g @ args[1]


def add(g: Tensor, args: Sequence[Any], shape: Shape, at: int) -> Tensor:  # noqa: ARG001
    """Y = a + b."""
    return unbroadcast(g, shape)


def subtract(g: Tensor, args: Sequence[Any], shape: Shape, at: int) -> Tensor:  # noqa: ARG001
    """Y = a - b."""
    return unbroadcast(-g if at else g, shape)


def overwrite(g: Tensor, args: Sequence[Any], shape: Shape, at: int) -> Tensor:  # noqa: ARG001
    """One tensor written over another."""
    return unbroadcast(g, shape) if at == 1 else g.new_zeros(()).expand(shape)


def times(g: Tensor, args: Sequence[Any], shape: Shape, at: int) -> Tensor:
    """Y = x c or c x with a constant c that broadcasts."""
    return unbroadcast(g * args[1 - at], shape)


def over(g: Tensor, args: Sequence[Any], shape: Shape, at: int) -> Tensor:  # noqa: ARG001
    """Y = x / c."""
    return unbroadcast(g / args[1], shape)


def right_product(g: Tensor, args: Sequence[Any], shape: Shape, at: int) -> Tensor | None:
    """Y = x C with a constant matrix C."""
    return g @ args[1].mT if at == 0 and args[1].dim() == 2 and len(shape) >= 2 else None


def batch_norm(g: Tensor, args: Sequence[Any], shape: Shape, at: int) -> Tensor:  # noqa: ARG001
    """Y = (x - mean) / sqrt(var + eps) * weight + bias at test time."""
    scale, _ = batch_norm_affine(args)
    return g * channelwise(scale, len(shape))


def batch_norm_affine(args: Sequence[Any]) -> tuple[Tensor, Tensor]:
    """Scale and shift of batch norm at test time: scale = weight / sqrt(var + eps), shift = bias - mean scale."""
    _, weight, bias, mean, var, _, eps = args
    scale = torch.rsqrt(var + eps)
    scale = scale if weight is None else scale * weight
    shift = -mean * scale
    return scale, shift if bias is None else shift + bias


def channelwise(values: Tensor, rank: int) -> Tensor:
    """(C,) shaped to broadcast along axis 1 of a tensor of that rank."""
    return values.reshape(-1, *[1] * (rank - 2))


def average_pool2d(g: Tensor, args: Sequence[Any], shape: Shape, at: int) -> Tensor:  # noqa: ARG001
    """Y = mean over each window."""
    kernel, stride, padding, ceil, count_padding, divisor = [
        *args[1:],
        *[[], 0, False, True, None][len(args) - 2 :],
    ]
    pair = [[v, v] if isinstance(v, int) else list(v) for v in (kernel, stride, padding)]
    return aten.avg_pool2d_backward(g, g.new_zeros(1).expand(shape), *pair, ceil, count_padding, divisor)


def adaptive_average_pool2d(g: Tensor, args: Sequence[Any], shape: Shape, at: int) -> Tensor:  # noqa: ARG001
    """Y = mean over each adaptive window; the global mean spreads evenly."""
    sizes = args[1]
    if list([sizes] * 2 if isinstance(sizes, int) else sizes) == [1, 1]:
        return (g / (shape[-1] * shape[-2])).expand(shape)
    return aten._adaptive_avg_pool2d_backward(g, g.new_empty(shape))


def total(g: Tensor, args: Sequence[Any], shape: Shape, at: int) -> Tensor:  # noqa: ARG001
    """Y = sum over dimensions."""
    dims, keepdim = _dims(args, shape)
    for d in [] if keepdim else sorted(dims):
        g = g.unsqueeze(d)
    return g.expand(shape)


def mean(g: Tensor, args: Sequence[Any], shape: Shape, at: int) -> Tensor:
    """Y = mean over dimensions."""
    dims, _ = _dims(args, shape)
    return total(g, args, shape, at) / prod(shape[d] for d in dims)


def constant_pad(g: Tensor, args: Sequence[Any], shape: Shape, at: int) -> Tensor | None:  # noqa: ARG001
    """Y = x inside a constant border: the border is cut off."""
    plain = len(args) < 3 or type(args[2]) is not str or args[2] == "constant"
    return aten.constant_pad_nd(g, [-p for p in args[1]]) if plain and min(args[1], default=0) >= 0 else None


def cut(g: Tensor, args: Sequence[Any], shape: Shape, at: int) -> Tensor:  # noqa: ARG001
    """Y = x[start:end:step] along one axis."""
    dim, start, end, step = [*args[1:], *[0, 0, shape[0], 1][len(args) - 1 :]]
    end = shape[dim] if end is None else end
    return aten.slice_backward(g, shape, dim, start or 0, end, step)


def _dims(args: Sequence[Any], shape: Shape) -> tuple[list[int], bool]:
    dims = args[1] if len(args) > 1 else None
    dims = [dims] if isinstance(dims, int) else list(dims or range(len(shape)))
    return [d % len(shape) for d in dims], bool(args[2]) if len(args) > 2 else False


def unbroadcast(g: Tensor, shape: Shape) -> Tensor:
    """Sum a cotangent back to the shape of an operand that was broadcast."""
    return g if g.shape == shape else g.sum_to_size(shape)


def by_vjp(function: Callable[..., Tensor], g: Tensor, operands: Sequence[Tensor]) -> list[Tensor]:
    """Adjoint of any operator that is linear in the operands, by differentiating that one operator."""
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        live = [x.requires_grad_() for x in operands]  # zeros without memory of their own may come in
        out = function(*live)
        found = torch.autograd.grad(out, live, g, create_graph=create_graph, allow_unused=True)
    return [torch.zeros_like(x) if d is None else d for d, x in zip(found, live, strict=True)]
