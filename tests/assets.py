"""Readers of the real data that the tests are judged on; they share no code with the package."""

from __future__ import annotations

import gzip
import os
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

ASSETS = os.environ.get("MAXAFFINE_ASSETS")
needs_assets = pytest.mark.skipif(
    ASSETS is None, reason="MAXAFFINE_ASSETS is not set: the folder of real networks and data"
)


def asset(path: str) -> Path:
    """The file `path` of the folder that MAXAFFINE_ASSETS names."""
    if ASSETS is None:
        pytest.skip("MAXAFFINE_ASSETS is not set: the folder of real networks and data")
    return Path(ASSETS) / path


def idx(path: str) -> np.ndarray:
    """A gzip'd IDX file of bytes: magic number, sizes (big-endian), then the values."""
    raw = gzip.decompress(asset(path).read_bytes())
    sizes = np.frombuffer(raw, ">i4", count=raw[3], offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(sizes)


@lru_cache
def mnist_test() -> tuple[Tensor, Tensor]:
    """MNIST t10k: pixels x/255 (10000, 1, 28, 28) float32, labels (10000,)."""
    pixels = idx("data/mnist/t10k-images-idx3-ubyte.gz").astype(np.float32) / np.float32(255)
    labels = idx("data/mnist/t10k-labels-idx1-ubyte.gz").astype(np.int64)
    return torch.from_numpy(pixels)[:, None], torch.from_numpy(labels)


@lru_cache
def mnist_test_32() -> tuple[Tensor, Tensor]:
    """MNIST t10k with each image resized to 32 x 32 by PIL (bilinear, on bytes), then x/255."""
    from PIL import Image

    images = idx("data/mnist/t10k-images-idx3-ubyte.gz")
    large = [np.asarray(Image.fromarray(i).resize((32, 32), Image.Resampling.BILINEAR)) for i in images]
    return torch.from_numpy(np.stack(large).astype(np.float32) / np.float32(255))[:, None], mnist_test()[1]


@lru_cache
def cifar_test() -> tuple[Tensor, Tensor]:
    """The first 1000 CIFAR-10 test images: x/255 (1000, 3, 32, 32) float32, labels (1000,)."""
    from PIL import Image

    page = np.array(Image.open(asset("data/cifar10/cifar10_batch_50.png")).convert("RGB"))
    pixels = page.reshape(1000, 32, 32, 3).transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
    labels = re.findall(r"\d+", asset("data/cifar10/cifar10_labels.js").read_text())
    return torch.from_numpy(pixels.copy()), torch.tensor([int(k) for k in labels[50000:51000]])


def normalised(x: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(x - mean) / std per channel of images (N, C, H, W)."""
    shape = (1, len(mean), 1, 1)
    return (x - torch.tensor(mean).reshape(shape)) / torch.tensor(std).reshape(shape)


def box(n: int, low: list[float], high: list[float], seed: int = 0) -> Tensor:
    """n uniform points of the box [low, high] of R^D, float32 (n, D)."""
    generator = torch.Generator().manual_seed(seed)
    lo, hi = torch.tensor(low), torch.tensor(high)
    return lo + (hi - lo) * torch.rand(n, len(low), generator=generator)


def counterexamples(name: str, network: str, n: int) -> Tensor:
    """n published counterexample inputs of a network (n, D), repeated with 1 % jitter when fewer."""
    archive = np.load(asset(f"verdicts/{name}_counterexamples.npz"))
    rows = [archive[key].ravel() for key in archive.files if key.startswith(network)]
    points = torch.from_numpy(np.stack(rows)).float()
    repeats = -(-n // len(points))
    jitter = torch.randn(repeats, *points.shape, generator=torch.Generator().manual_seed(0)) * 0.01
    jitter[0] = 0
    return (points + jitter * points.std(0)).reshape(-1, points.shape[1])[:n]


@lru_cache
def medical_points() -> Tensor:
    """A point in each of the 989 word-perturbation boxes of the medical safety data set (989, 30)."""
    boxes = torch.from_numpy(np.load(asset("data/safenlp_medical/word.npy"))).float()
    t = torch.rand(boxes.shape[:2], generator=torch.Generator().manual_seed(0))
    return boxes[..., 0] + t * (boxes[..., 1] - boxes[..., 0])
