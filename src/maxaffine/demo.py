"""The demo: a small convolutional network trained on the 8 x 8 digits that scikit-learn carries."""

import tempfile
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from maxaffine.data import Dataset, read
from maxaffine.errors import MissingExtraError
from maxaffine.spline import Spline

SEED, EPOCHS, BATCH, HELD_OUT = 0, 25, 64, 360
SCALE = 1 / 16  # a pixel is a whole number from 0 to 16


@dataclass(frozen=True)
class Digits:
    """Images (N, 1, 8, 8) of whole numbers 0 to 16 and their labels (N,), split into two parts."""

    train: np.ndarray
    train_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray


def digits() -> Digits:
    """Load the digits, shuffled by a fixed seed: 1437 to train on, 360 held out.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtraError('the demo needs scikit-learn: pip install "maxaffine[report]"') from error
    rows, labels = map(np.asarray, load_digits(return_X_y=True))
    order = np.random.default_rng(SEED).permutation(len(labels))
    images, labels = rows[order].reshape(-1, 1, 8, 8).astype(np.uint8), labels[order]
    return Digits(images[HELD_OUT:], labels[HELD_OUT:], images[:HELD_OUT], labels[:HELD_OUT])


def network() -> nn.Module:
    """Return an untrained network: twice convolution, batch norm, ReLU and pooling, then a dense layer.

    The first pooling is an average: under a maximum the flat background of every digit would be a tie, that
    is, every digit would lie exactly on a wall of its region.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        layers = {
            "conv1": nn.Conv2d(1, 16, 3, padding=1),
            "norm1": nn.BatchNorm2d(16),
            "relu1": nn.ReLU(),
            "pool1": nn.AvgPool2d(2),
            "conv2": nn.Conv2d(16, 32, 3, padding=1),
            "norm2": nn.BatchNorm2d(32),
            "relu2": nn.ReLU(),
            "pool2": nn.MaxPool2d(2),
            "flatten": nn.Flatten(),
            "dense": nn.Linear(128, 10),
        }
        return nn.Sequential(OrderedDict(layers))


def train(net: nn.Module, data: Digits) -> Iterator[float]:
    """Train ``net`` in place, one epoch for each value asked for: the mean cross-entropy of that epoch.

    >>> losses = list(train(network(), digits()))  # doctest: +SKIP
    """
    x = torch.from_numpy(data.train).float() * SCALE
    y = torch.from_numpy(data.train_labels)
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    generator = torch.Generator().manual_seed(SEED)
    for _ in range(EPOCHS):
        net.train()
        losses = []
        for rows in torch.randperm(len(x), generator=generator).split(BATCH):
            loss = nn.functional.cross_entropy(net(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        net.eval()
        yield sum(losses) / len(losses)


def saved(spline: Spline, data: Digits) -> tuple[Dataset, dict[str, bytes]]:
    """Return the held-out digits as a data set, and the files of the demo: the spline and its data."""
    with tempfile.TemporaryDirectory() as scratch:
        net, rows = Path(scratch) / "digits.safetensors", Path(scratch) / "digits.npz"
        spline.save(net)
        np.savez_compressed(rows, x=data.test, y=data.test_labels)
        return read(rows), {path.name: path.read_bytes() for path in (net, rows)}
