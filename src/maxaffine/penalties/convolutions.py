"""Orthogonality of a convolution as the linear map that it is: its doubly block-Toeplitz matrix, never built."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from maxaffine import arguments
from maxaffine.errors import InputError

Sizes = int | Sequence[int]
CONVOLVE = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}


def convolutional_orthogonality(
    K: Tensor, stride: Sizes = 1, padding: Sizes | None = None, dilation: Sizes = 1
) -> Tensor:
    """How far the rows of a convolution's matrix are from orthonormal: the self-convolution against a delta.

        |conv(K, K; padding, stride) - delta|_F^2,   padding = floor((k - 1) / stride) stride along each axis

    The entry (o, o', q) of the self-convolution is the inner product of filter o at one position and filter o' at the
    position q steps further. For a convolution without padding, T its matrix (rows: filter and position), that is all:

        |T T^T - I|_F^2 = sum_q n(q) |conv(K, K)[:, :, q] - delta[q]|^2,   n(q) = pairs of positions q steps apart,

    so that the penalty is zero iff the rows of T are orthonormal, provided every overlapping pair fits into the image
    (floor((k - 1) / stride) + 1 positions along each axis; in a smaller one, zero is sufficient). With zero padding the
    rows whose window reaches over the border are cut, so the statement holds for the other rows; with circular padding
    it holds for all when the image has at least 2 k - 1 pixels a side. A matrix with more rows (C_out positions) than
    columns (C_in pixels) cannot have orthogonal rows: the penalty then stays above zero.

    Args:
        K: (C_out, C_in, *kernel) with one to three kernel axes.
        stride: that of the layer.
        padding: of the self-convolution, not of the layer; the default covers every overlap of two windows.
        dilation: that of the layer.

    Raises:
        InputError: K of another rank, or sizes that do not fit its axes.

    >>> import torch
    >>> K = torch.zeros(2, 2, 3, 3)
    >>> K[0, 0, 1, 1] = K[1, 1, 0, 2] = 1
    >>> convolutional_orthogonality(K).item()
    0.0

    Source: Wang, Chen, Chakraborty & Yu 2020, Orthogonal convolutional neural networks, arXiv 1911.12207.
    """
    give = "floating-point filters (C_out, C_in, *kernel) with one to three kernel axes"
    K = arguments.values(K, "K", give)
    if K.dim() not in CONVOLVE or not K.is_floating_point() or 0 in K.shape:
        raise InputError(f"K is {arguments.told(K)}; give {give}")
    axes = K.dim() - 2
    strides, steps = _sizes("stride", stride, axes), _sizes("dilation", dilation, axes)
    reach = [(k - 1) * d // s * s for k, d, s in zip(K.shape[2:], steps, strides, strict=True)]
    pads = reach if padding is None else _sizes("padding", padding, axes, least=0)
    if any(p % s for p, s in zip(pads, strides, strict=True)):
        raise InputError(
            f"padding={padding} is no multiple of stride={stride}: the filters would never meet themselves"
        )
    found = CONVOLVE[K.dim()](_spread(K, steps), K, None, strides, pads, steps)
    middle = tuple(p // s for p, s in zip(pads, strides, strict=True))
    delta = torch.zeros_like(found)
    delta[(..., *middle)] = torch.eye(len(K), dtype=K.dtype, device=K.device)
    return (found - delta).square().sum()


def _spread(K: Tensor, steps: Sequence[int]) -> Tensor:
    """The filters as they lie on the image: zeros between the taps of a dilated one."""
    if all(step == 1 for step in steps):
        return K
    wide = K.new_zeros((*K.shape[:2], *((k - 1) * d + 1 for k, d in zip(K.shape[2:], steps, strict=True))))
    wide[(..., *(slice(None, None, step) for step in steps))] = K
    return wide


def _sizes(name: str, value: Sizes, axes: int, least: int = 1) -> list[int]:
    sizes: list[int] = [value] * axes if isinstance(value, int) or not isinstance(value, Iterable) else list(value)
    if len(sizes) != axes or not all(type(s) is int and s >= least for s in sizes):
        raise InputError(f"{name}={value} does not fit a kernel of {axes} axes; give one number >= {least}, or {axes}")
    return sizes
