"""The picture at the top of README.md: a partition in training. Run it to draw docs/_static/partition.png again."""

from pathlib import Path

import torch
from matplotlib import pyplot as plt
from PIL import Image
from sklearn.datasets import make_moons
from torch import nn

import maxaffine as ma
from maxaffine import plot

STEPS = (20, 60, 400)
CORNERS = [(-1.6, -1.1), (2.6, -1.1), (2.6, 1.7), (-1.6, 1.7)]


def main(path: Path) -> None:
    """Train 2-24-24-1 on two moons and draw its cells at three steps."""
    points, labels = make_moons(300, noise=0.12, random_state=0)
    x, y = torch.tensor(points), torch.tensor(labels, dtype=torch.float64)
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(2, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 1)).double()
    plane = ma.Plane.polygon(torch.zeros(2), torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), CORNERS)
    spline, optimizer, snapshots = ma.Spline(net, x), torch.optim.Adam(net.parameters(), lr=0.01), {}
    for step in range(1, max(STEPS) + 1):
        loss = nn.functional.binary_cross_entropy_with_logits(net(x)[:, 0], y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step in STEPS:
            snapshots[f"step {step}: {{:,}} cells"] = ma.partition(spline, plane)
    titles = [title.format(len(found)) for title, found in snapshots.items()]
    figure = plot.training(list(snapshots.values()), titles, colour="class", points=x, labels=labels)
    for axis in figure.axes:
        axis.set(xticks=[], yticks=[], xlabel="", ylabel="")
    figure.savefig(path, dpi=150, bbox_inches="tight", pad_inches=0.04)
    plt.close(figure)
    Image.open(path).convert("RGB").quantize(128).save(path, optimize=True)


if __name__ == "__main__":
    main(Path(__file__).parent / "_static" / "partition.png")
