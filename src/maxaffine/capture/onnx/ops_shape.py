"""ONNX operators that move, pick, repeat or make elements, and those that reduce along axes.

Axes arrive negative, counted from the right, so that a free axis may be put in front of the file's own.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from maxaffine.errors import CaptureError

Sizes = Sequence[int]


# ---- the shape that a view asks for (all sizes are those of the file) --------------------------
def reshape_target(sizes: Sizes, shape: Sizes, allowzero: int = 0) -> list[int]:
    """Reshape: 0 copies the size of the input unless `allowzero`."""
    return [sizes[i] if size == 0 and not allowzero else size for i, size in enumerate(shape)]


def flatten_target(sizes: Sizes, axis: int = 1) -> list[int]:
    """Flatten: two axes, split before `axis`."""
    if axis != len(sizes):
        axis = _places([axis], len(sizes))[0]
    return [_product(sizes[:axis]), _product(sizes[axis:])]


def squeeze_target(sizes: Sizes, axes: Sizes | None = None) -> list[int]:
    """Squeeze: the listed axes, or all of size 1, are dropped."""
    rank = len(sizes)
    chosen = [i for i, size in enumerate(sizes) if size == 1] if axes is None else _places(axes, rank)
    if any(sizes[axis] != 1 for axis in chosen):
        raise CaptureError(f"cannot squeeze the axes {list(axes or ())} of shape {tuple(sizes)}")
    return [size for i, size in enumerate(sizes) if i not in chosen]


def unsqueeze_target(sizes: Sizes, axes: Sizes) -> list[int]:
    """Unsqueeze: axes of size 1 at the listed places of the result."""
    rank, rest = len(sizes) + len(axes), iter(sizes)
    places = _places(axes, rank)
    if len(set(places)) < len(places):
        raise CaptureError(f"its axes {list(axes)} name one axis twice")
    return [1 if i in places else next(rest) for i in range(rank)]


def expand_target(sizes: Sizes, shape: Sizes) -> list[int]:
    """Expand: the broadcast of both shapes."""
    return list(torch.broadcast_shapes(tuple(sizes), tuple(shape)))


def view(x: Tensor, rank: int, shape: Sizes) -> Tensor:
    """The last `rank` axes of x as `shape`; what is before them, at most one axis, stays."""
    # a copy first, else the inferred size is computed from the batch in the graph
    return x.contiguous().view(([-1] if x.dim() > rank else []) + list(shape))


def expand(x: Tensor, rank: int, shape: Sizes) -> Tensor:
    """The last `rank` axes of x broadcast to `shape`; -1 keeps a size."""
    for _ in range(len(shape) - rank):
        x = x.unsqueeze(-rank - 1)
        rank += 1
    return x.expand([-1] * (x.dim() - rank) + list(shape))


def _places(axes: Sizes, rank: int) -> list[int]:
    """The axes counted from the left."""
    if any(not -rank <= axis < rank for axis in axes):
        raise CaptureError(f"its axes {list(axes)} do not fit {rank} axes")
    return [axis % rank for axis in axes]


def _product(sizes: Sizes) -> int:
    result = 1
    for size in sizes:
        result *= size
    return result


# ---- moving and picking ------------------------------------------------------------------------
def transpose(x: Tensor, perm: Sizes) -> Tensor:
    """The axes in the order `perm`."""
    return x.permute([*range(x.dim() - len(perm)), *(x.dim() + axis for axis in perm)])


def concat(*operands: Tensor, axis: int) -> Tensor:
    """The operands one after the other along `axis`."""
    return torch.cat(operands, axis)


def slice_(x: Tensor, starts: Sizes, ends: Sizes, axes: Sizes, steps: Sizes | None = None) -> Tensor:
    """x[start:end:step] along each listed axis, with the rules of Python for what lies outside.

    But for a start before the first element, from which a negative step begins at the first.
    """
    for axis, start, end, step in zip(axes, starts, ends, steps or [1] * len(axes), strict=False):
        if start == 0 and step == 1 and end >= 2**31 - 1:
            continue  # the whole axis, which may be the free one
        first = start if step > 0 else max(start, -x.shape[axis])
        picked = range(*slice(first, end, step).indices(x.shape[axis]))
        low, stop = (min(picked), max(picked) + 1) if picked else (0, 0)
        x = x[(..., slice(low, stop, abs(step)), *[slice(None)] * (-axis - 1))]
        x = x if step > 0 else x.flip(axis)
    return x


def split(x: Tensor, split: Sizes | None = None, axis: int = 0, num_outputs: int = 1) -> tuple[Tensor, ...]:
    """X cut along `axis` into pieces of the given sizes, or into equal ones (the last may be shorter)."""
    pieces = torch.split(x, list(split) if split else -(-x.shape[axis] // num_outputs), axis)
    if len(pieces) != num_outputs:
        raise CaptureError(f"it has {num_outputs} outputs for {len(pieces)} pieces")
    return pieces


def gather(x: Tensor, indices: int | list, axis: int = 0) -> Tensor:
    """X picked at constant indices (any nesting) along `axis`."""
    table = np.asarray(indices, dtype=np.int64)
    if table.ndim == 0:
        return x.select(axis, int(table))
    flat = [int(i) + x.shape[axis] if i < 0 else int(i) for i in table.flat]
    if flat == list(range(flat[0], flat[0] + len(flat))):
        picked = x.narrow(axis, flat[0], len(flat))
    else:
        picked = x.index_select(axis, torch.tensor(flat, device=x.device))
    return picked if table.ndim == 1 else picked.unflatten(axis, table.shape)


def embedding(table: Tensor, indices: Tensor, axis: int = 0) -> Tensor:
    """The rows of a constant table at indices that depend on the input."""
    if axis not in (0, -2) or table.dim() != 2:
        raise CaptureError("indices that depend on the input are only supported for the rows of a table")
    return F.embedding(indices, table)


def pad(
    x: Tensor, pads: Sizes, value: float | None = None, axes: Sizes | None = None, mode: str = "constant"
) -> Tensor:
    """X with `pads` (all begins, then all ends) on the listed axes; mode constant, reflect, edge or wrap."""
    modes = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}
    if mode not in modes:
        raise CaptureError(f"mode '{mode}' is not one of {sorted(modes)}")
    count = len(pads) // 2
    places = list(axes) if axes is not None else list(range(-count, 0))
    amounts = {axis: (pads[i], pads[i + count]) for i, axis in enumerate(places) if pads[i] or pads[i + count]}
    both = [amount for axis in range(-1, min(amounts, default=0) - 1, -1) for amount in amounts.get(axis, (0, 0))]
    return F.pad(x, both, modes[mode], (value or 0.0) if mode == "constant" else None) if both else x


def tile(x: Tensor, repeats: Sizes) -> Tensor:
    """X repeated along each axis."""
    return x.repeat([1] * (x.dim() - len(repeats)) + list(repeats))


def trilu(x: Tensor, k: int = 0, upper: int = 1) -> Tensor:
    """The upper or lower triangle of the last two axes."""
    return torch.triu(x, k) if upper else torch.tril(x, k)


def depth_to_space(x: Tensor, blocksize: int, mode: str = "DCR") -> Tensor:
    """Blocks of channels become blocks of pixels; mode DCR (depth first) or CRD (torch's pixel shuffle)."""
    if mode == "CRD":
        return F.pixel_shuffle(x, blocksize)
    apart = x.unflatten(1, (blocksize * blocksize, -1)).transpose(1, 2).flatten(1, 2)
    return F.pixel_shuffle(apart, blocksize)


def space_to_depth(x: Tensor, blocksize: int) -> Tensor:
    """Blocks of pixels become blocks of channels, the block position first."""
    apart = F.pixel_unshuffle(x, blocksize).unflatten(1, (-1, blocksize * blocksize))
    return apart.transpose(1, 2).flatten(1, 2)


# ---- making (only from constants) --------------------------------------------------------------
def shape(x: Tensor, start: int = 0, end: int | None = None) -> Tensor:
    """The sizes of x."""
    return torch.tensor(list(x.shape)[start:end], dtype=torch.int64)


def size(x: Tensor) -> Tensor:
    """The number of elements of x."""
    return torch.tensor(x.numel())


def constant(
    value: Tensor | None = None,
    value_float: float | None = None,
    value_floats: Sequence[float] | None = None,
    value_int: int | None = None,
    value_ints: Sequence[int] | None = None,
) -> Tensor:
    """The constant of whichever attribute is there."""
    if value is not None:
        return value
    floats = value_float if value_float is not None else value_floats
    if floats is not None:
        return torch.tensor(floats, dtype=torch.float32)
    return torch.tensor(value_int if value_int is not None else value_ints, dtype=torch.int64)


def constant_of_shape(sizes: Tensor, value: Tensor | None = None) -> Tensor:
    """A tensor of the given sizes filled with one value."""
    value = torch.zeros(1) if value is None else value
    return value.reshape(()).repeat(sizes.tolist())


def arange(start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    """start, start + delta, ... before limit."""
    return torch.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype)


# ---- reducing ----------------------------------------------------------------------------------
def reduce_mean(x: Tensor, axes: Sizes, keepdims: int = 1) -> Tensor:
    """Mean along axes."""
    return x.mean(tuple(axes), bool(keepdims)) if axes else x


def reduce_sum(x: Tensor, axes: Sizes, keepdims: int = 1) -> Tensor:
    """Sum along axes."""
    return x.sum(tuple(axes), bool(keepdims)) if axes else x


def reduce_max(x: Tensor, axes: Sizes, keepdims: int = 1) -> Tensor:
    """Largest along axes."""
    return x.amax(tuple(axes), bool(keepdims)) if axes else x


def reduce_min(x: Tensor, axes: Sizes, keepdims: int = 1) -> Tensor:
    """Smallest along axes."""
    return x.amin(tuple(axes), bool(keepdims)) if axes else x


def reduce_prod(x: Tensor, axes: Sizes, keepdims: int = 1) -> Tensor:
    """Product along axes."""
    for axis in sorted(axes):  # from the left: the axes still to come keep their number from the right
        x = x.prod(axis, keepdim=True)
    return x if keepdims else x.squeeze(tuple(axes))


def reduce_l1(x: Tensor, axes: Sizes, keepdims: int = 1) -> Tensor:
    """Sum of |x| along axes."""
    return reduce_sum(x.abs(), axes, keepdims)


def reduce_l2(x: Tensor, axes: Sizes, keepdims: int = 1) -> Tensor:
    """Root of the sum of squares along axes."""
    return reduce_sum(x * x, axes, keepdims).sqrt()


def reduce_sum_square(x: Tensor, axes: Sizes, keepdims: int = 1) -> Tensor:
    """Sum of squares along axes."""
    return reduce_sum(x * x, axes, keepdims)


def reduce_log_sum_exp(x: Tensor, axes: Sizes, keepdims: int = 1) -> Tensor:
    """Log sum exp along axes."""
    return torch.logsumexp(x, tuple(axes), bool(keepdims))


def arg_max(x: Tensor, axis: int, keepdims: int = 1, select_last_index: int = 0) -> Tensor:
    """Index of the largest along one axis."""
    return _first(torch.argmax, x, axis, keepdims, select_last_index)


def arg_min(x: Tensor, axis: int, keepdims: int = 1, select_last_index: int = 0) -> Tensor:
    """Index of the smallest along one axis."""
    return _first(torch.argmin, x, axis, keepdims, select_last_index)


def _first(pick: object, x: Tensor, axis: int, keepdims: int, last: int) -> Tensor:
    if last:
        raise CaptureError("select_last_index=1 is not supported")
    return pick(x, axis, bool(keepdims))  # type: ignore[operator]


def cum_sum(x: Tensor, axis: int, exclusive: int = 0, reverse: int = 0) -> Tensor:
    """Running sum along one axis."""
    if exclusive or reverse:
        raise CaptureError("exclusive and reverse sums are not supported")
    return torch.cumsum(x, axis)
