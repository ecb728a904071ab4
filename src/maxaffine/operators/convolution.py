"""Adjoints of convolutions. On the CPU in float32 two forms beat the library's own backward pass (see benchmarks/).

Stride 1: the adjoint of a correlation with w is the correlation with w flipped and its channels exchanged, run with
channels last. Few input channels, to whose number a direct convolution would have to pad a whole vector: their kernel
rows serve as channels of a correlation with one row, and the rows are added in their places; with fewer kernel rows
than a vector holds, a product with w and overlap-add (fold).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from maxaffine.operators.transpose import Transpose
from maxaffine.types import Shape

LAST = torch.channels_last
FEW = 8  # input channels are few where the output has at least this many for each of them
VECTOR = 8  # float32 numbers that are worth a vector


def convolution(dims: int, transposed: bool) -> Transpose:
    """The adjoint of a convolution y = w * x + b, forward or transposed."""

    def transpose(g: Tensor, args: Sequence[Any], shape: Shape, at: int) -> Tensor:  # noqa: ARG001
        weight, stride, padding, dilation, out_padding, groups = geometry(args, dims, transposed)
        fast = dims == 2 and not transposed and groups == 1 and g.dtype == torch.float32 and g.device.type == "cpu"
        few = fast and weight.shape[1] * FEW <= weight.shape[0]
        across = dilation[-1] * (weight.shape[-1] - 1) - padding[-1]
        if few and stride == [1, 1] and weight.shape[1] * weight.shape[2] >= VECTOR and across >= 0:
            return _by_rows(g, weight, shape[2], padding[0], across, dilation)
        if few:
            columns = weight.flatten(1).mT @ g.flatten(2)
            return F.fold(columns, shape[-2:], weight.shape[2:], dilation, padding, stride)
        if fast and stride == [1, 1]:
            inner = [d * (k - 1) - p for d, k, p in zip(dilation, weight.shape[2:], padding, strict=True)]
            if min(inner) >= 0:
                flipped = weight.flip(2, 3).transpose(0, 1).contiguous(memory_format=LAST)
                return F.conv2d(g.contiguous(memory_format=LAST), flipped, None, 1, inner, dilation)
        return torch.ops.aten.convolution_backward(
            g.contiguous(),
            g.new_empty(shape),
            weight,
            None,
            stride,
            padding,
            dilation,
            transposed,
            out_padding,
            groups,
            [True, False, False],
        )[0]

    return transpose


def _by_rows(g: Tensor, weight: Tensor, height: int, above: int, across: int, dilation: Sequence[int]) -> Tensor:
    """The adjoint of a convolution of stride 1 with k kernel rows: z[h] = sum_i (g * w_i flipped)[h + above - d i]."""
    outputs, inputs, k, width = weight.shape
    rows = weight.permute(2, 1, 0, 3).flip(3).reshape(k * inputs, outputs, 1, width).contiguous(memory_format=LAST)
    found = F.conv2d(g.contiguous(memory_format=LAST), rows, None, 1, (0, across), (1, dilation[1]))
    parts = found.permute(0, 2, 3, 1).unflatten(3, (k, inputs))
    count, h, w = parts.shape[:3]
    z = parts.new_zeros(count, max(h + dilation[0] * (k - 1), above + height), w, inputs)
    for i in range(k):
        z[:, dilation[0] * i : dilation[0] * i + h] += parts[:, :, :, i]
    return z[:, above : above + height].permute(0, 3, 1, 2)


def geometry(args: Sequence[Any], dims: int, transposed: bool) -> tuple[Tensor, Any, Any, Any, Any, int]:
    """(weight, stride, padding, dilation, output padding, groups) from the arguments of aten.conv*."""
    defaults: list[Any] = [None, None, None, 1, 0, *([0, 1, 1] if transposed else [1, 1])]
    full = [*args, *defaults[len(args) :]]
    out_padding, groups, dilation = full[5:8] if transposed else (0, full[6], full[5])
    lists = [_spread(v, dims) for v in (full[3], full[4], dilation, out_padding)]
    return full[1], *lists, groups  # type: ignore[return-value]


def _spread(value: Sequence[int] | int, dims: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * dims if len(values) == 1 else values
