r"""
A partition in training
=======================

A ReLU network with two inputs cuts the plane into convex cells and is affine on each of them. Training moves the
cells: they crowd where the function has to bend, and the line :math:`f = 0` that separates the two classes turns at
their edges and nowhere else. Every picture here is exact: no grid, no sampling.
"""

# %%
# Two moons, a network 2-24-24-1, and the part of the plane to look at. The partition is taken before training and
# after 20, 60 and 400 steps.
import matplotlib.pyplot as plt
import torch
from sklearn.datasets import make_moons
from torch import nn

import maxaffine as ma
from maxaffine import plot

points, labels = make_moons(300, noise=0.12, random_state=0)
x, y = torch.tensor(points), torch.tensor(labels, dtype=torch.float64)
window = ma.Plane.polygon(
    torch.zeros(2),
    torch.tensor([1.0, 0.0]),
    torch.tensor([0.0, 1.0]),
    [(-1.7, -1.2), (2.7, -1.2), (2.7, 1.7), (-1.7, 1.7)],
)

torch.manual_seed(1)
net = nn.Sequential(
    *(nn.Linear(2, 24), nn.ReLU()),
    *(nn.Linear(24, 24), nn.ReLU()),
    nn.Linear(24, 1),
).double()
spline = ma.Spline(net, x)  # follows the weights of the network
optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
snapshots = {0: ma.partition(spline, window)}
for step in range(1, 401):
    loss = nn.functional.binary_cross_entropy_with_logits(net(x)[:, 0], y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step in (20, 60, 400):
        snapshots[step] = ma.partition(spline, window)

# %%
# The strip of snapshots. Blue: :math:`f < 0`, orange: :math:`f > 0`; shades tell the cells apart.
titles = [f"step {step}: {len(plane):,} cells" for step, plane in snapshots.items()]
planes = list(snapshots.values())
plot.training(planes, titles, colour="class", points=x, labels=labels, columns=2)
plt.show()

# %%
# How steep the trained network is on each cell.
trained = snapshots[400]
plot.partition(trained, "slope", boundary=True)
plt.show()

# %%
# How the partition is built up: the first layer draws straight lines, the second adds lines that bend where they
# cross those.
plot.layers(trained)
plt.show()

# %%
# The line :math:`f = 0` as the corners where it bends; the network is 0 on all of it.
for line in trained.level_set(0):
    worst = net(trained.embed(line)).abs().max()
    print(f"{len(line) - 2} bends, largest |f| on the line: {worst:.0e}")
