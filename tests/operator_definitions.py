"""What every spline operator of the table is, written from the formulas as loops over single numbers.

A definition maps operands (N, *shape) to the operator's value and code. A code counts the knots strictly below z, or is
the place of the winner: the lowest place, in row-major order of the window, among the largest candidates inside.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Define = Callable[..., tuple[Tensor, Tensor]]
Positions = list[list[int]]  # of one axis: the position of each candidate, for each window


@dataclass(frozen=True)
class Definition:
    """A definition, its ATen names, the arguments after the operands (options by name), the shape of a row."""

    name: str
    ops: tuple[str, ...]
    define: Define
    args: tuple[Any, ...] = ()
    shape: tuple[int, ...] = (3, 4)
    operands: int = 1
    options: dict[str, Any] = field(default_factory=dict)


# ---- one number at a time ------------------------------------------------------------------------------------------


def by_entry(function: Callable[..., tuple[float, int]]) -> Define:
    """Apply function(index, *numbers) -> (value, piece) to every entry."""

    def define(*operands: Tensor) -> tuple[Tensor, Tensor]:
        operands = torch.broadcast_tensors(*operands)
        value, code = torch.zeros_like(operands[0]), torch.zeros(operands[0].shape, dtype=torch.int64)
        for index in itertools.product(*map(range, value.shape)):
            value[index], code[index] = function(index, *(float(z[index]) for z in operands))
        return value, code

    return define


def bent(slope: float) -> Define:
    """max(z, 0) + slope min(z, 0): relu, leaky relu, absolute value."""
    return by_entry(lambda _, z: (z, 1) if z > 0 else (slope * z, 0))


def prelu(weight: Tensor) -> Define:
    """A learned slope for each channel, or one for all."""

    def unit(index: tuple[int, ...], z: float) -> tuple[float, int]:
        slope = float(weight.flatten()[index[1] if weight.numel() > 1 else 0])
        return (z, 1) if z > 0 else (slope * z, 0)

    return by_entry(unit)


def clipped(low: Tensor | float, high: Tensor | float) -> Define:
    """min(max(z, low), high), the bounds being numbers or one for each unit."""

    def unit(index: tuple[int, ...], z: float) -> tuple[float, int]:
        least, most = (float(v.expand(3, 4)[index[1:]]) if isinstance(v, Tensor) else v for v in (low, high))
        if least > most:  # everything is `high`; both knots lie there
            return most, 2 if z > most else 0
        value = least if z <= least else z if z <= most else most
        return value, (z > least) + (z > most)

    return by_entry(unit)


def raised(low: float) -> Define:
    """max(z, low)."""
    return by_entry(lambda _, z: (z, 1) if z > low else (low, 0))


def lowered(high: float) -> Define:
    """min(z, high)."""
    return by_entry(lambda _, z: (high, 1) if z > high else (z, 0))


def raised_to(low: Tensor) -> Define:
    """max(z, low) with a bound for each unit."""
    return by_entry(lambda i, z: (z, 1) if z > low.expand(3, 4)[i[1:]] else (float(low.expand(3, 4)[i[1:]]), 0))


def lowered_to(high: Tensor) -> Define:
    """min(z, high) with a bound for each unit."""
    return by_entry(lambda i, z: (float(high.expand(3, 4)[i[1:]]), 1) if z > high.expand(3, 4)[i[1:]] else (z, 0))


def hardsigmoid(_: tuple[int, ...], z: float) -> tuple[float, int]:
    """0 up to -3, 1 from 3, z / 6 + 1 / 2 between."""
    return (0.0, 0) if z <= -3 else (z / 6 + 0.5, 1) if z <= 3 else (1.0, 2)


def softshrink(width: float) -> Define:
    """Towards 0 by width."""
    return by_entry(lambda _, z: (z + width, 0) if z <= -width else (0.0, 1) if z <= width else (z - width, 2))


def larger(_: tuple[int, ...], a: float, b: float) -> tuple[float, int]:
    """max(a, b)."""
    return (b, 1) if b > a else (a, 0)


def smaller(_: tuple[int, ...], a: float, b: float) -> tuple[float, int]:
    """min(a, b)."""
    return (b, 1) if b < a else (a, 0)


# ---- one window at a time ------------------------------------------------------------------------------------------


def winner(candidates: Iterator[tuple[int, float]], sign: int) -> tuple[float, int]:
    """The largest (smallest) candidate of (place, value) pairs and the first place that holds it."""
    best, at = -math.inf, -1
    for place, value in candidates:
        if sign * value > best:
            best, at = sign * value, place
    return sign * best, at


def pooled(axes: Sequence[Callable[[int], Positions]]) -> Define:
    """The maximum over windows that are products of windows of the last axes."""

    def define(z: Tensor) -> tuple[Tensor, Tensor]:
        lead, grid = z.shape[: z.dim() - len(axes)], z.shape[z.dim() - len(axes) :]
        positions = [axis(size) for axis, size in zip(axes, grid, strict=True)]
        box = [max(map(len, windows)) for windows in positions]
        value = torch.zeros(*lead, *map(len, positions), dtype=z.dtype)
        code = torch.zeros(value.shape, dtype=torch.int64)

        def candidates(front: tuple[int, ...], at: tuple[int, ...]) -> Iterator[tuple[int, float]]:
            window = [windows[u] for windows, u in zip(positions, at, strict=True)]
            for place, inner in enumerate(itertools.product(*map(range, box))):
                if all(j < len(w) and 0 <= w[j] < size for j, w, size in zip(inner, window, grid, strict=True)):
                    yield place, float(z[(*front, *(w[j] for j, w in zip(inner, window, strict=True)))])

        for front in itertools.product(*map(range, lead)):
            for at in itertools.product(*(range(len(windows)) for windows in positions)):
                value[(*front, *at)], code[(*front, *at)] = winner(candidates(front, at), 1)
        return value, code

    return define


def strided(
    kernel: int, stride: int, padding: int = 0, dilation: int = 1, ceil: bool = False
) -> Callable[[int], Positions]:
    """Windows of max pooling that end inside the padded axis; ceil: one more that reaches over, if it starts before
    the right padding.
    """

    def axis(size: int) -> Positions:
        windows, start, span = [], -padding, dilation * (kernel - 1) + 1
        while start + span <= size + padding or (ceil and start + span < size + padding + stride and start < size):
            windows.append([start + dilation * j for j in range(kernel)])
            start += stride
        return windows

    return axis


def adaptive(count: int) -> Callable[[int], Positions]:
    """`count` windows that cover the axis: from floor(u size / count) to ceil((u + 1) size / count)."""
    return lambda size: [
        list(range(math.floor(u * size / count), math.ceil((u + 1) * size / count))) for u in range(count)
    ]


def reduced(sign: int, dims: Sequence[int], keepdim: bool = False) -> Define:
    """The largest (smallest) over whole axes, row-major in their order."""

    def define(z: Tensor) -> tuple[Tensor, Tensor]:
        gone = sorted(d % z.dim() for d in dims)
        kept = [d for d in range(z.dim()) if d not in gone]
        moved = z.permute(*kept, *gone)
        value = torch.zeros([z.shape[d] for d in kept], dtype=z.dtype)
        code = torch.zeros(value.shape, dtype=torch.int64)
        for index in itertools.product(*map(range, value.shape)):
            inner = itertools.product(*(range(z.shape[d]) for d in gone))
            value[index], code[index] = winner(((r, float(moved[index + j])) for r, j in enumerate(inner)), sign)
        if keepdim:
            for d in gone:
                value, code = value.unsqueeze(d), code.unsqueeze(d)
        return value, code

    return define


# ---- the list ------------------------------------------------------------------------------------------------------

CHANNELS = torch.tensor([0.25, -0.5, 2.0], dtype=torch.float64)
LOW = torch.tensor([[-2.0], [0.0], [1.0]], dtype=torch.float64)
HIGH = torch.tensor([-1.0, 1.0, 2.0, 5.0], dtype=torch.float64)  # below LOW in places


def _elementwise(name: str, define: Define, *args: Any, ops: str = "") -> Definition:
    return Definition(
        f"{name}{list(args) or ''}", tuple(f"aten.{op}" for op in (ops or f"{name}.default").split()), define, args
    )


ELEMENTWISE = [
    _elementwise("relu", bent(0.0)),
    _elementwise("leaky_relu", bent(0.01)),
    _elementwise("leaky_relu", bent(-0.5), -0.5),
    _elementwise("abs", bent(-1.0)),
    _elementwise("rrelu", bent((1 / 8 + 1 / 3) / 2)),
    _elementwise("rrelu", bent(0.3), 0.2, 0.4),
    Definition("prelu", ("aten.prelu.default",), prelu(CHANNELS), (CHANNELS,)),
    Definition("prelu_image", ("aten.prelu.default",), prelu(CHANNELS), (CHANNELS,), (3, 2, 2)),
    Definition("prelu_one", ("aten.prelu.default",), prelu(CHANNELS[:1]), (CHANNELS[:1],)),
    Definition("prelu_kernel", ("aten._prelu_kernel.default",), prelu(CHANNELS), (CHANNELS[:, None],)),
    _elementwise("relu6", clipped(0, 6)),
    _elementwise("hardtanh", clipped(-1, 1)),
    _elementwise("hardtanh", clipped(0, 6), 0, 6),
    _elementwise("hardtanh", clipped(-2, 1), -2.0, 1.0),
    _elementwise("clamp", clipped(-1, 2), -1, 2),
    _elementwise("clamp", clipped(2, -1), 2, -1),
    _elementwise("clamp", raised(1), 1),
    _elementwise("clamp", lowered(-1), None, -1),
    _elementwise("clamp_min", raised(-2.0), -2.0),
    _elementwise("clamp_max", lowered(2.0), 2.0),
    Definition("clamp_tensors", ("aten.clamp.Tensor",), clipped(LOW, HIGH), (LOW, HIGH)),
    Definition("clamp_low_tensor", ("aten.clamp.Tensor", "aten.clamp_min.Tensor"), raised_to(LOW), (LOW,)),
    Definition("clamp_high_tensor", ("aten.clamp.Tensor",), lowered_to(HIGH), (None, HIGH)),
    Definition("clamp_max_tensor", ("aten.clamp_max.Tensor",), lowered_to(HIGH), (HIGH,)),
    _elementwise("hardsigmoid", by_entry(hardsigmoid)),
    _elementwise("threshold", raised(1.0), 1.0, 1.0),
    Definition("softshrink", ("maxaffine.softshrink.default",), softshrink(0.5)),
    Definition("softshrink_2", ("maxaffine.softshrink.default",), softshrink(2.0), (2.0,)),
]

PAIRS = [
    Definition(name, (f"aten.{name}.default", *other), by_entry(function), operands=2)
    for name, function, other in [
        ("maximum", larger, ("aten.max.other",)),
        ("minimum", smaller, ("aten.min.other",)),
        ("fmax", larger, ()),
        ("fmin", smaller, ()),
    ]
]

REDUCTIONS = [
    *(
        Definition(
            f"{word}_{dims}_{keep}", (f"aten.{word}.default",), reduced(sign, dims, keep), (list(dims), keep), (3, 2, 4)
        )
        for word, sign in (("amax", 1), ("amin", -1))
        for dims, keep in (((1,), False), ((-1,), True), ((1, 3), False), ((3, 2), True), ((1, 2, 3), False))
    ),
    *(
        Definition(f"{word}_{dim}_{keep}", (f"aten.{word}.dim#0",), reduced(sign, (dim,), keep), (dim, keep), (3, 2, 4))
        for word, sign in (("max", 1), ("min", -1))
        for dim, keep in ((1, False), (-1, True), (2, False))
    ),
    *(
        Definition(
            f"aminmax_{place}_{dim}",
            (f"aten.aminmax.default#{place}",),
            reduced(2 * place - 1, (dim,), keep),
            shape=(3, 2, 4),
            options={"dim": dim, "keepdim": keep},
        )
        for place in (0, 1)
        for dim, keep in ((1, False), (-1, True))
    ),
    Definition("maxout", ("aten.amax.default",), reduced(1, (2,)), ([2],), (2, 5, 3)),
    Definition("wide_amax", ("aten.amax.default",), reduced(1, (1,)), ([1],), (300,)),
]


def _pool(shape: tuple[int, ...], *args: Any) -> Definition:
    """args as aten takes them: kernel, stride, padding, dilation, each a list with one number an axis; ceil_mode."""
    kernel, stride, padding, dilation, ceil = [*args, *[[], 0, 1, False][len(args) - 1 :]]
    count = len(shape) - 1
    lists = [[v] * count if isinstance(v, int) else list(v) for v in (kernel, stride or kernel, padding, dilation)]
    axes = [strided(*row, ceil) for row in zip(*lists, strict=True)]
    ops = (f"aten.max_pool{count}d.default", f"aten.max_pool{count}d_with_indices.default#0")
    return Definition(f"max_pool{count}d{list(args)}", ops, pooled(axes), args, shape)


def _adaptive_pool(shape: tuple[int, ...], sizes: list[int]) -> Definition:
    count = len(shape) - 1
    ops = (f"aten.adaptive_max_pool{count}d.default#0",)
    return Definition(f"adaptive_max_pool{count}d{sizes}", ops, pooled([adaptive(n) for n in sizes]), (sizes,), shape)


POOLS = [
    _pool((2, 7), [3]),
    _pool((2, 7), [3], [2], [1]),
    _pool((2, 8), [2], [3], [0], [2], True),
    _pool((2, 5, 6), [2, 2]),
    _pool((2, 5, 6), [3, 3], [1, 1], [1, 1]),  # overlapping
    _pool((2, 5, 6), [3, 2], [2, 1], [1, 0], [1, 2], True),
    _pool((1, 5, 5), [2, 2], [2, 2], [0, 0], [1, 1], True),
    _pool((1, 4, 4), [2, 3], [3, 3], [1, 1], [1, 1], True),  # a window would start in the right padding
    _pool((1, 2, 2), [5, 5], [1, 1], [2, 2]),  # wider than the image
    _pool((1, 1, 3), [3, 3], [1, 1], [1, 1]),
    _pool((1, 3, 2), [4, 4], [2, 2], [2, 2], [1, 1], True),
    _pool((1, 6, 4), [3, 3], [1, 1], [1, 1], [2, 2]),  # rows of the window overlap in the flattened image
    _pool((1, 18, 18), [17, 17], [1, 1]),  # more than 256 pieces
    _pool((1, 3, 4, 4), [2, 2, 2]),
    _pool((1, 3, 4, 3), [2, 3, 2], [1, 2, 1], [1, 1, 0], [1, 1, 2], True),
    _adaptive_pool((2, 7), [3]),
    _adaptive_pool((2, 3), [5]),
    _adaptive_pool((1, 5, 7), [2, 3]),
    _adaptive_pool((1, 6, 6), [3, 1]),
    _adaptive_pool((1, 3, 4, 5), [2, 2, 3]),
]

DEFINITIONS = [*ELEMENTWISE, *PAIRS, *REDUCTIONS, *POOLS]
