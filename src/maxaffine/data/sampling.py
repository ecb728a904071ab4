"""Batches that hold as many rows of every class."""

from collections.abc import Iterator, Sequence
from numbers import Integral

import numpy as np
import torch
from torch import Tensor

from maxaffine.arguments import told, whole
from maxaffine.errors import InputError


class Balanced:
    """Class-balanced batches: batch / C rows of each of C classes, drawn at random without repetition in a batch.

    An epoch has floor(N / batch) batches. Draws of different batches are independent, so an epoch need not see
    every row. What is drawn is a function of (labels, batch, seed, epoch) alone: a run that was interrupted goes on
    with the same batches.

    labels: (N,) whole numbers 0 .. C-1, each there at least batch / C times; classes: C, if not max(labels) + 1.

    Iterating gives the batches of ``epoch`` as lists of rows and moves on to the next epoch; `set_epoch` chooses one.
    So it is a ``batch_sampler`` of torch's DataLoader. ``batches(epoch)`` gives them all at once.

    >>> labels = torch.arange(10).repeat(6)
    >>> sampler = Balanced(labels, batch=20, seed=3)
    >>> len(sampler), sampler.batches(epoch=0).shape
    (3, torch.Size([3, 20]))
    >>> labels[sampler.batches(0)[1]].bincount().tolist()
    [2, 2, 2, 2, 2, 2, 2, 2, 2, 2]

    Raises:
        InputError: batch is no multiple of C, labels are no classes, or a class has too few rows.

    Source: the experiments of Balestriero and Baraniuk, 2018, arXiv 1805.06576.
    """

    def __init__(
        self, labels: Tensor | np.ndarray | Sequence[int], batch: int, seed: int = 0, classes: int | None = None
    ) -> None:
        values = _classes(labels)
        self.classes = int(values.max()) + 1 if classes is None else whole(classes, "classes")
        self.epoch, self.rows = 0, len(values)
        self.seed = _from_zero("seed", seed)
        if isinstance(batch, bool) or not isinstance(batch, Integral):
            raise InputError(f"batch={told(batch)}; give a whole number of rows")
        self.batch = int(batch)
        if values.max() >= self.classes:
            raise InputError(f"label {values.max()}: labels of {self.classes} classes are from 0 to {self.classes - 1}")
        if batch < 1 or batch % self.classes:
            nearest = max(1, round(batch / self.classes)) * self.classes
            raise InputError(f"batch={batch} is no multiple of the {self.classes} classes; give {nearest}")
        order, counts = np.argsort(values, kind="stable"), np.bincount(values, minlength=self.classes)
        self._members = np.split(order, np.cumsum(counts)[:-1])
        if counts.min() < self.share:
            few = f"class {counts.argmin()} has {counts.min()} rows, batch={batch} needs {self.share} of each"
            raise InputError(f"{few}; give a smaller batch")

    @property
    def share(self) -> int:
        """Rows of each class in a batch."""
        return self.batch // self.classes

    def __len__(self) -> int:
        return self.rows // self.batch

    def __iter__(self) -> Iterator[list[int]]:
        batches = self.batches(self.epoch)
        self.epoch += 1
        return iter(batches.tolist())

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose batches come next."""
        self.epoch = _from_zero("epoch", epoch)

    def batches(self, epoch: int) -> Tensor:
        """Rows of all batches of an epoch, int64 (floor(N / batch), batch), in each batch class by class.

        Raises:
            InputError: epoch is negative.
        """
        epoch = _from_zero("epoch", epoch)
        random = np.random.default_rng((self.seed, epoch))
        drawn = [
            [random.choice(members, self.share, replace=False) for members in self._members] for _ in range(len(self))
        ]
        return torch.from_numpy(np.array(drawn, np.int64).reshape(len(self), self.batch))


def _from_zero(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 0:
        raise InputError(f"{name}={told(value)}: give a number from 0 on")
    return int(value)


def _classes(labels: Tensor | np.ndarray | Sequence[int]) -> np.ndarray:
    values = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if values.ndim != 1 or len(values) == 0 or values.dtype.kind not in "iu":
        raise InputError(f"labels are {values.dtype} {values.shape}; give whole numbers of shape (N,), N > 0")
    if values.min() < 0:
        raise InputError(f"label {values.min()} of row {values.argmin()}: classes are numbered from 0")
    return values
