"""Adjoints of convolutions. On the CPU in float32 two forms beat the library's own backward pass (see benchmarks/).

Stride 1: the adjoint of a correlation with w is the correlation with w flipped and its channels exchanged, run with
channels last. Few input channels: a product with w followed by overlap-add (fold), since a direct convolution would
be padded to a whole vector of channels.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from maxaffine.operators.transpose import Transpose
from maxaffine.types import Shape

LAST = torch.channels_last
FEW = 8  # fold wins where the output has at least this many channels for each input channel


def convolution(dims: int, transposed: bool) -> Transpose:
    """The adjoint of a convolution y = w * x + b, forward or transposed."""

    def transpose(g: Tensor, args: Sequence[Any], shape: Shape, at: int) -> Tensor:  # noqa: ARG001
        weight, stride, padding, dilation, out_padding, groups = geometry(args, dims, transposed)
        fast = dims == 2 and not transposed and groups == 1 and g.dtype == torch.float32 and g.device.type == "cpu"
        if fast and weight.shape[1] * FEW <= weight.shape[0]:
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
