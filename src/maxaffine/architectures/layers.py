"""The parts of the reference networks: residual blocks, and layers put together one by one."""

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from maxaffine.arguments import told
from maxaffine.errors import InputError

# A residual block as the authors changed it between January and February 2018.
ORDERS: Mapping[str, Sequence[str]] = {
    "january": ("norm1", "act1", "conv1", "norm2", "act2", "conv2"),
    "february": ("conv1", "norm1", "act1", "conv2", "norm2"),
}


class Abs(nn.Module):
    """Absolute value, |x|.

    >>> import torch
    >>> Abs()(torch.tensor([-2.0, 3.0]))
    tensor([2., 3.])
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return |x|."""
        return x.abs()


ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "abs": Abs}


@dataclass(frozen=True)
class Style:
    """What the layers of one network have in common: batch norm, biases, the activation's name."""

    batch_norm: bool
    bias: bool
    activation: str

    def __post_init__(self) -> None:
        check("activation", self.activation, ACTIVATIONS)
        for name, value in {"batch_norm": self.batch_norm, "bias": self.bias}.items():
            if not isinstance(value, bool):
                raise InputError(f"{name}={told(value)}; give True or False")

    @property
    def own_bias(self) -> bool:
        """Whether a layer in front of an activation has a bias; the shift of a batch norm takes its place."""
        return self.bias and not self.batch_norm

    def norm(self, width: int, kind: type[nn.BatchNorm1d] | type[nn.BatchNorm2d] = nn.BatchNorm2d) -> nn.Module:
        """Return a batch norm of ``width`` channels with the paper's settings."""
        return kind(width, momentum=0.01, eps=1e-3, bias=self.bias)

    def act(self) -> nn.Module:
        """Return a new activation."""
        return ACTIVATIONS[self.activation]()


class Residual(nn.Module):
    """A residual block, path(x) + skip(x), with no activation after the sum.

    The path has two 3 x 3 convolutions in the order of ``ORDERS[version]``. Without batch norm the first one has a
    bias and the second none, as in the authors' code. The skip is the identity, or a 1 x 1 convolution where the
    number of channels changes.
    """

    def __init__(self, channels: int, width: int, style: Style, version: str) -> None:
        super().__init__()
        parts = {
            "conv1": nn.Conv2d(channels, width, 3, padding=1, bias=style.own_bias),
            "conv2": nn.Conv2d(width, width, 3, padding=1, bias=False),
            "act1": style.act(),
            "act2": style.act(),
        }
        if style.batch_norm:
            parts |= {"norm1": style.norm({"january": channels}.get(version, width)), "norm2": style.norm(width)}
        self.path = nn.Sequential(OrderedDict((name, parts[name]) for name in ORDERS[version] if name in parts))
        self.skip = nn.Identity() if channels == width else nn.Conv2d(channels, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return path(x) + skip(x)."""
        return self.path(x) + self.skip(x)


class Layers:
    """Layers of a network in the making, with the size (channels, side, side) of what has been built so far."""

    def __init__(self, name: str, style: Style, channels: int, side: int) -> None:
        self.name, self.style, self.channels, self.side, self.given = name, style, channels, side, side
        self.layers: OrderedDict[str, nn.Module] = OrderedDict()
        for what, number in {"channels": channels, "side": side}.items():
            if type(number) is not int or number < 1:
                raise InputError(f"{name}: {what}={told(number)}; images have at least one")

    def add(self, name: str, layer: nn.Module) -> None:
        """Add a layer under the next free number of its name: conv1, conv2, ..."""
        number = 1 + sum(known.rstrip("0123456789") == name for known in self.layers)
        self.layers[f"{name}{number}"] = layer

    def resize(self, side: int) -> None:
        """Note the side of the next image."""
        if side < 1:
            small = "mlp takes any side, the residual networks 4 and more"
            raise InputError(f"{self.name}: images of side {self.given} are too small for it; {small}")
        self.side = side

    def conv(self, width: int, kernel: int, padding: int = 0, norm: bool = True) -> "Layers":
        """Convolution, batch norm, activation."""
        style = self.style if norm else replace(self.style, batch_norm=False)
        self.resize(self.side + 2 * padding - kernel + 1)
        self.add("conv", nn.Conv2d(self.channels, width, kernel, padding=padding, bias=style.own_bias))
        if style.batch_norm:
            self.add("norm", style.norm(width))
        self.add("act", style.act())
        self.channels = width
        return self

    def linear_conv(self, width: int) -> "Layers":
        """Convolution 3 x 3 that keeps the side, and nothing else."""
        self.add("conv", nn.Conv2d(self.channels, width, 3, padding=1, bias=self.style.bias))
        self.channels = width
        return self

    def pool(self, window: int) -> "Layers":
        """Maximum over windows that do not overlap; what is left over at the right and below is not seen."""
        self.resize(self.side // window)
        self.add("pool", nn.MaxPool2d(window))
        return self

    def blocks(self, width: int, number: int, version: str) -> "Layers":
        """Residual blocks; if the first changes the number of channels, an average pooling by 2 follows it."""
        for _ in range(number):
            self.add("block", Residual(self.channels, width, self.style, version))
            if self.channels != width:
                self.resize(self.side // 2)
                self.add("mean", nn.AvgPool2d(2))
            self.channels = width
        return self

    def average(self) -> "Layers":
        """Mean over the image."""
        self.layers["average"] = nn.AdaptiveAvgPool2d(1)
        self.side = 1
        return self

    def dense(self, width: int) -> "Layers":
        """Dense layer, batch norm, activation."""
        self.add("dense", nn.Linear(self.flat(), width, bias=self.style.own_bias))
        if self.style.batch_norm:
            self.add("norm", self.style.norm(width, nn.BatchNorm1d))
        self.add("act", self.style.act())
        self.channels = width
        return self

    def flat(self) -> int:
        """Make a vector of the image, once, and return its length."""
        self.layers.setdefault("flatten", nn.Flatten())
        self.channels, self.side = self.channels * self.side**2, 1
        return self.channels

    def head(self, classes: int, bias: bool) -> nn.Sequential:
        """Return the network, ended by the linear classifier, with its first weights."""
        if type(classes) is not int or classes < 1:
            raise InputError(f"{self.name}: classes={told(classes)}; give at least 1")
        size = self.flat()
        self.layers["head"] = nn.Linear(size, classes, bias=bias and self.style.bias)
        return initialise(nn.Sequential(self.layers))


def initialise(model: nn.Sequential) -> nn.Sequential:
    """Draw weights of linear and convolutional layers Xavier uniform, set biases to 0; returns the model.

    U(-a, a) with a = sqrt(6 / (fan in + fan out)), from torch's random generator.
    """
    for layer in model.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return model


def check(what: str, given: str, known: Collection[str]) -> None:
    """Refuse a name that is not one of the known ones."""
    if not isinstance(given, str) or given not in known:
        raise InputError(f"{what}={given!r}: give one of {', '.join(known)}")
