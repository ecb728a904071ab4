"""What trained networks take for similar: the tables and figures of docs/experiments/codes.md.

    python experiments/codes.py --assets ASSETS              MNIST (60,000) and CIFAR-10 (10,000): about half an hour
    python experiments/codes.py --assets ASSETS --quick      a tenth of it, its page beside the others in --out

ASSETS holds data/ and nets/ (other people's trained networks); where MAXAFFINE_ASSETS is set it is that folder. Of each
network there are three: as published, with weights drawn anew (torch's own initialisation), and trained on random
labels, by this script, until it knows them by heart.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from functools import partial
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

import maxaffine as ma
from maxaffine import codebook, plot
from maxaffine.code import concatenate
from maxaffine.data import Dataset, load

K = (1, 5, 20)
RANDOM_ROWS, RANDOM_EPOCHS = 1000, 100  # random labels are learned by heart on so many images in at most so many epochs
MNIST = """### {name} on MNIST

Share (%) of the k nearest neighbours that are of the query's class: {queries:,} test images, each among the others and
{count:,} training images; chance is {chance:.1f} %. Cells: distinct codes of all of them.

![Class agreement of the nearest neighbour by depth, {name} on MNIST](codes_{key}.png)
"""
STRANGERS = """Nearest neighbours of four images (red frames) by the code of each operator of the trained network;
orange frames: another class.

![Mosaics of nearest neighbours by depth](codes_{key}_mosaics.png)

Strangers: the median distance to the nearest training image by the code of each operator and, in brackets, the
probability (%) that it is farther than that of a test image.
"""
CIFAR = """### ResNet-20 on CIFAR-10

Share (%) of the k nearest neighbours that are of the query's class: {queries:,} test images, each among the others and
{count:,} training images, by the code of every third ReLU. The untrained one has the batch statistics of 500 images.

![Class agreement of the nearest neighbour by depth, ResNet-20 on CIFAR-10](codes_cifar10.png)

"""
KINDS = ("trained", "untrained", "random labels")


class LeNet(nn.Module):
    """LeNet-5 with ReLU and max-pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.c1, self.c3, self.c5 = nn.Conv2d(1, 6, 5), nn.Conv2d(6, 16, 5), nn.Conv2d(16, 120, 5)
        self.f6, self.f7, self.pool = nn.Linear(120, 84), nn.Linear(84, 10), nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, 28, 28), resized to 32 x 32."""
        x = F.interpolate(x, size=(32, 32), mode="bilinear", align_corners=False)
        x = self.pool(torch.relu(self.c1(x)))
        x = self.pool(torch.relu(self.c3(x)))
        return self.f7(torch.relu(self.f6(torch.relu(self.c5(x)).flatten(1))))


def cnn() -> nn.Sequential:
    """Two strided convolutions and two dense layers."""
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(1568, 100), nn.ReLU(), nn.Linear(100, 10)),
    )


class MLP(nn.Module):
    """784-500-300-250-250-250-10."""

    def __init__(self) -> None:
        super().__init__()
        sizes = (784, 500, 300, 250, 250, 250, 10)
        layers = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())]
        self.f = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, 28, 28)."""
        return self.f(x.flatten(1))


@dataclass(frozen=True)
class Subject:
    """A published network: how it is built, its file, its short name, its learning rate for random labels."""

    name: str
    build: Callable[[], nn.Module]
    file: str
    key: str
    rate: float = 1e-3


SUBJECTS = (
    Subject("CNN", cnn, "kw_mnist.pth", "cnn"),
    Subject("LeNet-5", LeNet, "csinva_lenet.pth", "lenet", 2e-3),
    Subject("MLP", MLP, "smoothhess_MNIST.pth", "mlp"),
)


def network(subject: Subject, kind: str, assets: Path, x: Tensor, y: Tensor) -> nn.Module:
    """The network in one of its three states."""
    torch.manual_seed(0)
    net = subject.build()
    if kind == "trained":
        state = torch.load(assets / "nets" / "mnist" / subject.file, map_location="cpu", weights_only=True)
        net.load_state_dict(dict(zip(net.state_dict(), state.values(), strict=True)))
    if kind == "random labels":
        memorise(net, x[:RANDOM_ROWS], y[:RANDOM_ROWS], subject.rate)
    return net.eval()


def memorise(net: nn.Module, x: Tensor, y: Tensor, rate: float) -> None:
    """Train on permuted labels until all are right."""
    y = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(0))]
    optimiser = torch.optim.Adam(net.parameters(), rate)
    for _ in range(RANDOM_EPOCHS):
        right = 0
        for rows in torch.randperm(len(x)).split(100):
            scores = net(x[rows])
            right += int((scores.argmax(1) == y[rows]).sum())
            optimiser.zero_grad()
            F.cross_entropy(scores, y[rows]).backward()
            optimiser.step()
        if right == len(x):
            return
    print(f"random labels: {right / len(x):.3f} of {len(x)} known by heart after {RANDOM_EPOCHS} epochs", flush=True)


def codes_of(spline: ma.Spline, x: Tensor, operators: list[str] | None = None) -> ma.Code:
    """Codes in batches; of some operators if named."""
    codes = (spline.code(rows) for rows in x.split(500))
    return concatenate([code if operators is None else codebook.part(code, operators) for code in codes])


def together(test: Dataset, train: Dataset, queries: int, count: int) -> tuple[Tensor, np.ndarray]:
    """Images in [0, 1] and labels: the test images that are asked for, then training images."""
    images = np.concatenate([test.inputs[:queries], train.inputs[:count]])
    assert test.labels is not None and train.labels is not None
    return torch.from_numpy(images).float() / 255, np.concatenate([test.labels[:queries], train.labels[:count]])


def pixels(x: Tensor, labels: np.ndarray, queries: int) -> list[float]:
    """The same agreement for the Euclidean distance of the images."""
    rows, shares = x.flatten(1), []
    for part in torch.arange(queries).split(500):
        apart = torch.cdist(rows[part], rows)
        apart[torch.arange(len(part)), part] = torch.inf
        near = apart.topk(max(K), largest=False).indices.numpy()
        shares.append(labels[near] == labels[part.numpy()][:, None])
    same = np.concatenate(shares)
    return [float(same[:, :k].mean()) for k in K]


def strangers(assets: Path, test: Tensor, count: int) -> dict[str, Tensor]:
    """Images 28 x 28 in [0, 1]: the test images, and others that are less and less like them."""
    digits = torch.tensor(load_digits().images[:count], dtype=torch.float32)[:, None] / 16
    colour = (
        torch.from_numpy(load("cifar10-png", assets / "data" / "cifar10", train=False).inputs[:count]).float() / 255
    )
    generator = torch.Generator().manual_seed(0)
    own = test[:count]
    return {
        "MNIST, test": own,
        "the same, 2 pixels to the right": F.pad(own, (2, 0))[..., :28],
        "digits of scikit-learn, enlarged": F.interpolate(digits, size=(28, 28), mode="bilinear"),
        "MNIST, test, upside down and negative": 1 - own.flip(2),
        "CIFAR-10, test, grey": F.interpolate(colour.mean(1, keepdim=True), size=(28, 28), mode="bilinear"),
        "pixels of the same, shuffled": own.flatten(1)[:, torch.randperm(784, generator=generator)].reshape(own.shape),
        "uniform noise": torch.rand(own.shape, generator=generator),
    }


def auroc(own: np.ndarray, other: np.ndarray) -> float:
    """Probability that a stranger is farther than one of our own; ties count half."""
    order = np.sort(own)
    below, at_most = np.searchsorted(order, other), np.searchsorted(order, other, side="right")
    return float((below + at_most).mean() / 2 / len(own))


def table(head: list[str], rows: list[list[str]]) -> str:
    """Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def mnist(subject: Subject, assets: Path, quick: bool, pages: Path) -> str:
    """Agreement, correlation and strangers on MNIST of one network in its states."""
    data, test = (load("mnist", assets / "data" / "mnist", train=part) for part in (True, False))
    count, queries = (6000, 500) if quick else (60_000, 1000)
    x, labels = together(test, data, queries, count)
    y, own = torch.from_numpy(labels), torch.from_numpy(test.inputs).float() / 255
    base = pixels(x, labels, queries)
    rows = [["pixels (Euclidean)", "", *(f"{100 * v:.1f}" for v in base), "", ""]]
    found, far = {}, ""
    for kind in KINDS:
        start = time.perf_counter()
        net = network(subject, kind, assets, x[queries:], y[queries:])
        with torch.no_grad():
            right = float((torch.cat([net(part).argmax(1) for part in own.split(1000)]).numpy() == test.labels).mean())
        spline = ma.Spline(net, x[:1])
        code = codes_of(spline, x)
        found[kind] = codebook.class_agreement(code, labels, K, queries=range(queries))
        ranks = codebook.against_euclidean(code, x, pairs=20_000).correlations
        words = codebook.occupancy(code, inputs=[len(x)]).total
        for depth, shares, rank in zip(found[kind].depths, found[kind].shares, ranks, strict=True):
            numbers = [f"{100 * v:.1f}" for v in shares]
            rows.append([f"{kind} ({100 * right:.1f} %)", f"`{depth}`", *numbers, f"{rank:.2f}", f"{words[depth]:,}"])
        if kind == "trained":
            strange = strangers(assets, own, 200 if quick else 1000)
            far = table(["code of", *strange], distant(spline, code[queries:], strange))
            mosaic(code, x, labels, pages / f"codes_{subject.key}_mosaics.png")
        print(f"{subject.name}, {kind}: {time.perf_counter() - start:.0f} s", flush=True)
    picture = plot.class_agreement(found, 1)
    picture.axhline(base[0], color="#888", linewidth=0.8)
    picture.set_title(f"{subject.name} on MNIST (grey line: pixels)", fontsize=10)
    picture.figure.savefig(pages / f"codes_{subject.key}.png", dpi=110)
    head = ["state (test accuracy)", "code of", *(f"k = {k}" for k in K), "rank correlation with pixels", "cells"]
    chance = 100 * found["trained"].chance
    given = {"name": subject.name, "key": subject.key, "count": count, "queries": queries, "chance": chance}
    said = MNIST.format(**given), table(head, rows), STRANGERS.format(**given), far
    return "\n".join(said)


def distant(spline: ma.Spline, code: ma.Code, sets: dict[str, Tensor]) -> list[list[str]]:
    """How far sets of images are from the training images."""
    asked, ends = codes_of(spline, torch.cat(list(sets.values()))), np.cumsum([len(one) for one in sets.values()])
    lines = []
    for depth in (units.name for units in code.signature):
        apart = np.split(codebook.nearest(asked, code, 1, depth).distances[:, 0], ends[:-1])
        cells = [f"{np.median(one):.3f} ({100 * auroc(apart[0], one):.0f})" for one in apart]
        lines.append([f"`{depth}`", *cells])
    return lines


def mosaic(code: ma.Code, x: Tensor, labels: np.ndarray, path: Path) -> None:
    """The paper's 4 x 4 picture."""
    queries = np.array([int((labels == digit).nonzero()[0][3]) for digit in (2, 4, 5, 8)])
    asked = code[torch.from_numpy(queries)]
    found = {u.name: codebook.nearest(asked, code, 15, u.name, own=queries) for u in code.signature}
    plot.neighbours(1 - x.numpy(), found, queries, labels).savefig(path, dpi=75)


def cifar(assets: Path, quick: bool, pages: Path) -> str:
    """Agreement on CIFAR-10 by the codes of a ResNet-20, trained and not."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
    from common import resnet20

    data, test = (load("cifar10-png", assets / "data" / "cifar10", train=part) for part in (True, False))
    count, queries = (1000, 200) if quick else (10_000, 1000)
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    x, labels = together(test, data, queries, count)
    x = (x - mean) / std
    found = {}
    for kind in KINDS[:2]:
        start = time.perf_counter()
        torch.manual_seed(0)
        net = resnet20()
        if kind == "trained":
            file = assets / "nets" / "cifar10" / "resnet20-12fca82f.th"
            state = torch.load(file, map_location="cpu", weights_only=True)["state_dict"]
            names = [name for name in net.state_dict() if not name.endswith("num_batches_tracked")]
            net.load_state_dict(dict(zip(names, state.values(), strict=True)), strict=False)
        else:
            for module in net.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.reset_running_stats()
                    module.momentum = None
            with torch.no_grad():
                net(x[-500:])  # the statistics of an untrained network, so that its units are on and off alike
        spline = ma.Spline(net.eval(), x[:1])
        names = [operator.name for operator in spline.operators][::3]
        found[kind] = codebook.class_agreement(codes_of(spline, x, names), labels, K, queries=range(queries))
        print(f"ResNet-20, {kind}: {time.perf_counter() - start:.0f} s", flush=True)
    picture = plot.class_agreement(found, 1)
    picture.axhline(pixels(x, labels, queries)[0], color="#888", linewidth=0.8)
    picture.set_title("ResNet-20 on CIFAR-10 (grey line: pixels)", fontsize=10)
    picture.figure.savefig(pages / "codes_cifar10.png", dpi=110)
    rows = [
        [f"ResNet-20, {kind}", f"`{depth}`", *(f"{100 * v:.1f}" for v in shares)]
        for kind, one in found.items()
        for depth, shares in zip(one.depths, one.shares, strict=True)
    ]
    rows.append(["pixels (Euclidean)", "", *(f"{100 * v:.1f}" for v in pixels(x, labels, queries))])
    return CIFAR.format(count=count, queries=queries) + table(["network", "code of", *(f"k = {k}" for k in K)], rows)


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description="Measure what codes take for similar.")
    root = os.environ.get("MAXAFFINE_ASSETS")
    parser.add_argument("--assets", type=Path, default=root and Path(root), required=root is None)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parents[1] / "docs" / "experiments")
    parser.add_argument("--quick", action="store_true")
    parts = {subject.key: partial(mnist, subject) for subject in SUBJECTS} | {"cifar": cifar}
    parser.add_argument("--only", choices=list(parts))
    given = parser.parse_args()
    mpl.use("Agg")
    given.out.mkdir(parents=True, exist_ok=True)
    for name, part in parts.items():
        if given.only in (None, name):
            text = part(given.assets, given.quick, given.out)
            command = "python experiments/codes.py" + " --quick" * given.quick
            line = f"*`{command}`, {date.today():%d %B %Y}, torch {torch.__version__.partition('+')[0]}, float32.*\n\n"
            (given.out / f"codes_{name}.md").write_text(line + text)


if __name__ == "__main__":
    main()
