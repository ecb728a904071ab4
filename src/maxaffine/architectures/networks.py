"""The networks themselves, one function each; their arguments are explained on the page of the package."""

from collections.abc import Callable, Mapping, Sequence

from torch import nn

from maxaffine.architectures.layers import ORDERS, Layers, Style, check
from maxaffine.errors import InputError

HEADS = ("flat", "average", "pool")


def small_cnn(
    classes: int = 10,
    channels: int = 3,
    side: int = 32,
    *,
    version: str = "february",
    batch_norm: bool = True,
    bias: bool = True,
    activation: str = "relu",
) -> nn.Sequential:
    """smallCNN: the network of the gamma sweeps (January) or of templates and distances (February).

    January: conv5 x 32, pool 2, conv5 x 64, pool 2, dense; February: conv3 x 32, pool 2, conv3 x 64, pool 2,
    conv1 x 128, pool 2, dense without bias. Convolutions are not padded.

    Raises:
        InputError: an unknown version or activation, or images too small for the network.
    """
    check("version", version, ORDERS)
    layers = Layers("small_cnn", Style(batch_norm, bias, activation), channels, side)
    if version == "january":
        return layers.conv(32, 5).pool(2).conv(64, 5).pool(2).head(classes, bias=True)
    return layers.conv(32, 3).pool(2).conv(64, 3).pool(2).conv(128, 1).pool(2).head(classes, bias=False)


def large_cnn(
    classes: int = 10,
    channels: int = 3,
    side: int = 32,
    *,
    head: str = "pool",
    batch_norm: bool = True,
    bias: bool = True,
    activation: str = "relu",
) -> nn.Sequential:
    """largeCNN: nine convolutions, 96 and 192 wide, the last one 1 x 1 without batch norm.

    ``head`` is what follows: "flat" (January: dense with bias), "average" (early February: mean over the image,
    dense with bias) or "pool" (from 21 February: pool 2, dense without bias).

    >>> large_cnn(classes=100, head="average").head
    Linear(in_features=192, out_features=100, bias=True)

    Raises:
        InputError: an unknown head or activation, or images too small for the network.
    """
    check("head", head, HEADS)
    layers = Layers("large_cnn", Style(batch_norm, bias, activation), channels, side)
    layers.conv(96, 3, padding=1).conv(96, 3, padding=2).conv(96, 3, padding=2).pool(2)
    layers.conv(192, 3).conv(192, 3, padding=2).conv(192, 3).pool(2).conv(192, 3).conv(192, 1, norm=False)
    finish: Mapping[str, Callable[[], Layers]] = {"average": layers.average, "pool": lambda: layers.pool(2)}
    finish.get(head, lambda: layers)()
    return layers.head(classes, bias=head != "pool")


def dense_cnn(
    classes: int = 10,
    channels: int = 3,
    side: int = 32,
    *,
    batch_norm: bool = True,
    bias: bool = True,
    activation: str = "relu",
) -> nn.Sequential:
    """DenseCNN, the network of the template histograms: conv3 x 32, pool 2, conv3 x 64, pool 2, dense 128, dense.

    Batch norm follows the dense layer too; the last one has no bias.

    Raises:
        InputError: an unknown activation, or images too small for the network.
    """
    layers = Layers("dense_cnn", Style(batch_norm, bias, activation), channels, side)
    return layers.conv(32, 3).pool(2).conv(64, 3).pool(2).dense(128).head(classes, bias=False)


def memory_cnn(
    classes: int = 10,
    channels: int = 3,
    side: int = 32,
    *,
    batch_norm: bool = True,
    bias: bool = True,
    activation: str = "relu",
) -> nn.Sequential:
    """denseCNN, the network that memorizes random labels: conv3 x 32, pool 4, dense 512, dense without bias.

    (The authors' names denseCNN and DenseCNN differ in one letter; `dense_cnn` is the other.)

    Raises:
        InputError: an unknown activation, or images too small for the network.
    """
    layers = Layers("memory_cnn", Style(batch_norm, bias, activation), channels, side)
    return layers.conv(32, 3).pool(4).dense(512).head(classes, bias=False)


def small_resnet(
    classes: int = 10,
    channels: int = 3,
    side: int = 32,
    *,
    version: str = "february",
    batch_norm: bool = True,
    bias: bool = True,
    activation: str = "relu",
) -> nn.Sequential:
    """smallRESNET: as `resnet_large` with 2 + 2 + 2 blocks of width 16, 32, 64.

    Raises:
        InputError: an unknown version or activation, or images too small for the network.
    """
    layers = Layers("small_resnet", Style(batch_norm, bias, activation), channels, side)
    return _resnet(layers, classes, (16, 32, 64), 2, version)


def resnet_large(
    classes: int = 10,
    channels: int = 3,
    side: int = 32,
    *,
    version: str = "february",
    batch_norm: bool = True,
    bias: bool = True,
    activation: str = "relu",
) -> nn.Sequential:
    """resnet_large: a linear conv3 x 32, 12 + 12 + 12 blocks of width 32, 64, 128, the mean over the image, dense.

    The first block of a wider group is a transition: a 1 x 1 convolution as skip, and a 2 x 2 average pooling of
    the sum. ``version`` is the order inside a block (`Residual`); the dense layer has a bias in January only.

    Raises:
        InputError: an unknown version or activation, or images too small for the network.
    """
    layers = Layers("resnet_large", Style(batch_norm, bias, activation), channels, side)
    return _resnet(layers, classes, (32, 64, 128), 12, version)


def _resnet(layers: Layers, classes: int, widths: Sequence[int], depth: int, version: str) -> nn.Sequential:
    check("version", version, ORDERS)
    layers.linear_conv(widths[0])
    for width in widths:
        layers.blocks(width, depth, version)
    return layers.average().head(classes, bias=version == "january")


def mlp(
    classes: int = 10,
    channels: int = 1,
    side: int = 28,
    *,
    widths: Sequence[int] = (512, 512, 512),
    batch_norm: bool = False,
    bias: bool = True,
    activation: str = "relu",
) -> nn.Sequential:
    """Dense layers on flattened images, 784-512-512-512-10 unless told otherwise.

    >>> [layer.out_features for layer in mlp(widths=(8, 4), side=8) if isinstance(layer, nn.Linear)]
    [8, 4, 10]

    Raises:
        InputError: an unknown activation, or a width below 1.
    """
    layers = Layers("mlp", Style(batch_norm, bias, activation), channels, side)
    if not isinstance(widths, Sequence) or not all(isinstance(width, int) and width >= 1 for width in widths):
        raise InputError(f"mlp: widths={ascii(widths)[:60]}; give whole numbers, each at least 1")
    for width in widths:
        layers.dense(width)
    return layers.head(classes, bias=True)


ARCHITECTURES: Mapping[str, Callable[..., nn.Sequential]] = {
    builder.__name__: builder
    for builder in (small_cnn, large_cnn, dense_cnn, memory_cnn, small_resnet, resnet_large, mlp)
}
