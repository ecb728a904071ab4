r"""
The exact outline of a shape
============================

A network that was trained to return the signed distance to a surface holds that surface as its zero set. The network
is piecewise affine, so on any plane the zero set consists of straight pieces, one for each cell that it crosses: it
can be written down exactly, as a polyline that closes.

This example needs trained distance networks: it runs where ``MAXAFFINE_ASSETS`` names a folder with
``nets/sdf/2_4x32_relu_bunny.pt`` and ``nets/sdf/3_3x16_relu_bunny.pt``.
"""

# %%
# Two ReLU networks, one of two inputs (the silhouette of the Stanford bunny), one of three (the bunny itself).
import os
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch import nn

import maxaffine as ma
from maxaffine import plot

folder = Path(os.environ["MAXAFFINE_ASSETS"]) / "nets" / "sdf"


def network(name: str) -> nn.Module:
    """Linear layers with ReLU in between, from the file that holds their weights and biases in turn."""
    tensors = list(torch.load(folder / name, map_location="cpu", weights_only=True).values())
    layers = []
    for weight, bias in zip(tensors[::2], tensors[1::2], strict=True):
        linear = nn.Linear(weight.shape[1], weight.shape[0])
        linear.load_state_dict({"weight": weight, "bias": bias})
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1]).double()


# %%
# The plane of the first network is its whole input space. Of the second: sections in which the third coordinate
# has a given value.
flat, solid = network("2_4x32_relu_bunny.pt"), network("3_3x16_relu_bunny.pt")
e1, e2 = torch.eye(2, dtype=torch.float64)
silhouette = ma.partition(ma.Spline(flat, e1[None]), ma.Plane.square(0 * e1, e1, e2))
x, y, z = torch.eye(3, dtype=torch.float64)
spline = ma.Spline(solid, x[None])
heights = (0.0, 0.1, 0.2)
sections = [ma.partition(spline, ma.Plane.square(height * z, x, y)) for height in heights]

# %%
# Blue: inside. The cells are small near the outline, where the distance has to bend, and large far away.
axis = plot.partition(silhouette, "class", boundary=True)
plt.show()

# %%
# Every polyline closes, and the network vanishes on it up to rounding.
for net, plane in [(flat, silhouette), *((solid, section) for section in sections)]:
    for line in plane.level_set(0):
        assert (line[0] == line[-1]).all()
        worst = net(plane.embed(line)).abs().max()
        print(f"outline of {len(line) - 1} straight pieces, largest |f| on it {worst:.0e}")

# %%
# Three sections of the solid.
titles = [f"z = {h}: {len(plane):,} cells" for h, plane in zip(heights, sections, strict=True)]
plot.training(sections, titles, colour="class", columns=3)
plt.show()
