r"""
A square near an image, through a ResNet-20
===========================================

A ResNet-20 for CIFAR-10 has 188,416 units, and its cells are tiny: a square whose sides are two thousandths
of the distance between two images holds thousands of them. Only a few hundred units can switch there;
bounds prove that no other does, and the partition is found in seconds.

This example needs the ResNet-20 and the images of CIFAR-10: it runs where ``MAXAFFINE_ASSETS`` names a folder with
``nets/cifar10/resnet20-12fca82f.th`` and ``data/cifar10/cifar10_batch_50.png``.
"""

# %%
# The network, as it is commonly written, with the trained weights of Y. Idelbayev's *pytorch_resnet_cifar10*.
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

import maxaffine as ma
from maxaffine import plot

assets = Path(os.environ["MAXAFFINE_ASSETS"])


class Block(nn.Module):
    """Two convolutions, and a shortcut that pads the channels with zeros."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.stride, self.extra = (1, 0) if inside == outside else (2, inside // 2)
        self.conv1 = nn.Conv2d(inside, outside, 3, self.stride, 1, bias=False)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(outside), nn.BatchNorm2d(outside)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        pixels = x[:, :, :: self.stride, :: self.stride]
        return F.relu(y + F.pad(pixels, (0, 0, 0, 0, self.extra, self.extra)))


class ResNet20(nn.Module):
    """Nineteen convolutions and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(Block(16, 16), Block(16, 16), Block(16, 16))
        self.layer2 = nn.Sequential(Block(16, 32), Block(32, 32), Block(32, 32))
        self.layer3 = nn.Sequential(Block(32, 64), Block(64, 64), Block(64, 64))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))
        return self.linear(x.mean((2, 3)))


file = assets / "nets/cifar10/resnet20-12fca82f.th"
weights = torch.load(file, map_location="cpu", weights_only=True)["state_dict"]
net = ResNet20().eval()
net.load_state_dict({name.removeprefix("module."): w for name, w in weights.items()})

# %%
# Three test images, the plane through them, and in it a square around the first.
page = np.array(Image.open(assets / "data/cifar10/cifar10_batch_50.png"))
photos = page.reshape(1000, 32, 32, 3)[:3]
mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
x = ((torch.tensor(photos) / 255 - mean) / std).permute(0, 3, 1, 2).double()
spline = ma.Spline(net.double(), x)
whole = ma.Plane.through(x[0], x[1], x[2])


def square(share: float) -> ma.Plane:
    """A square around the first image; 1 is the width of that around all three."""
    return ma.Plane.square(x[0], share * whole.u, share * whole.v)


plane = ma.partition(spline, square(0.0012))
units = sum(operator.units for operator in spline.operators)
switching = {unit for edge in plane.edge_units for unit in edge}  # (operator, unit)
print(f"{len(plane):,} cells; {len(switching)} of {units:,} units switch in the square")

# %%
# The norm of the slope on each cell. Long straight lines come from early layers, a few of which matter much; between
# them lie the thousands of cells that the later layers make.
axis = plot.partition(plane, "slope")
axis.set_title(f"{len(plane):,} cells around the image of a cat")
plt.show()

# %%
# The middle of it, four times as large, with the edges of all cells.
middle = ma.partition(spline, square(0.0003))
plot.partition(middle)
plt.show()
