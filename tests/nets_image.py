"""Small networks on images, signals and volumes: convolutions, poolings, resizing, generators."""

from __future__ import annotations

import torch
from net import Net, Of
from torch import Tensor, nn
from torch.nn import functional as F


def cnn() -> nn.Module:
    """Convolution, batch norm, ReLU, max pooling, twice; a linear head."""
    first = [nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)]
    second = [nn.Conv2d(4, 3, 3, bias=False), nn.BatchNorm2d(3), nn.ReLU(inplace=True), nn.AvgPool2d(2)]
    return nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(3, 2))


def functional(m: Of, x: Tensor) -> Tensor:
    """Pooling and activation as functions, ending in global pooling by mean."""
    return m.b(F.relu(F.max_pool2d(m.a(x), 2))).mean((2, 3))


def pooled(**pool: object) -> nn.Module:
    """A convolution and a max pooling with the given settings."""
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.MaxPool2d(**pool), nn.Flatten(), nn.LazyLinear(2))


def pool_net(name: str, **pool: object) -> Net:
    """As `pooled` on 2 x 8 x 8 images; LazyLinear is given its size first."""

    def build() -> nn.Module:
        net = pooled(**pool)
        net(torch.zeros(1, 2, 8, 8))
        return net

    return Net(name, build, (2, 8, 8))


def block(m: Of, x: Tensor) -> Tensor:
    """A residual block with batch norm, an in-place sum, and an option A shortcut."""
    y = m.bn2(m.b(F.relu(m.bn1(m.a(x)))))
    y += F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 1))
    return F.relu(y).flatten(1)


def padded(m: Of, x: Tensor) -> Tensor:
    """Reflection, replication, circular and constant padding, and a crop."""
    x = F.pad(x, (1, 1, 1, 1), mode="reflect")
    x = F.pad(m.a(x), (1, 0, 0, 1), mode="replicate")
    return F.relu(F.pad(F.pad(x, (0, 1, 1, 0), mode="circular"), (0, -1, 1, 0), value=0.5)).sum((1, 2))


def resized(m: Of, x: Tensor) -> Tensor:
    """Nearest, bilinear and bicubic interpolation."""
    x = F.relu(m.a(F.interpolate(x, scale_factor=2, mode="nearest")))
    x = F.interpolate(x, size=(5, 4), mode="bilinear", align_corners=True)
    return F.relu(F.interpolate(x - 0.2, size=3, mode="bicubic", align_corners=False))


def unfolded(m: Of, x: Tensor) -> Tensor:
    """im2col and col2im around a ReLU."""
    columns = F.relu(F.unfold(x, 3, padding=1) - 0.2)
    return F.fold(columns, (4, 4), 3, padding=1)


def generator() -> nn.Module:
    """A latent vector to a 1 x 8 x 8 image by transposed convolutions."""
    up = [nn.ConvTranspose2d(3, 4, 4, 2, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.ConvTranspose2d(4, 1, 4, 2, 1)]
    return nn.Sequential(nn.Linear(5, 12), nn.ReLU(), nn.Unflatten(1, (3, 2, 2)), *up)


IMAGE_NETS = [
    Net("cnn", cnn, (2, 8, 8)),
    Net("functional_cnn", lambda: Of(functional, a=nn.Conv2d(2, 4, 3), b=nn.Conv2d(4, 3, 2)), (2, 8, 8)),
    pool_net("pool_overlapping", kernel_size=3, stride=2),
    pool_net("pool_padded", kernel_size=3, stride=2, padding=1),
    pool_net("pool_dilated", kernel_size=2, stride=1, dilation=2),
    pool_net("pool_ceil", kernel_size=3, stride=2, ceil_mode=True, padding=1),
    pool_net("pool_whole", kernel_size=6, stride=1),
    pool_net("pool_oblong", kernel_size=(1, 3), stride=(2, 1)),
    Net(
        "adaptive_max",
        lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveMaxPool2d((2, 3)), nn.Flatten()),
        (1, 7, 6),
    ),
    Net(
        "adaptive_mean",
        lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool2d((2, 3))),
        (1, 7, 6),
    ),
    Net(
        "resnet_block",
        lambda: Of(
            block,
            a=nn.Conv2d(2, 4, 3, 2, 1),
            b=nn.Conv2d(4, 4, 3, 1, 1),
            bn1=nn.BatchNorm2d(4),
            bn2=nn.BatchNorm2d(4),
        ),
        (2, 6, 6),
    ),
    Net("padded", lambda: Of(padded, a=nn.Conv2d(1, 2, 3)), (1, 4, 4)),
    Net(
        "padding_modes",
        lambda: nn.Sequential(
            nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular"),
            nn.ReLU(),
            nn.Conv2d(2, 1, 3, padding="same"),
        ),
        (1, 5, 5),
    ),
    Net("resized", lambda: Of(resized, a=nn.Conv2d(1, 2, 3)), (1, 3, 3)),
    Net("unfolded", lambda: Of(unfolded), (1, 4, 4)),
    Net("generator", generator, (5,)),
    Net(
        "pixel_shuffle",
        lambda: nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.PixelShuffle(2), nn.Conv2d(2, 1, 2)),
        (1, 5, 5),
    ),
    Net(
        "grouped",
        lambda: nn.Sequential(
            nn.Conv2d(4, 4, 3, groups=2),
            nn.ReLU(),
            nn.Conv2d(4, 8, 2, groups=4, dilation=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32, 2),
        ),
        (4, 6, 6),
    ),
    Net(
        "transposed_grouped",
        lambda: nn.Sequential(
            nn.ConvTranspose2d(4, 4, 3, stride=2, padding=1, output_padding=1, groups=2, dilation=2),
            nn.ReLU(),
            nn.Conv2d(4, 1, 2),
        ),
        (4, 2, 3),
    ),
    Net(
        "conv1d",
        lambda: nn.Sequential(
            nn.Conv1d(2, 4, 3, stride=2),
            nn.ReLU(),
            nn.MaxPool1d(2),
            nn.ConvTranspose1d(4, 2, 2),
            nn.AvgPool1d(2),
        ),
        (2, 11),
    ),
    Net(
        "conv3d",
        lambda: nn.Sequential(
            nn.Conv3d(1, 2, 2), nn.BatchNorm3d(2), nn.ReLU(), nn.MaxPool3d(2), nn.Flatten(), nn.Linear(2, 2)
        ),
        (1, 4, 3, 4),
    ),
    Net(
        "blank",
        lambda: nn.Sequential(
            nn.ZeroPad2d(3), nn.Conv2d(1, 2, 3, padding=1), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32, 2)
        ),
        (1, 2, 2),
        ties=True,
    ),
]
