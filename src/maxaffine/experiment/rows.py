"""The data of a run as tensors: rows and labels to train on and to test on, the same for every run of a grid."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from maxaffine import data as files
from maxaffine.errors import InputError
from maxaffine.experiment.specification import Data, Settings


@dataclass(frozen=True)
class Rows:
    """Images (N, channels, height, width) float32 and labels (N,) int64 of the two parts; digest names the content."""

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor
    classes: int
    digest: str


def rows_of(data: Data, root: Path | None, device: str = "cpu") -> Rows:
    """Load what a specification names; the last two are kept, as a worker goes through the runs of few data sets.

    Raises:
        InputError: there are fewer rows than asked for, or a class without a row.
        FileFormatError: a file under root is missing or broken.
    """
    return _loaded(data.model_dump_json(), root, device)


@lru_cache(maxsize=2)
def _loaded(named: str, root: Path | None, device: str) -> Rows:
    data = Data.model_validate_json(named)
    (x, y), (z, w) = _part(data, root, True), _part(data, root, False)
    classes = int(y.max()) + 1
    missing = sorted(set(range(classes)) - set(y.tolist()))
    if missing or int(w.max()) >= classes:
        raise InputError(f"data {data.name}: class {(missing or [int(w.max())])[0]} has no row to train on")
    digest = hashlib.sha256()
    for tensor in (x, y, z, w):
        digest.update(f"{tuple(tensor.shape)}".encode() + tensor.numpy().tobytes())
    x, y, z, w = (tensor.to(device) for tensor in (x, y, z, w))
    return Rows(x, y, z, w, classes, digest.hexdigest()[:16])


def _part(data: Data, root: Path | None, train: bool) -> tuple[Tensor, Tensor]:
    found = files.load(data.name, _place(data.name, root), train=train)
    wanted, named = (data.train, "train") if train else (data.test, "test")
    if found.labels is None or found.labels.dtype.kind != "i":
        raise InputError(f"data {data.name}: experiments need rows with class labels")
    if wanted is not None and wanted > len(found):
        raise InputError(f"data.{named} = {wanted}: {data.name} has {len(found)} such rows")
    chosen = in_turns(found.labels)[:wanted] if wanted else slice(None)
    images = torch.from_numpy(np.ascontiguousarray(found.inputs[chosen])).float()
    images = images if images.dim() == 4 else images[:, None] if images.dim() == 3 else images[..., None, None]
    grey = images.mean(1, keepdim=True) if data.grey else images
    return (files.normalise(grey) if data.normalise else grey), torch.from_numpy(found.labels[chosen])


def _place(name: str, root: Path | None) -> Path | None:
    """root, or root/NAME where the files themselves lie there: one root holds several sets of the same layout."""
    own = None if root is None else root / name
    return own if own is not None and own.is_dir() and any(path.is_file() for path in own.iterdir()) else root


def in_turns(labels: np.ndarray) -> np.ndarray:
    """The order in which rows are taken: one of each class in turn, each class in its stored order.

    >>> in_turns(np.array([1, 1, 1, 0, 0])).tolist()
    [3, 0, 4, 1, 2]
    """
    rank = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        of_class = labels == label
        rank[of_class] = np.arange(of_class.sum())
    return np.lexsort((labels, rank))


def permuted(labels: Tensor, generator: torch.Generator) -> Tensor:
    """The same labels on other rows: nothing about a row says its label, and each class is as frequent as before."""
    return labels[torch.randperm(len(labels), generator=generator).to(labels.device)]


def augmented(images: Tensor, generator: torch.Generator, pad: int = 2) -> Tensor:
    """Each image reflected over its border by ``pad``, cut at a random place to its old size, flipped half the time."""
    n, _, height, width = images.shape
    room = F.pad(images, (pad,) * 4, mode="reflect")
    down, right = torch.randint(2 * pad + 1, (2, n, 1), generator=generator).to(images.device)
    flip = (torch.rand(n, 1, generator=generator) < 0.5).to(images.device)
    across = torch.arange(width, device=images.device).expand(n, width)
    rows = down + torch.arange(height, device=images.device)
    columns = right + torch.where(flip, across.flip(1), across)
    each = torch.arange(n, device=images.device)[:, None, None]
    return room[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def check(settings: Settings, rows: Rows) -> None:
    """Raise InputError where settings and data do not fit each other."""
    training, n = settings.training, len(rows.train)
    if training.batch > n:
        raise InputError(f"training.batch = {training.batch}: there are {n} rows to train on")
    if training.balanced and training.batch % rows.classes:
        nearest = max(1, round(training.batch / rows.classes)) * rows.classes
        raise InputError(
            f"training.batch = {training.batch} is no multiple of the {rows.classes} classes of {settings.data.name}; "
            f"give {nearest}, or balanced = false"
        )
