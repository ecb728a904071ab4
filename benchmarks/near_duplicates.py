"""Planted near-duplicates: recall and precision of ``ma.near_duplicates`` by depth, against pixels and features.

The networks and images are those of the folder in MAXAFFINE_ASSETS: 5000 of MNIST's test images, 1000 of CIFAR-10's. Of
each half of a set, a tenth of the images gets a copy shifted by one pixel (edges repeated), a tenth one through JPEG of
quality 75, a tenth one 5 % brighter or darker. A pair (image, its copy) is to be found and every other pair is not, so
that images which are near-duplicates by nature count against all methods alike. The two radii of each method, that of
the best F1 and the least with a recall of 0.9, are chosen on the first half; recall and precision are those on the
second half.

    python benchmarks/near_duplicates.py [--quick]
"""

import argparse
import gzip
import io
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from common import assets, circumstances, resnet20
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

import maxaffine as ma

KINDS = ("shift", "JPEG", "light")
HEAD = ("compared by", "recall", *KINDS, "precision", "F1", "precision at recall 0.9")


# ---- networks and images ----------------------------------------------------------------------------------


def lenet() -> nn.Sequential:
    first = nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)
    last = nn.Conv2d(16, 120, 5), nn.ReLU(), nn.Flatten(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)
    return nn.Sequential(*first, *last)


def strided() -> nn.Sequential:
    convolutions = nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU(), nn.Flatten()
    return nn.Sequential(*convolutions, nn.Linear(1568, 100), nn.ReLU(), nn.Linear(100, 10))


def mlp() -> nn.Sequential:
    widths = 784, 500, 300, 250, 250, 250, 10
    layers = [layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *layers[:-1])


def mnist_32(images: NDArray[np.uint8]) -> Tensor:
    large = [np.asarray(Image.fromarray(i).resize((32, 32), Image.Resampling.BILINEAR)) for i in images]
    return torch.from_numpy(np.stack(large).astype(np.float32) / 255)[:, None]


def mnist_28(images: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(images.astype(np.float32) / 255)[:, None]


def cifar(images: NDArray[np.uint8]) -> Tensor:
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return ((torch.from_numpy(images.astype(np.float32) / 255) - mean) / std).permute(0, 3, 1, 2).contiguous()


CASES = {
    "MLP 784-500-300-250-250-250-10": (mlp, "nets/mnist/smoothhess_MNIST.pth", mnist_28),
    "two strided convolutions": (strided, "nets/mnist/kw_mnist.pth", mnist_28),
    "LeNet-5": (lenet, "nets/mnist/csinva_lenet.pth", mnist_32),
    "ResNet-20": (resnet20, "nets/cifar10/resnet20-12fca82f.th", cifar),
}


def trained(make, path: str) -> nn.Sequential:
    """The network with the weights of a file, which stand in the order of its modules."""
    weights = torch.load(assets() / path, map_location="cpu", weights_only=True)
    weights = weights.get("state_dict", weights)
    model = make().eval().requires_grad_(False)
    names = [name for name in model.state_dict() if not name.endswith("num_batches_tracked")]
    model.load_state_dict(dict(zip(names, weights.values(), strict=True)), strict=False)
    return model


def images_of(path: str) -> NDArray[np.uint8]:
    if "cifar" in path:
        page = np.array(Image.open(assets() / "data/cifar10/cifar10_batch_50.png").convert("RGB"))
        return page.reshape(1000, 32, 32, 3)
    raw = gzip.decompress((assets() / "data/mnist/t10k-images-idx3-ubyte.gz").read_bytes())
    return np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 28, 28)[:5000]


# ---- copies -----------------------------------------------------------------------------------------------


def shifted(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    down, right = [(1, 0), (-1, 0), (0, 1), (0, -1)][rng.integers(4)]
    wide = np.pad(image, [(1, 1), (1, 1), *[(0, 0)] * (image.ndim - 2)], mode="edge")
    return wide[1 + down : 1 + down + len(image), 1 + right : 1 + right + image.shape[1]]


def compressed(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:  # noqa: ARG001
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=75)
    return np.asarray(Image.open(file))


def lit(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    return (image * rng.choice([0.95, 1.05])).round().clip(0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Planted:
    """n images and, behind them, the copies of some: copy k is of image sources[k]."""

    images: NDArray[np.uint8]
    count: int
    sources: NDArray[np.int64]

    def right(self, i: NDArray[np.int64], j: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether j is a copy of i, for i < j."""
        copies = j >= self.count
        return copies & (np.where(copies, self.sources[np.where(copies, j - self.count, 0)], -1) == i)


def planted(images: NDArray[np.uint8], seed: int) -> Planted:
    rng = np.random.default_rng(seed)
    each = len(images) // 10
    sources = rng.permutation(len(images))[: 3 * each]
    ways = [way for way in (shifted, compressed, lit) for _ in range(each)]
    copies = [way(images[source], rng) for way, source in zip(ways, sources, strict=True)]
    return Planted(np.concatenate([images, np.stack(copies)]), len(images), sources)


# ---- radii and what they find -----------------------------------------------------------------------------


def radii(distances: Tensor, data: Planted) -> tuple[float, float]:
    """The radius of the best F1 and the least with a recall of 0.9, by the distances of all pairs (N, N)."""
    i, j = np.triu_indices(len(data.images), 1)
    values = distances.numpy()[i, j]
    order = np.argsort(values, kind="stable")
    values, hits = values[order], np.cumsum(data.right(i, j)[order])
    last = np.flatnonzero(np.append(values[1:] > values[:-1], True))  # whole ties are in or out
    found, right = last + 1, hits[last]
    best = np.argmax(2 * right / (found + len(data.sources)))
    return float(values[last[best]]), float(values[last[np.argmax(right >= 0.9 * len(data.sources))]])


def score(pairs: NDArray[np.int64], data: Planted) -> dict[str, float]:
    """Recall, of all and of each kind, precision and F1 of pairs (P, 2)."""
    right = data.right(pairs[:, 0], pairs[:, 1])
    kinds = (pairs[right, 1] - data.count) // (len(data.sources) // 3)
    recalls = {kind: float((kinds == k).sum() / (len(data.sources) / 3)) for k, kind in enumerate(KINDS)}
    recall, precision = right.sum() / len(data.sources), right.sum() / max(1, len(pairs))
    return {
        "recall": recall,
        **recalls,
        "precision": precision,
        "F1": 2 * right.sum() / (len(pairs) + len(data.sources)),
    }


def by_euclid(a: Tensor, b: Tensor, first: Planted, second: Planted) -> dict[str, float]:
    """Rows (N, D) compared by the Euclidean distance."""
    best, most = radii(torch.cdist(a.double(), a.double()), first)
    distances = torch.cdist(b.double(), b.double()).numpy()
    i, j = np.triu_indices(len(b), 1)
    row, wide = (score(np.stack([i, j], 1)[distances[i, j] <= radius], second) for radius in (best, most))
    return row | {"precision at recall 0.9": wide["precision"]}


def by_code(a: ma.Code, b: ma.Code, names: list[str], first: Planted, second: Planted) -> dict[str, float]:
    """Codes of some operators, by the report of near-duplicates."""
    best, most = radii(ma.pairwise_distance(a, a, names), first)
    found = [ma.near_duplicates(b, radius, operators=names).pairs.numpy() for radius in (best, most)]
    row, wide = (score(pairs, second) for pairs in found)
    return row | {"precision at recall 0.9": wide["precision"]}


def table(name: str, quick: bool) -> list[list[str]]:
    make, path, scaled = CASES[name]
    model, images = trained(make, path), images_of(path)
    images = images[:200] if quick else images
    halves = [planted(half, seed) for seed, half in enumerate(np.array_split(images, 2))]
    x = [scaled(half.images) for half in halves]
    spline = ma.Spline(model, x[0][:1])
    codes = [spline.code(part) for part in x]
    with torch.inference_mode():
        features = [model[:-1](part).flatten(1) for part in x]
    names = [operator.name for operator in spline.operators]
    shown = names if len(names) < 8 else names[:: len(names) // 3]
    rows = {"pixels": by_euclid(x[0].flatten(1), x[1].flatten(1), *halves)}
    for n in shown:
        label = f"code, `{n}` ({1 + names.index(n)} of {len(names)})"
        rows[label] = by_code(*codes, [n], *halves)
    rows["code, all"] = by_code(*codes, names, *halves)
    rows["features"] = by_euclid(*features, *halves)
    rows["features, cosine"] = by_euclid(*(nn.functional.normalize(f) for f in features), *halves)
    return [[label, *(f"{row[column]:.3g}" for column in HEAD[1:])] for label, row in rows.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description="Recall and precision of planted near-duplicates.")
    parser.add_argument("--quick", action="store_true", help="200 images: does the script work?")
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks/near_duplicates.md"))
    given = parser.parse_args()
    lines = [f"<!-- {circumstances()['date']}: python benchmarks/near_duplicates.py{' --quick' * given.quick} -->"]
    for name in CASES:
        rows = [list(HEAD), ["---"] * len(HEAD), *table(name, given.quick)]
        lines += ["", f"{name}:", "", *("| " + " | ".join(row) + " |" for row in rows)]
        print("\n".join(lines[-len(rows) - 2 :]), flush=True)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
