"""Elementwise spline operators: a continuous piecewise-affine function of one variable, unit by unit.

With knots t_1 < ... < t_k, slopes s_0 ... s_k and offsets o_0 ... o_k,

    sigma(z) = s_r z + o_r    on piece r = #{i : t_i < z},

so a point on a knot belongs to the piece on its left: relu has piece 1 iff z > 0.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from maxaffine.errors import InputError, NotPiecewiseAffineError
from maxaffine.types import Level, Scalar, Shape


@dataclass(frozen=True)
class Frozen:
    """The slopes and offsets picked by one code, ready to be applied to many vectors."""

    slope: Tensor
    offset: Tensor | None


@dataclass(frozen=True)
class Elementwise:
    """sigma(z) = slopes[r] z + offsets[r] with r the number of knots strictly below z.

    Knots, slopes and offsets are numbers, or tensors that broadcast against the operand (a learned slope a channel).
    """

    name: str
    knots: tuple[Level, ...]
    slopes: tuple[Level, ...]
    offsets: tuple[Level, ...]

    @property
    def pieces(self) -> int:
        """R, the number of pieces."""
        return len(self.slopes)

    def code(self, z: Tensor) -> Tensor:
        """Piece of each unit, uint8 (int32 when R > 256), shaped like z."""
        if len(self.knots) == 1:
            return (z > self.knots[0]).view(torch.uint8)
        shape = torch.broadcast_shapes(z.shape, *(knot.shape for knot in self.knots if isinstance(knot, Tensor)))
        total = torch.zeros(shape, dtype=torch.uint8 if self.pieces <= 256 else torch.int32, device=z.device)
        for knot in self.knots:
            total += z > knot
        return total

    def freeze(self, code: Tensor, dtype: torch.dtype) -> Frozen:
        """Slope and offset of each unit under the code."""
        flat = all(not isinstance(o, Tensor) and o == 0 for o in self.offsets)
        return Frozen(pick(code, self.slopes, dtype), None if flat else pick(code, self.offsets, dtype))

    def piece(self, frozen: Frozen, z: Tensor, linear: bool = False) -> Tensor:
        """Value of the frozen piece at z; its linear part alone when linear."""
        value = z * frozen.slope
        return value if linear or frozen.offset is None else value + frozen.offset

    def transpose(self, frozen: Frozen, cotangent: Tensor, *shapes: Shape) -> tuple[Tensor]:  # noqa: ARG002
        """Adjoint of the linear part."""
        return (cotangent * frozen.slope,)

    def walls(self, code: Tensor, z: Tensor, linear: bool = False) -> Tensor:
        """(W, *z.shape): affine functions of z, all >= 0 exactly on the piece; +inf (linear: 0) where there is none."""
        if len(self.knots) == 1:
            sign = code.to(z.dtype) * 2 - 1
            return (sign * (z if linear else z - self.knots[0])).unsqueeze(0)
        count = len(self.knots)
        above, below = code > 0, code < count
        if linear:
            return torch.stack([z * above, -z * below])
        lower = pick((code.to(torch.int32) - 1).clamp(min=0), self.knots, z.dtype)
        upper = pick(code.clamp(max=count - 1), self.knots, z.dtype)
        infinite = torch.full_like(z, torch.inf)
        return torch.stack([torch.where(above, z - lower, infinite), torch.where(below, upper - z, infinite)])


def pick(code: Tensor, levels: Sequence[Level], dtype: torch.dtype) -> Tensor:
    """levels[code], unit by unit; exact (no arithmetic on the levels)."""
    if not any(isinstance(v, Tensor) for v in levels) and tuple(levels) == (0, 1):
        return code.to(dtype)
    out = torch.zeros(code.shape, dtype=dtype, device=code.device) + levels[0]
    for r, level in enumerate(levels[1:], start=1):
        out = torch.where(code == r, torch.as_tensor(level, dtype=dtype, device=code.device), out)
    return out


def cpwl(
    name: str, knots: Sequence[Level], slopes: Sequence[Level], at: tuple[Scalar, Scalar] = (0.0, 0.0)
) -> Elementwise:
    """The continuous piecewise-affine function with these knots and slopes and value at[1] at the point at[0].

    Raises InputError when the numbers of knots and slopes disagree or the knots are not increasing.

    >>> cpwl("relu", [0], [0, 1]).offsets
    (0.0, 0.0)
    """
    if len(slopes) != len(knots) + 1:
        raise InputError(f"{name}: {len(knots)} knots need {len(knots) + 1} slopes, {len(slopes)} given")
    for left, right in pairwise(knots):
        if bool(torch.as_tensor(left > right).any()):
            raise InputError(f"{name}: the knots must increase, {left} is followed by {right}")
    offsets: list[Level] = [0.0]
    for knot, left, right in zip(knots, slopes, slopes[1:], strict=False):
        offsets.append(offsets[-1] + (left - right) * knot)
    home = sum(bool(knot < at[0]) for knot in knots if not isinstance(knot, Tensor))
    shift = at[1] - slopes[home] * at[0] - offsets[home]
    return Elementwise(name, tuple(knots), tuple(slopes), tuple(o + shift for o in offsets))


def _clamp(name: str) -> Callable[..., Elementwise]:
    def rule(_: Shape, low: Level | None = None, high: Level | None = None) -> Elementwise:
        if low is None or high is None:
            knot = high if low is None else low
            assert knot is not None
            slopes, offsets = ((1, 0), (0, knot)) if low is None else ((0, 1), (knot, 0))
            return Elementwise(name, (knot,), slopes, offsets)
        if bool(torch.as_tensor(low > high).any()):  # torch's rule: everything becomes high
            low = torch.minimum(torch.as_tensor(low), torch.as_tensor(high)) if isinstance(high, Tensor) else high
        return Elementwise(name, (low, high), (0, 1, 0), (low, 0, high))

    return rule


def _threshold(_: Shape, threshold: Scalar, value: Scalar) -> Elementwise:
    if threshold != value:
        raise NotPiecewiseAffineError(f"discontinuous (it jumps from {value} to {threshold} at z = {threshold})")
    return Elementwise("threshold", (threshold,), (0, 1), (value, 0))


def _prelu(shape: Shape, weight: Tensor) -> Elementwise:
    if weight.numel() > 1:
        weight = weight.reshape(-1, *[1] * (len(shape) - 2))
    return Elementwise("prelu", (0,), (weight, 1), (0, 0))


def _rrelu(_: Shape, lower: Scalar = 1 / 8, upper: Scalar = 1 / 3, *_unused: object) -> Elementwise:
    return cpwl("rrelu", [0], [(lower + upper) / 2, 1])


def _fixed(operator: Elementwise) -> Callable[..., Elementwise]:
    return lambda _: operator


RULES: dict[str, Callable[..., Elementwise]] = {
    "aten.relu.default": _fixed(cpwl("relu", [0], [0, 1])),
    "aten.leaky_relu.default": lambda _, slope=0.01: cpwl("leaky_relu", [0], [slope, 1]),
    "aten.prelu.default": _prelu,
    "aten._prelu_kernel.default": _prelu,
    "aten.abs.default": _fixed(cpwl("abs", [0], [-1, 1])),
    "aten.relu6.default": _fixed(cpwl("relu6", [0, 6], [0, 1, 0])),
    "aten.hardtanh.default": lambda shape, low=-1, high=1: _clamp("relu6" if (low, high) == (0, 6) else "hardtanh")(
        shape, low, high
    ),
    "aten.clamp.default": _clamp("clamp"),
    "aten.clamp.Tensor": _clamp("clamp"),
    "aten.clamp_min.default": _clamp("clamp_min"),
    "aten.clamp_min.Tensor": _clamp("clamp_min"),
    "aten.clamp_max.default": lambda shape, high: _clamp("clamp_max")(shape, None, high),
    "aten.clamp_max.Tensor": lambda shape, high: _clamp("clamp_max")(shape, None, high),
    "aten.hardsigmoid.default": _fixed(Elementwise("hardsigmoid", (-3, 3), (0, 1 / 6, 0), (0, 0.5, 1))),
    "aten.threshold.default": _threshold,
    "aten.rrelu.default": _rrelu,
    "maxaffine.softshrink.default": lambda _, lam=0.5: cpwl("softshrink", [-lam, lam], [1, 0, 1]),
}
"""ATen operator -> (operand shape, constant arguments) -> the spline operator."""
