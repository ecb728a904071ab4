"""Smooth scalar functions: where they bend, which lines they approach, and where samples are needed."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from maxaffine.errors import InputError

Function = Callable[[Tensor], Tensor]
Line = tuple[float, float]
"""Slope and offset."""

SAMPLES_PER_PIECE = 128


@dataclass(frozen=True)
class Smooth:
    """A smooth activation: the interval where it bends, and the lines that it approaches on both sides of it.

    Beyond the interval f minus its tail must be monotone and go to 0.
    """

    f: Function
    interval: tuple[float, float]
    tails: tuple[Line, Line] | None


ZERO, ONE, IDENTITY = (0.0, 0.0), (0.0, 1.0), (1.0, 0.0)
SMOOTH = {
    "sigmoid": Smooth(torch.sigmoid, (-25, 25), (ZERO, ONE)),
    "tanh": Smooth(torch.tanh, (-14, 14), ((0.0, -1.0), ONE)),
    "gelu": Smooth(F.gelu, (-8, 8), (ZERO, IDENTITY)),
    "gelu_tanh": Smooth(lambda x: F.gelu(x, approximate="tanh"), (-8, 8), (ZERO, IDENTITY)),
    "silu": Smooth(F.silu, (-28, 28), (ZERO, IDENTITY)),
    "softplus": Smooth(F.softplus, (-25, 25), (ZERO, IDENTITY)),
    "logsigmoid": Smooth(F.logsigmoid, (-25, 25), (IDENTITY, ZERO)),
    "elu": Smooth(F.elu, (-25, 1), ((0.0, -1.0), IDENTITY)),
    "mish": Smooth(F.mish, (-28, 28), (ZERO, IDENTITY)),
    "erf": Smooth(torch.erf, (-6, 6), ((0.0, -1.0), ONE)),
}
"""Smooth activations by name, as torch computes them (its softplus is x itself above 20)."""


def resolve(f: Function | str, interval: tuple[float, float] | None, tails: tuple[Line, Line] | None) -> Smooth:
    """The function with its interval and tails, checked."""
    if isinstance(f, str):
        if f not in SMOOTH:
            raise InputError(f"approximate: {f!r} is unknown: give one of {', '.join(SMOOTH)}, or a function")
        target = SMOOTH[f] if interval is None else Smooth(SMOOTH[f].f, interval, tails)
    elif interval is None or not interval[0] < interval[1]:
        raise InputError(f"approximate: interval={interval}: give (low, high) with low < high")
    else:
        target = Smooth(f, interval, tails)
    ends = torch.tensor(target.interval, dtype=torch.float64)
    beyond = torch.exp2(torch.arange(-6, 20, dtype=torch.float64)) * (ends[1] - ends[0])
    for end, sign, tail in zip(ends, (-1, 1), target.tails or (), strict=False):
        x = torch.cat([end[None], end + sign * beyond])
        gap = (target.f(x) - (tail[0] * x + tail[1])).abs()
        if not (gap.diff() <= 1e-15 * (1 + x[1:].abs())).all():
            raise InputError(f"approximate: f does not approach its tail {tail} steadily beyond {end.item():g}")
    return target


def derivative(f: Function, x: Tensor) -> Tensor:
    """f'(x) by autograd."""
    x = x.detach().clone().requires_grad_()
    value = f(x)
    (slope,) = torch.autograd.grad(value.sum(), x)
    if not (slope.isfinite().all() and value.isfinite().all()):
        raise InputError("approximate: f or its derivative is not finite on the interval: give a smaller one")
    return slope


def bends(target: Smooth) -> tuple[Tensor, Tensor]:
    """A first sampling x (P,) and sqrt(|f''|) dx of its cells (P - 1,), the density of the knots."""
    x = torch.linspace(*target.interval, 20001, dtype=torch.float64)
    slope = derivative(target.f, x)
    require_smooth(target.f, x, slope)
    return x, (slope.diff().abs() * x.diff()).sqrt()


def require_smooth(f: Function, x: Tensor, slope: Tensor) -> None:
    """Raise InputError where f jumps, has a pole, or bends more sharply than the samples x see; slope: f'(x).

    Across a cell f rises by a slope between those around it, but for an extremum of f' inside; and where f' changes
    most it changes no more than it did when the samples there are a thousand times as dense. A jump of less than 1e-6
    of the range of f passes: torch's softplus has one.
    """
    around = F.pad(slope[None], (1, 1), mode="replicate")
    high, low = (s * F.max_pool1d(s * around, 4, stride=1)[0] for s in (1, -1))
    change = F.pad(slope.diff().abs()[None], (1, 1), mode="replicate")[0]
    value, widths = f(x).detach(), x.diff()
    small = 1e-6 * (value.max() - value.min()) + 64 * torch.finfo(x.dtype).eps * value.abs().max()
    slack = torch.minimum(change[:-2], change[2:]) / 3 + small / widths
    beyond = torch.maximum(value.diff() / widths - high, low - value.diff() / widths) > slack
    worst = int(beyond.long().argmax()) if bool(beyond.any()) else int(slope.diff().abs().argmax())
    ends = x[[max(worst - 1, 0), min(worst + 2, len(x) - 1)]]
    changes = derivative(f, torch.linspace(float(ends[0]), float(ends[1]), 3001, dtype=x.dtype)).diff().abs().sum()
    if bool(beyond.any()) or float(changes) > 4 * float(change[worst : worst + 3].sum()):
        raise InputError(
            f"approximate: f jumps, has a pole or bends too sharply near {float(x[worst]):.6g}: "
            "give an interval without that point, or a narrower one"
        )


def samples(target: Smooth, pieces: int) -> Tensor:
    """Abscissas of the tube: about SAMPLES_PER_PIECE in each piece to come, a tenth of them evenly spread."""
    x, bend = bends(target)
    share = 0.9 * bend / bend.sum().clamp(min=1e-300) + 0.1 / len(bend)
    filled = torch.cat([share.new_zeros(1), share.cumsum(0)])
    even = np.linspace(0, float(filled[-1]), SAMPLES_PER_PIECE * pieces)
    found = torch.from_numpy(np.interp(even, filled.numpy(), x.numpy()))
    found[0], found[-1] = x[0], x[-1]
    return found
