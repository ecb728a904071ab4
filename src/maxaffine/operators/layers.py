"""The layers of a deep network as explicit MASOs: table 4 of Mad Max, one builder a row.

Everything acts on flattened inputs (N, D); `shape` arguments are without the batch: (channels, *grid).
Whole layers (linear + activation [+ pooling]) are put together by `maxaffine.operators.composition.layer`.
"""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from maxaffine.errors import InputError
from maxaffine.operators.maso import MASO, from_pieces
from maxaffine.operators.sliding import Sizes, sliding


def dense(weight: Tensor, bias: Tensor | None = None) -> MASO:
    """W x + b: R = 1, A[k, 0] = W[k], B[k, 0] = b[k].

    >>> dense(torch.tensor([[1.0, 2.0]]), torch.tensor([3.0]))(torch.ones(1, 2)).tolist()
    [[6.0]]
    """
    if weight.dim() != 2:
        raise InputError(f"dense: weight is {tuple(weight.shape)}: give (K, D)")
    bias = weight.new_zeros(len(weight)) if bias is None else bias
    return MASO(weight.detach()[:, None], bias.detach().reshape(-1, 1))


def identity(units: int, *, dtype: torch.dtype | None = None) -> MASO:
    """The skip connection x: R = 1, A = I; a convolutional skip is `dense(*conv_matrix(...))`."""
    return dense(torch.eye(units, dtype=dtype))


def conv_matrix(
    weight: Tensor,
    bias: Tensor | None,
    input_shape: Sequence[int],
    stride: Sizes = 1,
    padding: Sizes | str = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> tuple[Tensor, Tensor]:
    """Convolution (1, 2 or 3 grid axes) as C x + b on flattened tensors: C (C_out P, C_in S), b (C_out P,).

    The entries of C are copies of the weights, none is computed. input_shape is (C_in, *grid).

    Raises:
        InputError: weight, groups and input_shape that do not fit each other.

    >>> conv_matrix(torch.tensor([[[1.0, 2.0]]]), None, (1, 3))[0].tolist()
    [[1.0, 2.0, 0.0], [0.0, 1.0, 2.0]]
    """
    channels, *grid = input_shape
    outputs, group_in = weight.shape[:2]
    if weight.dim() != len(input_shape) + 1 or group_in * groups != channels or outputs % groups:
        given = f"weight {tuple(weight.shape)} with groups={groups} and input_shape={tuple(input_shape)}"
        raise InputError(f"conv_matrix: {given} do not fit: give (C_out, C_in / groups, *kernel) and (C_in, *grid)")
    seen = sliding(grid, weight.shape[2:], stride, padding, dilation).indices.to(weight.device)
    size, (places, taps) = prod(grid), seen.shape
    matrix = weight.new_zeros(outputs, places, channels, size + 1)  # the last column collects the padding
    target = seen.where(seen >= 0, size)[None, :, None].expand(outputs // groups, -1, group_in, -1)
    for g in range(groups):
        out, inp = (slice(g * n, (g + 1) * n) for n in (outputs // groups, group_in))
        taken = weight.detach()[out].reshape(-1, 1, group_in, taps).expand(-1, places, -1, -1)
        matrix[out, :, inp].scatter_(3, target, taken)
    bias = weight.new_zeros(outputs) if bias is None else bias.detach()
    return matrix[..., :size].reshape(outputs * places, -1), bias.repeat_interleave(places)


def average_pool(
    input_shape: Sequence[int],
    kernel: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    dtype: torch.dtype | None = None,
) -> MASO:
    """Average pooling, R = 1: A[k, 0] = (1 / #R_k) sum_{i in R_k} e_i, counted as torch does."""
    channels, *grid = input_shape
    seen = sliding(grid, kernel, kernel if stride is None else stride, padding, 1, ceil_mode)
    inside = seen.indices >= 0
    number = (seen.boxed if count_include_pad else inside).sum(1, keepdim=True)
    number = number if divisor_override is None else torch.full_like(number, divisor_override)
    places = torch.zeros(len(inside), prod(grid) + 1, dtype=dtype)  # the last column collects the padding
    places.scatter_(1, seen.indices.where(inside, prod(grid)), (1 / number.to(places.dtype)).expand(inside.shape))
    return dense(torch.kron(torch.eye(channels, dtype=dtype), places[:, :-1].contiguous()))


def batch_norm(norm: _BatchNorm, input_shape: Sequence[int]) -> MASO:
    """Batch norm at test time, R = 1: A = diag(gamma / sqrt(var + eps)), B = beta - A mean.

    Raises:
        InputError: the module is in train mode (then it depends on the batch) or has no running statistics.
    """
    if norm.training or norm.running_mean is None or norm.running_var is None:
        state = "is in train mode" if norm.training else "keeps no running statistics"
        raise InputError(
            f"batch_norm: {type(norm).__name__}({norm.num_features}) {state}: it is not affine; call .eval()"
        )
    if input_shape[0] != norm.num_features:
        raise InputError(f"batch_norm: input_shape={tuple(input_shape)} has not {norm.num_features} channels")
    scale = (norm.running_var + norm.eps).rsqrt() * (1 if norm.weight is None else norm.weight.detach())
    shift = (0 if norm.bias is None else norm.bias.detach()) - scale * norm.running_mean
    repeat = prod(input_shape[1:])
    return dense(torch.diag(scale.repeat_interleave(repeat)), shift.repeat_interleave(repeat))


def dropout(drop: _DropoutNd, units: int, *, dtype: torch.dtype | None = None) -> MASO:
    """Dropout at test time: the identity.

    Raises:
        InputError: the module is in train mode, where every call draws another mask.
    """
    if drop.training:
        raise InputError(f"dropout: {drop} is in train mode: its mask is random; call .eval()")
    return identity(units, dtype=dtype)


def activation(knots: Tensor, slopes: Tensor, offsets: Tensor, units: int) -> MASO:
    """A convex piecewise-affine activation max_r (slopes_r u + offsets_r): A[k, r] = slopes_r e_k.

    Pieces run from left to right, piece r + 1 starts at knot r. One row serves all units, or give (units, R).

    Raises:
        InputError: it is not continuous, or not convex: the slope falls at a knot, which is named.

    >>> bend = activation(torch.tensor([0.0]), torch.tensor([-1.0, 1.0]), torch.zeros(2), units=1)
    >>> bend(torch.tensor([[-3.0]])).item()
    3.0
    """
    rows = [t.detach().reshape(-1, t.shape[-1]).expand(units, -1) for t in (knots, slopes, offsets)]
    knots, slopes, offsets = rows
    if slopes.shape != offsets.shape or slopes.shape[1] != knots.shape[1] + 1:
        raise InputError(f"activation: {knots.shape[1]} knots need {knots.shape[1] + 1} slopes and as many offsets")
    jump = ((slopes[:, 1:] - slopes[:, :-1]) * knots + offsets[:, 1:] - offsets[:, :-1]).abs()
    if (jump > 1e-6 * (1 + slopes.abs().amax() * knots.abs() + offsets.abs().amax())).any():
        raise InputError("activation: the pieces do not meet at the knots: it is not continuous")
    if (falls := (slopes.diff(dim=1) < 0).nonzero()).numel():
        k, r = falls[0].tolist()
        raise InputError(f"activation: {concave_knot(knots[k], slopes[k], r)}")
    return MASO(slopes[:, :, None] * torch.eye(units).to(slopes)[:, None], offsets.contiguous())


def concave_knot(knots: Tensor, slopes: Tensor, r: int) -> str:
    """Why a scalar piecewise-affine function is no MASO: the knot where its slope falls."""
    before, after, knot = slopes[r].item(), slopes[r + 1].item(), knots[r].item()
    falls = f"the slope falls from {before:g} to {after:g} at the knot {knot:g}"
    return f"{falls}, a concave knot: not a maximum of affine functions but a difference of two"


def relu(units: int, *, dtype: torch.dtype | None = None) -> MASO:
    """max(u, 0): R = 2, A[k] = (0, e_k), B = 0."""
    return leaky_relu(units, 0.0, dtype=dtype)


def leaky_relu(units: int, slope: float | Tensor = 0.01, *, dtype: torch.dtype | None = None) -> MASO:
    """max(slope u, u): R = 2, A[k] = (slope e_k, e_k), B = 0; a tensor of slopes (units,) is a PReLU.

    Raises:
        InputError: a slope above 1 (then the function is min(slope u, u): concave at 0).
    """
    left = torch.as_tensor(slope, dtype=dtype or torch.get_default_dtype()).reshape(-1)
    slopes = torch.stack([left, torch.ones_like(left)], dim=1)
    return activation(left.new_zeros(1), slopes, torch.zeros_like(slopes), units)


def absolute(units: int, *, dtype: torch.dtype | None = None) -> MASO:
    """|u|: R = 2, A[k] = (-e_k, e_k), B = 0."""
    return leaky_relu(units, -1.0, dtype=dtype)


def maximum(index_sets: Sequence[Sequence[int]], D: int, *, dtype: torch.dtype | None = None) -> MASO:
    """max_{i in R_k} x_i for each index set R_k: A[k] = {e_i : i in R_k}, B = 0.

    >>> maximum([[0, 1], [2]], 3)(torch.tensor([[1.0, 4.0, 2.0]])).tolist()
    [[4.0, 2.0]]
    """
    basis = torch.eye(D, dtype=dtype)
    return from_pieces([(basis[list(chosen)], basis.new_zeros(len(chosen))) for chosen in index_sets])


def max_pool(
    input_shape: Sequence[int],
    kernel: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    *,
    dtype: torch.dtype | None = None,
) -> MASO:
    """Max pooling (1, 2 or 3 grid axes), R = max #R_k; padding is dropped, short windows repeat a row."""
    channels, *grid = input_shape
    seen = sliding(grid, kernel, kernel if stride is None else stride, padding, dilation, ceil_mode).indices
    inside = [[i for i in row if i >= 0] for row in seen.tolist()]
    size = prod(grid)
    return maximum(
        [[c * size + i for i in row] for c in range(channels) for row in inside], channels * size, dtype=dtype
    )


def channel_pool(input_shape: Sequence[int], size: int, *, dtype: torch.dtype | None = None) -> MASO:
    """Channel pooling (maxout): the maximum over each group of `size` neighbouring channels, place by place.

    Source: Goodfellow et al., Maxout networks, 2013, arXiv 1302.4389.
    """
    channels, *grid = input_shape
    if size < 1 or channels % size:
        raise InputError(f"channel_pool: {channels} channels cannot be cut into groups of {size}")
    places = prod(grid)
    sets = [[c * places + p for c in range(g, g + size)] for g in range(0, channels, size) for p in range(places)]
    return maximum(sets, channels * places, dtype=dtype)
