"""ONNX matrix products, convolutions and normalisations, by the torch operator that says the same."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from maxaffine.errors import CaptureError

from .ops_window import pads_of

CONV: tuple[Callable[..., Tensor], ...] = (F.conv1d, F.conv2d, F.conv3d)
CONV_TRANSPOSE: tuple[Callable[..., Tensor], ...] = (
    F.conv_transpose1d,
    F.conv_transpose2d,
    F.conv_transpose3d,
)
Sizes = Sequence[int]


def gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Tensor:
    """Alpha op(A) op(B) + beta C."""
    a = a.mT if transA else a
    weight = b if transB else b.mT
    weight = weight if alpha == 1 else alpha * weight
    if c is None or beta == 0:
        return F.linear(a, weight)
    c = c if beta == 1 else beta * c
    # the last axis first: an earlier one may be the free batch
    if c.dim() and c.shape[-1] == weight.shape[0] and all(size == 1 for size in c.shape[:-1]):
        return F.linear(a, weight, c.flatten())
    return F.linear(a, weight) + c


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """A B with the rules of numpy."""
    return F.linear(a, b.mT) if b.dim() == 2 and a.dim() >= 2 else torch.matmul(a, b)


def einsum(*operands: Tensor, equation: str) -> Tensor:
    """Einstein's sum."""
    return torch.einsum(equation, *operands)


def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    auto_pad: str = "NOTSET",
    dilations: Sizes | None = None,
    group: int = 1,
    pads: Sizes | None = None,
    strides: Sizes | None = None,
) -> Tensor:
    """Convolution in one, two or three dimensions; unequal pads become a padding of zeros before it."""
    n = _spatial(x, weight)
    dilation, stride = list(dilations or [1] * n), list(strides or [1] * n)
    before, after = pads_of(x.shape[2:], list(weight.shape[2:]), stride, dilation, pads, auto_pad)
    if before != after:
        x = F.pad(x, [amount for i in reversed(range(n)) for amount in (before[i], after[i])])
        before = [0] * n
    return CONV[n - 1](x, weight, bias, stride, before, dilation, group)


def conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    auto_pad: str = "NOTSET",
    dilations: Sizes | None = None,
    group: int = 1,
    output_padding: Sizes | None = None,
    output_shape: Sizes | None = None,
    pads: Sizes | None = None,
    strides: Sizes | None = None,
) -> Tensor:
    """Transposed convolution: size (i - 1) s + (k - 1) d + 1 + output_padding, cropped by `pads`."""
    n = _spatial(x, weight)
    dilation, stride = list(dilations or [1] * n), list(strides or [1] * n)
    extra, crop = list(output_padding or [0] * n), list(pads or [0] * 2 * n)
    reach = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilation, strict=True)]
    if auto_pad.startswith("SAME") and output_shape is None:
        output_shape = [i * s for i, s in zip(x.shape[2:], stride, strict=True)]
    if output_shape is not None:
        whole = [(x.shape[2 + i] - 1) * stride[i] + reach[i] + extra[i] for i in range(n)]
        surplus = [w - o for w, o in zip(whole, list(output_shape)[-n:], strict=True)]
        extra = [e + max(0, -s) for e, s in zip(extra, surplus, strict=True)]
        small = [max(0, s) // 2 for s in surplus]
        large = [max(0, s) - h for s, h in zip(surplus, small, strict=True)]
        crop = small + large if auto_pad == "SAME_UPPER" else large + small
    even = [min(crop[i], crop[i + n]) for i in range(n)]
    y = CONV_TRANSPOSE[n - 1](x, weight, bias, stride, even, extra, group, dilation)
    for i in range(n):
        low, high = crop[i] - even[i], crop[i + n] - even[i]
        y = y.narrow(2 + i, low, y.shape[2 + i] - low - high) if low or high else y
    return y


def _spatial(x: Tensor, weight: Tensor) -> int:
    n = weight.dim() - 2
    if not 1 <= n <= 3 or x.dim() != n + 2:
        raise CaptureError(
            f"input {tuple(x.shape)} and weight {tuple(weight.shape)} are not a 1-d, 2-d or 3-d convolution"
        )
    return n


# ---- normalisations ----------------------------------------------------------------------------
def batch_norm(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    mean: Tensor,
    var: Tensor,
    epsilon: float = 1e-5,
    spatial: int = 1,
    training_mode: int = 0,
) -> Tensor:
    """(x - mean) / sqrt(var + epsilon) scale + bias, with the stored mean and variance."""
    if training_mode or not spatial:
        raise CaptureError(
            "batch statistics (training_mode=1 or spatial=0) are not supported: export the model in eval mode"
        )
    return F.batch_norm(x, mean, var, scale, bias, False, 0.0, epsilon)


def layer_norm(
    x: Tensor,
    scale: Tensor,
    bias: Tensor | None = None,
    axis: int = -1,
    epsilon: float = 1e-5,
) -> Tensor:
    """Zero mean and unit variance over all axes from `axis` on, then scale and bias."""
    sizes = list(x.shape[axis:])
    scale = scale if list(scale.shape) == sizes else scale.expand(sizes)
    bias = bias if bias is None or list(bias.shape) == sizes else bias.expand(sizes)
    return F.layer_norm(x, sizes, scale, bias, epsilon)


def instance_norm(x: Tensor, scale: Tensor, bias: Tensor, epsilon: float = 1e-5) -> Tensor:
    """Zero mean and unit variance over the pixels of each channel, then scale and bias."""
    return F.instance_norm(x, None, None, scale, bias, True, 0.0, epsilon)


def group_norm(x: Tensor, scale: Tensor, bias: Tensor, num_groups: int, epsilon: float = 1e-5) -> Tensor:
    """Zero mean, unit variance of each group of channels; scale, bias per channel or per group (opset 18)."""
    repeats = x.shape[1] // scale.numel()
    if repeats > 1:
        scale, bias = scale.repeat_interleave(repeats), bias.repeat_interleave(repeats)
    return F.group_norm(x, num_groups, scale, bias, epsilon)


def local_response_norm(x: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0) -> Tensor:
    """X / (bias + alpha / size * sum of squares of the neighbouring channels) ** beta."""
    return F.local_response_norm(x, size, alpha, beta, bias)
