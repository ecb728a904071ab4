r"""
The plane through a 3, a 5 and an 8
===================================

Three images span a plane in the 784-dimensional space of MNIST images. Here is everything that a network does on it:
all its cells, and the exact boundary between its answers, straight within each cell.

This example needs MNIST: it runs where ``MAXAFFINE_ASSETS`` names a folder with ``data/mnist/*-ubyte.gz``.
"""

# %%
# A network 784-100-100-100-10, trained on 20,000 images in a few seconds.
import os
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from torch import nn

import maxaffine as ma
from maxaffine import plot
from maxaffine.data import read

folder = Path(os.environ["MAXAFFINE_ASSETS"]) / "data" / "mnist"


def images(name: str, limit: int) -> tuple[torch.Tensor, torch.Tensor]:
    data = read(folder / f"{name}-images-idx3-ubyte.gz", folder / f"{name}-labels-idx1-ubyte.gz", limit)
    return torch.tensor(data.inputs).flatten(1) / 255, torch.tensor(data.labels)


x, y = images("train", 20_000)
torch.manual_seed(0)
net = nn.Sequential(
    *(nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU()),
    *(nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 10)),
)
optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
for _ in range(6):
    for batch in torch.randperm(len(x)).split(100):
        loss = nn.functional.cross_entropy(net(x[batch]), y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
test_x, test_y = images("t10k", 10_000)
print(f"test accuracy {(net(test_x).argmax(1) == test_y).float().mean():.3f}")

# %%
# The partition of a square around three test images, each the first of its class that is read rightly. They stand
# where they lie in the plane.
right = net(test_x).argmax(1) == test_y
three, five, eight = (test_x[right & (test_y == digit)][0].double() for digit in (3, 5, 8))
anchors = torch.stack([three, five, eight])
plane = ma.partition(ma.Spline(net.double(), anchors), ma.Plane.through(three, five, eight))
axis = plot.partition(plane, "class", boundary=True, points=anchors)
for image, place in zip(anchors, plane.plane.coordinates(anchors), strict=True):
    picture = OffsetImage(image.reshape(28, 28).numpy(), zoom=1.7, cmap="gray_r")
    beside = (0, 36 if place[1] > 0 else -36)
    axis.add_artist(AnnotationBbox(picture, tuple(place), beside, boxcoords="offset points", pad=0.15))
plt.show()

# %%
# The largest output is the answer. On the boundary the two largest are equal, whatever the precision of the picture.
line = max(plane.level_set(3, 8), key=len)
scores = net(plane.embed(line))
gap = (scores[:, 3] - scores[:, 8]).abs().max()
print(f"{len(plane):,} cells; on the line where outputs 3 and 8 tie they differ by at most {gap:.0e}")
