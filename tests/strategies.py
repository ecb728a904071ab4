"""Hypothesis strategies that draw architectures (kinds, widths and order of layers, skips, branches) and slices."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import exact_partition as exact
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from maxaffine.slice import Plane

Shape = tuple[int, ...]
Draw = Callable[..., object]


class Skip(nn.Module):
    """body(x) + x, added in place."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        y += x
        return y


class Joined(nn.Module):
    """Two branches of the same input, concatenated (on channels), or their maximum or minimum."""

    def __init__(self, left: nn.Module, right: nn.Module, how: str) -> None:
        super().__init__()
        self.left, self.right, self.how = left, right, how

    def extra_repr(self) -> str:
        return self.how

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.left(x), self.right(x)
        if self.how == "cat":
            return torch.cat((a, b), 1)
        return torch.maximum(a, b) if self.how == "maximum" else torch.minimum(a, b)


class Maxout(nn.Module):
    """The maximum over groups of channels."""

    def __init__(self, pieces: int) -> None:
        super().__init__()
        self.pieces = pieces

    def extra_repr(self) -> str:
        return str(self.pieces)

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (-1, self.pieces)).amax(2)


class Twice(nn.Module):
    """The same body called twice."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self.body(x))


@dataclass(frozen=True)
class Drawn:
    """A drawn network in float64 and eval mode, and the shape (*in) of its inputs."""

    model: nn.Module
    shape: Shape


ACTIVATIONS: tuple[Callable[[], nn.Module], ...] = (
    nn.ReLU,
    lambda: nn.ReLU(inplace=True),
    lambda: nn.LeakyReLU(0.2),
    lambda: nn.PReLU(1, 0.3),
    nn.ReLU6,
    lambda: nn.Hardtanh(-0.6, 0.9),
    nn.Hardsigmoid,
    lambda: nn.Softshrink(0.2),
    lambda: nn.Threshold(0.1, 0.1),
)
HOW = ("cat", "maximum", "minimum")


def shape_after(layer: nn.Module, shape: Shape) -> Shape | None:
    """The shape (*out) of a layer's output, None where the layer does not fit or is over 400 numbers."""
    try:
        out = tuple(layer.double().eval()(torch.zeros(2, *shape, dtype=torch.float64)).shape[1:])
    except (RuntimeError, ValueError):
        return None
    return out if 0 < math.prod(out) <= 400 else None


def same_width(shape: Shape) -> nn.Module:
    """A layer that keeps the shape: linear on vectors, a padded convolution on images."""
    if len(shape) == 1:
        return nn.Linear(shape[0], shape[0])
    return nn.Conv2d(shape[0], shape[0], 3, padding=1)


def vector_layer(draw: Draw, shape: Shape) -> nn.Module:
    """A linear layer, a maxout, a batch norm or dropout on vectors."""
    kind = draw(st.sampled_from(("linear", "linear", "no bias", "maxout", "norm", "dropout")))
    width = draw(st.integers(1, 8))
    if kind == "maxout":
        return nn.Sequential(nn.Linear(shape[0], 3 * width), Maxout(3))
    if kind == "norm":
        return nn.BatchNorm1d(shape[0])
    return nn.Dropout(0.3) if kind == "dropout" else nn.Linear(shape[0], width, bias=kind == "linear")


def image_layer(draw: Draw, shape: Shape) -> nn.Module:
    """A convolution, a pooling, a resizing or a norm on images."""
    kind = draw(st.sampled_from(("conv", "conv", "max", "adaptive", "mean", "norm", "transposed", "up", "pad")))
    k, stride, dilation = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    padding = draw(st.integers(0, 1)) if k > 1 else 0
    channels = draw(st.integers(1, 3))
    layers: dict[str, Callable[[], nn.Module]] = {
        "conv": lambda: nn.Conv2d(shape[0], channels, k, stride, padding, dilation),
        "max": lambda: nn.MaxPool2d(k, stride, padding, dilation, ceil_mode=draw(st.booleans())),
        "adaptive": lambda: nn.AdaptiveMaxPool2d((k, stride)),
        "mean": lambda: nn.AvgPool2d(k, stride, padding, count_include_pad=draw(st.booleans())),
        "norm": lambda: nn.BatchNorm2d(shape[0]),
        "transposed": lambda: nn.ConvTranspose2d(shape[0], channels, k, stride, padding),
        "up": lambda: nn.Upsample(scale_factor=2, mode=draw(st.sampled_from(("nearest", "bilinear")))),
        "pad": lambda: draw(st.sampled_from((nn.ReflectionPad2d, nn.ReplicationPad2d, nn.ZeroPad2d)))(1),
    }
    return layers[kind]()


def composite(draw: Draw, shape: Shape) -> nn.Module:
    """An activation, a skip, two joined branches, or a body called twice."""
    kind = draw(st.sampled_from(("activation", "activation", "skip", "join", "twice")))
    activation = draw(st.sampled_from(ACTIVATIONS))()
    if kind == "activation":
        return activation
    body = nn.Sequential(same_width(shape), activation, same_width(shape))
    if kind == "skip":
        return Skip(body)
    return Joined(body, same_width(shape), draw(st.sampled_from(HOW))) if kind == "join" else Twice(body)


def seeded(model: nn.Module, seed: int) -> nn.Module:
    """Reproducible weights and batch-norm statistics, float64, eval mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.double().state_dict().items():
            if tensor.is_floating_point():
                scale = 1.5 / math.sqrt(max(tensor[0].numel(), 1)) if tensor.dim() > 1 else 0.5
                tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype) * scale)
                if name.endswith("running_var"):
                    tensor.abs_().add_(0.5)
    return model.eval()


@st.composite
def networks(draw: Draw) -> Drawn:
    """A network on vectors or images of up to six drawn layers and a linear head."""
    image = draw(st.booleans())
    shape: Shape = tuple(draw(st.integers(3, 7)) for _ in range(2)) if image else ()
    start = shape = (draw(st.integers(1, 3 if image else 5)), *shape)
    layers: list[nn.Module] = []
    for _ in range(draw(st.integers(1, 6))):
        rule = composite if draw(st.booleans()) else image_layer if image else vector_layer
        layer = rule(draw, shape)
        after = shape_after(layer, shape)
        if after is not None:
            layers.append(layer)
            shape = after
    layers += [nn.Flatten(), nn.Linear(math.prod(shape), draw(st.integers(1, 3)))]
    return Drawn(seeded(nn.Sequential(*layers), draw(st.integers(0, 2**16))), start)


POLYGONS: dict[str, list[tuple[float, float]]] = {
    "square": [(-1, -1), (1, -1), (1, 1), (-1, 1)],
    "triangle": [(-1, -1), (1, -0.75), (-0.25, 1)],
    "pentagon": [(-0.5, -1), (0.75, -1), (1, 0.25), (0, 1), (-1, 0.125)],
    "sliver": [(-1, -0.125), (1, 0), (1, 0.0625), (-0.75, 0.125)],
}


@st.composite
def slices(draw: Draw, shape: Shape) -> Plane:
    """A polygon in a random plane of the input space, small or large, near the origin or through it."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    origin, u, v = torch.randn(3, *shape, generator=generator, dtype=torch.float64)
    reach = draw(st.sampled_from((0.03, 0.1, 0.3))) / math.sqrt(max(1.0, math.prod(shape) / 2))
    corners = POLYGONS[draw(st.sampled_from(sorted(POLYGONS)))]
    return Plane.polygon(origin * draw(st.sampled_from((1.0, 0.3, 0.0))), reach * u, reach * v, corners)


@dataclass(frozen=True)
class Tiny:
    """A network of fractions and a polygon in a plane of its input space, whose numbers float64 holds exactly."""

    layers: tuple[exact.Layer, ...]
    corners: list[tuple[float, float]]
    axes: tuple[tuple[Fraction, ...], ...]  # origin, u, v

    @property
    def plane(self) -> Plane:
        """The polygon as the package takes it."""
        origin, u, v = (torch.tensor([float(c) for c in axis], dtype=torch.float64) for axis in self.axes)
        return Plane.polygon(origin, u, v, self.corners)


@st.composite
def tiny_networks(draw: Draw, denominator: int) -> Tiny:
    """Up to three cutting layers of up to six units, all numbers k / denominator in [-2, 2]: 1 or 2 is degenerate."""

    generator = random.Random(draw(st.integers(0, 2**16)))

    def numbers(count: int) -> tuple[Fraction, ...]:
        return tuple(Fraction(generator.randint(-2 * denominator, 2 * denominator), denominator) for _ in range(count))

    def dense(out: int, into: int) -> exact.Linear:
        bias = numbers(out) if draw(st.booleans()) else (Fraction(0),) * out
        return exact.Linear(tuple(numbers(into) for _ in range(out)), bias)

    into = width = draw(st.integers(2, 3))
    layers: list[exact.Layer] = []
    for _ in range(draw(st.integers(1, 3))):
        added, width = tiny_block(draw, dense, width)
        layers += added
    layers.append(dense(draw(st.integers(1, 2)), width))
    axes = tuple(numbers(into) for _ in range(3))
    if all(axes[1][i] * axes[2][j] == axes[1][j] * axes[2][i] for i in range(into) for j in range(i)):
        unit = [tuple(Fraction(int(i == j)) for i in range(into)) for j in range(2)]
        axes = (axes[0], *unit)
    return Tiny(tuple(layers), POLYGONS[draw(st.sampled_from(sorted(POLYGONS)))], axes)


def tiny_block(draw: Draw, dense: Callable[[int, int], exact.Linear], width: int) -> tuple[list[exact.Layer], int]:
    """A linear layer and one operator after it, a pair of branches, or one layer twice; with the width behind it."""
    kind = draw(st.sampled_from(("ramp", "ramp", "maxout", "pool", "branches", "twice")))
    ramp = exact.Ramp(draw(st.sampled_from(sorted(exact.RAMPS))))
    units = draw(st.integers(1, 6))
    if kind == "maxout":
        return [dense(2 * units, width), exact.grouped(2 * units, 2, draw(st.sampled_from((1, -1))))], units
    if kind == "pool":
        wide = units + 2
        pool = exact.pooled(wide, draw(st.integers(2, 3)), draw(st.integers(1, 2)), draw(st.integers(0, 1)))
        return [dense(wide, width), pool], len(pool.windows)
    if kind == "twice":
        same = dense(units, units)
        return [dense(units, width), same, ramp, same, ramp], units
    if kind == "branches":
        how = draw(st.sampled_from(("sum", "cat", "maximum", "minimum")))
        left, right = (dense(units, width), ramp), (dense(units, width),)
        return [exact.Two(left, right, how)], 2 * units if how == "cat" else units
    return [dense(units, width), ramp], units
