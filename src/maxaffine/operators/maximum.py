"""Maximum spline operators: the largest of R candidates, the paper's MASO with slopes that pick one entry each.

Two forms cover them all: windows over one operand (pooling, amax, max over a dimension, maxout) and the entrywise
maximum of two operands. Minima are maxima of the negated candidates (sign = -1). Ties go to the lowest index.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod

import torch
from torch import Tensor

from maxaffine.errors import NotPiecewiseAffineError
from maxaffine.types import Shape

Winner = Callable[[Tensor], tuple[Tensor, Tensor]]
"""The native maximum over windows: operand -> (values, flat positions of the winners)."""


@dataclass(frozen=True)
class Pair:
    """max(a, b) or min(a, b) entry by entry: piece 0 is a, piece 1 is b; a tie is piece 0."""

    name: str
    sign: int = 1
    pieces: int = 2

    def code(self, a: Tensor, b: Tensor) -> Tensor:
        """1 where b wins strictly, uint8."""
        return (b > a if self.sign > 0 else b < a).view(torch.uint8)

    def freeze(self, code: Tensor, dtype: torch.dtype) -> Tensor:
        """1.0 where b is selected."""
        return code.to(dtype)

    def piece(self, frozen: Tensor, a: Tensor, b: Tensor, linear: bool = False) -> Tensor:  # noqa: ARG002
        """The selected operand (a constant operand is given as zeros for the linear part)."""
        return torch.where(frozen > 0, b, a)

    def transpose(self, frozen: Tensor, cotangent: Tensor, *shapes: Shape) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Adjoint: the cotangent goes to the selected operand."""
        chosen = cotangent * frozen
        return cotangent - chosen, chosen

    def walls(self, code: Tensor, a: Tensor, b: Tensor, linear: bool = False) -> Tensor:  # noqa: ARG002
        """(1, *shape): selected minus other (times the sign)."""
        other = self.sign * (1 - 2 * code.to(a.dtype))
        return (other * (a - b)).unsqueeze(0)


@dataclass(frozen=True)
class Windows:
    """max (or min) over R_k candidates of one operand: out[..., k] = max_r z[..., base[k] + step[r]].

    The last `dims` axes of the operand are flattened to P positions, every other axis is carried along.
    base: (U,) flat position of candidate 0 of each window (may lie in the padding); step: (R,) from candidate 0 to
    candidate r; inside: (U, R) False where a candidate lies in the padding.
    """

    name: str
    sign: int
    axes: tuple[int, ...]
    out_shape: Shape
    base: Tensor
    step: Tensor
    inside: Tensor
    winner: Winner | None = None

    @property
    def pieces(self) -> int:
        """R, candidates of the largest window (padded ones included, they never win)."""
        return self.step.numel()

    def flat(self, z: Tensor) -> Tensor:
        """(*lead, P): the windowed axes last and flattened."""
        trailing = tuple(range(-len(self.axes), 0))
        return (z if self.axes == trailing else z.movedim(self.axes, trailing)).flatten(-len(self.axes))

    def restore(self, flat: Tensor, sizes: Shape) -> Tensor:
        """Inverse of flat on an operand with these windowed sizes."""
        trailing = tuple(range(-len(self.axes), 0))
        z = flat.unflatten(-1, sizes)
        return z if self.axes == trailing else z.movedim(trailing, self.axes)

    def value_and_code(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The maximum and the winner's place in its window, uint8 (int32 when R > 256)."""
        small = torch.uint8 if self.pieces <= 256 else torch.int32
        if self.winner is None:
            flat = self.flat(z)
            index = flat.argmax(-1, keepdim=True) if self.sign > 0 else flat.argmin(-1, keepdim=True)
            return self.shape_out(flat.gather(-1, index)), self.shape_out(index.to(small))
        value, index = self.winner(z)
        return value, self._place(index.flatten(-len(self.axes))).to(small).view(value.shape)

    def _place(self, index: Tensor) -> Tensor:
        """Flat position of the winner -> its place r in the window."""
        base, step = self.base.to(index.device), self.step.to(index.device)
        if step.unique().numel() == step.numel():
            lookup = torch.zeros(int(step.max()) + 1, dtype=torch.int32, device=index.device)
            lookup[step] = torch.arange(self.pieces, dtype=torch.int32, device=index.device)
            return lookup[index - base]
        # A kernel wider than the operand: two places share a step, so compare with the candidates one by one.
        candidates = torch.where(self.inside.to(index.device), base[:, None] + step, -1)
        return (candidates == index[..., None]).to(torch.uint8).argmax(-1)

    def code(self, z: Tensor) -> Tensor:
        """The winner's place in its window."""
        return self.value_and_code(z)[1]

    def shape_out(self, flat: Tensor) -> Tensor:
        """(*lead, U) -> the operator's own output shape."""
        if self.winner is not None:
            return flat.unflatten(-1, self.out_shape)
        return flat.squeeze(-1) if not self.out_shape else self.restore(flat, self.out_shape)

    def flat_out(self, out: Tensor) -> Tensor:
        """Inverse of shape_out."""
        if self.winner is not None:
            return out.flatten(-len(self.axes))
        return out.unsqueeze(-1) if not self.out_shape else self.flat(out)

    def freeze(self, code: Tensor, dtype: torch.dtype) -> Tensor:  # noqa: ARG002
        """(*lead, U) int64: flat position of the selected candidate."""
        return self.step.to(code.device)[self.flat_out(code).long()] + self.base.to(code.device)

    def piece(self, frozen: Tensor, z: Tensor, linear: bool = False) -> Tensor:  # noqa: ARG002
        """The selected candidates."""
        flat = self.flat(z)
        return self.shape_out(flat.gather(-1, frozen.expand(*flat.shape[:-1], -1)))

    def transpose(self, frozen: Tensor, cotangent: Tensor, *shapes: Shape) -> tuple[Tensor]:
        """Adjoint: each cotangent is added at the selected position."""
        sizes = tuple(shapes[0][axis] for axis in self.axes)
        flat = self.flat_out(cotangent)
        lead = torch.broadcast_shapes(flat.shape[:-1], frozen.shape[:-1])
        flat, index = flat.expand(*lead, -1), frozen.expand(*lead, -1)
        zeros = torch.zeros((*lead, prod(sizes)), dtype=flat.dtype, device=flat.device)
        return (self.restore(zeros.scatter_add(-1, index, flat), sizes),)

    def walls(self, code: Tensor, z: Tensor, linear: bool = False) -> Tensor:
        """(R, *out): selected minus candidate r (times the sign); +inf (linear: 0) for the selected and the padding."""
        flat = self.flat(z)
        inside, base = self.inside.to(z.device), self.base.to(z.device)
        chosen = self.flat_out(code).long()
        selected = flat.gather(-1, self.freeze(code, z.dtype).expand(*flat.shape[:-1], -1))
        absent = 0.0 if linear else torch.inf
        walls = []
        for r in range(self.pieces):
            position = (base + int(self.step[r])).clamp(0, flat.shape[-1] - 1)
            wall = self.sign * (selected - flat[..., position])
            real = inside[:, r] & (chosen != r)
            walls.append(self.shape_out(torch.where(real, wall, absent)))
        return torch.stack(walls)


def reduction(name: str, sign: int, shape: Shape, dims: Sequence[int], keepdim: bool) -> Windows:
    """Max or min over whole dimensions: one window that is the flattened block of those dimensions."""
    axes = tuple(sorted(d % len(shape) - len(shape) for d in dims))
    count = prod(shape[a] for a in axes)
    step = torch.arange(count)
    kept = (1,) * len(axes) if keepdim else ()
    return Windows(
        name, sign, axes, kept, torch.zeros(1, dtype=torch.long), step, torch.ones(1, count, dtype=torch.bool)
    )


@dataclass(frozen=True)
class Axis:
    """Windows of one pooled axis: first position, steps between candidates, and which candidates are inside."""

    starts: Tensor
    steps: Tensor
    inside: Tensor


def windows(name: str, sizes: Shape, axes: Sequence[Axis], winner: Winner) -> Windows:
    """Windows that are products of one-dimensional ones, candidates in row-major order."""
    strides = [prod(sizes[i + 1 :]) for i in range(len(sizes))]
    base, step = torch.zeros(1, dtype=torch.long), torch.zeros(1, dtype=torch.long)
    inside = torch.ones(1, 1, dtype=torch.bool)
    for axis, stride in zip(axes, strides, strict=True):
        base = (base[:, None] + (axis.starts * stride)[None]).flatten()
        step = (step[:, None] + (axis.steps * stride)[None]).flatten()
        inside = (inside[:, None, :, None] & axis.inside[None, :, None, :]).flatten(0, 1).flatten(1)
    if not bool(inside.any(1).all()):
        raise NotPiecewiseAffineError("undefined (a window lies wholly in the padding, its maximum is -inf)")
    out = tuple(len(axis.starts) for axis in axes)
    return Windows(name, 1, tuple(range(-len(sizes), 0)), out, base, step, inside, winner)


def pooled_axis(size: int, out: int, kernel: int, stride: int, padding: int, dilation: int) -> Axis:
    """Windows of max pooling along one axis; padded candidates are not inside."""
    starts, steps = torch.arange(out) * stride - padding, torch.arange(kernel) * dilation
    places = starts[:, None] + steps
    return Axis(starts, steps, (places >= 0) & (places < size))


def adaptive_axis(size: int, out: int) -> Axis:
    """Windows [floor(u size / out), ceil((u + 1) size / out)) of adaptive pooling."""
    u = torch.arange(out)
    starts, ends = u * size // out, -(-(u + 1) * size // out)
    steps = torch.arange(int((ends - starts).max()))
    return Axis(starts, steps, starts[:, None] + steps < ends[:, None])


def _numbers(value: Sequence[int] | int, count: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * count if len(values) == 1 else values


def _max_pool(count: int) -> Callable[..., Windows]:
    native = {
        1: torch.nn.functional.max_pool1d_with_indices,
        2: torch.nn.functional.max_pool2d_with_indices,
        3: torch.nn.functional.max_pool3d_with_indices,
    }[count]

    def rule(
        shape: Shape,
        kernel: Sequence[int],
        stride: Sequence[int] = (),
        padding: Sequence[int] | int = 0,
        dilation: Sequence[int] | int = 1,
        ceil_mode: bool = False,
    ) -> Windows:
        sizes, kernel = shape[-count:], _numbers(kernel, count)
        strides = _numbers(stride, count) if stride else kernel
        pads, steps = _numbers(padding, count), _numbers(dilation, count)
        winner = partial(native, kernel_size=kernel, stride=strides, padding=pads, dilation=steps, ceil_mode=ceil_mode)
        outs = [_pooled_size(*row, ceil_mode) for row in zip(sizes, kernel, strides, pads, steps, strict=True)]
        axes = [pooled_axis(*row) for row in zip(sizes, outs, kernel, strides, pads, steps, strict=True)]
        return windows(f"max_pool{count}d", sizes, axes, winner)

    return rule


def _pooled_size(size: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool) -> int:
    span = size + 2 * padding - dilation * (kernel - 1) - 1
    out = (-(-span // stride) if ceil_mode else span // stride) + 1
    return out - 1 if ceil_mode and (out - 1) * stride >= size + padding else out  # no window starts in right padding


def _adaptive(count: int) -> Callable[..., Windows]:
    native = {
        1: torch.nn.functional.adaptive_max_pool1d_with_indices,
        2: torch.nn.functional.adaptive_max_pool2d_with_indices,
        3: torch.nn.functional.adaptive_max_pool3d_with_indices,
    }[count]

    def rule(shape: Shape, output_size: Sequence[int]) -> Windows:
        sizes, outs = shape[-count:], _numbers(output_size, count)
        axes = [adaptive_axis(size, out) for size, out in zip(sizes, outs, strict=True)]
        return windows(f"adaptive_max_pool{count}d", sizes, axes, partial(native, output_size=outs))

    return rule


def _amax(name: str, sign: int) -> Callable[..., Windows]:
    def rule(shape: Shape, dims: Sequence[int] | int = (), keepdim: bool = False) -> Windows:
        dims = [dims] if isinstance(dims, int) else list(dims) or list(range(len(shape)))
        return reduction(name, sign, shape, dims, keepdim)

    return rule


def _aminmax(sign: int) -> Callable[..., Windows]:
    def rule(shape: Shape, dim: int | None = None, keepdim: bool = False) -> Windows:
        return reduction("aminmax", sign, shape, list(range(len(shape))) if dim is None else [dim], keepdim)

    return rule


WINDOW_RULES: dict[str, Callable[..., Windows]] = {
    "aten.amax.default": _amax("amax", 1),
    "aten.amin.default": _amax("amin", -1),
    "aten.max.dim#0": _amax("max", 1),
    "aten.min.dim#0": _amax("min", -1),
    "aten.aminmax.default#0": _aminmax(-1),
    "aten.aminmax.default#1": _aminmax(1),
    "aten.max_pool1d.default": _max_pool(1),
    "aten.max_pool2d.default": _max_pool(2),
    "aten.max_pool3d.default": _max_pool(3),
    "aten.max_pool1d_with_indices.default#0": _max_pool(1),
    "aten.max_pool2d_with_indices.default#0": _max_pool(2),
    "aten.max_pool3d_with_indices.default#0": _max_pool(3),
    "aten.adaptive_max_pool1d.default#0": _adaptive(1),
    "aten.adaptive_max_pool2d.default#0": _adaptive(2),
    "aten.adaptive_max_pool3d.default#0": _adaptive(3),
}
"""ATen operator -> (operand shape, constant arguments) -> the spline operator. "#0": its first output."""

PAIR_RULES: dict[str, Pair] = {
    "aten.maximum.default": Pair("maximum", 1),
    "aten.minimum.default": Pair("minimum", -1),
    "aten.fmax.default": Pair("fmax", 1),
    "aten.fmin.default": Pair("fmin", -1),
    "aten.max.other": Pair("maximum", 1),
    "aten.min.other": Pair("minimum", -1),
}
