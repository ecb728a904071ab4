"""What is cut, kept in a folder: the reduced network, the polygon, the frontier of root cells, ranges of tasks."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast
from uuid import uuid4

import numpy as np
import torch
from numpy.typing import NDArray

from maxaffine.code import Signature, Units
from maxaffine.errors import DegenerateSliceError, FileFormatError
from maxaffine.geometry.cells import Job, Store, Vanishing, check, taken
from maxaffine.geometry.exploring import advance
from maxaffine.geometry.relunet import TOURNAMENT, Floats, Ints, ReluNet
from maxaffine.slice import Plane
from maxaffine.spline import Spline
from maxaffine.types import Shape

FILE = "job.npz"
WIDE = 256  # units of a level: one cell cut by n lines falls into as many as n (n + 1) / 2 + 1 pieces at once
STEP = 16  # units by which the root cells are cut at a time
Labels = NDArray[np.int32]
NET = tuple(f.name for f in fields(ReluNet) if f.name != "base")


class Frontier(NamedTuple):
    """Cells that are cut by the units before levels[level].

    levels: as those of the ReluNet, some divided. table: (B, 2) labels of sides along which several units vanish.
    """

    levels: Ints
    level: int
    store: Store
    table: Labels

    def some(self, first: int, last: int) -> "Frontier":
        """A copy with the cells first .. last."""
        return self._replace(store=taken(self.store, np.arange(first, last)))


@dataclass(frozen=True)
class Setup:
    """All that a worker must know.

    frontier: the root cells. tasks: (T + 1,) task i cuts the root cells tasks[i] .. tasks[i + 1]. fingerprint: of
    network and plane.
    """

    job: Job
    plane: Plane
    signature: Signature
    out: Shape
    frontier: Frontier
    tasks: Ints
    fingerprint: str

    @property
    def count(self) -> int:
        """T, the number of tasks."""
        return len(self.tasks) - 1

    @cached_property
    def merging(self) -> bool:
        """Whether a cell may come as several pieces."""
        return bool((self.job.net.kind == TOURNAMENT).any())

    @property
    def operators(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(units.name for units in self.signature)

    @property
    def name(self) -> str:
        """What ties a part to this job; another measure of zero is another job."""
        return f"{self.fingerprint}-{self.job.zero:g}-{self.count}"

    def check(self, failure: int) -> None:
        """Raise what a negative or unit-valued failure of a kernel means; -1 and -3 (too many cells) pass."""
        net = self.job.net
        try:
            check(failure)
        except Vanishing as error:
            raise DegenerateSliceError(
                f"unit {net.unit[error.unit]} of operator {self.operators[net.operator[error.unit]]!r} is zero, up to "
                "rounding, on a whole cell: the slice lies inside its wall, or the unit is zero all around, which "
                "ma.partition can tell; move the origin, or use that"
            ) from error

    def save(self, folder: Path) -> None:
        """Write it to the folder."""
        net, plane, job = self.job.net, self.plane, self.job
        arrays: dict[str, Any] = {f"net_{name}": getattr(net, name) for name in NET}
        arrays |= {f"base_{i}": base for i, base in enumerate(net.base)}
        arrays |= {f"store_{name}": value for name, value in self.frontier.store._asdict().items()}
        arrays |= {name: getattr(plane, name).numpy() for name in ("origin", "u", "v")}
        arrays |= {"corners": job.corners, "zero": job.zero, "tasks": self.tasks}
        arrays |= {"table": self.frontier.table, "levels": self.frontier.levels}
        arrays["about"] = json.dumps(
            {
                "signature": [[u.name, u.kind, u.pieces, list(u.shape)] for u in self.signature],
                "in_shape": list(self.signature.in_shape),
                "out": list(self.out),
                "level": self.frontier.level,
                "fingerprint": self.fingerprint,
            }
        )
        with fresh(folder / FILE) as file:
            np.savez(file, **arrays)

    @staticmethod
    def load(folder: Path) -> "Setup":
        """Read it from the folder. Raises FileFormatError."""
        try:
            with np.load(folder / FILE, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            about = json.loads(str(arrays["about"]))
            bases = sum(name.startswith("base_") for name in arrays)
            net = ReluNet(
                **{name: arrays[f"net_{name}"] for name in NET}, base=tuple(arrays[f"base_{i}"] for i in range(bases))
            )
            store = Store(*(arrays[f"store_{name}"] for name in Store._fields))
            origin, u, v = (torch.from_numpy(arrays[name]) for name in ("origin", "u", "v"))
            return Setup(
                Job(net, arrays["corners"], float(arrays["zero"])),
                Plane(origin, u, v, arrays["corners"]),
                Signature(
                    tuple(Units(name, kind, pieces, tuple(shape)) for name, kind, pieces, shape in about["signature"]),
                    tuple(about["in_shape"]),
                ),
                tuple(about["out"]),
                Frontier(arrays["levels"], about["level"], store, arrays["table"]),
                arrays["tasks"],
                about["fingerprint"],
            )
        except (OSError, KeyError, ValueError, EOFError) as error:
            raise FileFormatError(f"{folder / FILE} cannot be read ({error}); take a new folder") from None


def prepared(spline: Spline, plane: Plane, net: ReluNet, zero: float, wanted: int, fingerprint: str) -> Setup:
    """Cut until there are at least `wanted` root cells, and share them out among `wanted` tasks."""
    job = Job(net, plane.corners, zero)
    root = Frontier(narrowed(net.levels), 0, job.root(), np.empty((0, 2), np.int32))
    setup = Setup(job, plane, spline._signature, spline.out_shape, root, np.array([0, 1]), fingerprint)
    frontier = divided(setup, job.arrays()[0], root, wanted)
    cells = len(frontier.store.h)
    tasks = np.unique(np.linspace(0, cells, min(cells, wanted) + 1).astype(np.int64))
    return replace(setup, frontier=frontier, tasks=tasks)


def narrowed(levels: Ints) -> Ints:
    """Levels of at most WIDE units: units of one level are independent, so any of them may come first."""
    inside = [np.arange(a, b, WIDE) for a, b in pairwise(levels.tolist())]
    return np.concatenate([*inside, levels[-1:]]).astype(np.int64)


def divided(setup: Setup, matrix: Floats, frontier: Frontier, wanted: int) -> Frontier:
    """Cut by a few units at a time until there are at least `wanted` cells, or no more units."""
    job, (levels, level, store, table) = setup.job, frontier
    while level < len(levels) - 1 and len(store.h) < wanted:
        if levels[level + 1] - levels[level] > STEP:
            levels = np.insert(levels, level + 1, levels[level] + STEP)
        net, rows = (matrix, levels, np.arange(job.net.units)), table.copy()
        cells, rows, count, failure = cast(Any, advance)(net, level, tuple(store), job.eps, job.strict, rows, len(rows))
        setup.check(failure)
        level, store, table = level + 1, Store(*(np.ascontiguousarray(a) for a in cells)), rows[:count].copy()
    return Frontier(levels, level, store, table)


def writable(setup: Setup) -> Setup:
    """The same with arrays of its own where compiled code reads them: it does not take read-only ones."""
    net = setup.job.net
    own = {name: getattr(net, name).copy() for name in ("left", "right", "last")}
    frontier = setup.frontier._replace(levels=setup.frontier.levels.copy())
    return replace(setup, job=replace(setup.job, net=replace(net, **own)), frontier=frontier)


def fingerprint_of(spline: Spline, plane: Plane) -> str:
    """SHA-256 over the network's graph, its weights and the plane."""
    graph, found = spline.captured.graph, hashlib.sha256()
    found.update(repr((graph.nodes, graph.input, graph.output)).encode())
    tensors = [source.read().detach().cpu() for source in spline.captured.sources]
    for tensor in [*tensors, plane.origin, plane.u, plane.v, torch.as_tensor(plane.corners)]:
        exact = (tensor.double() if tensor.is_floating_point() else tensor).contiguous()
        found.update(f"{exact.dtype} {tuple(exact.shape)}".encode())
        found.update(exact.numpy().tobytes())
    return found.hexdigest()


@contextmanager
def fresh(path: Path) -> Iterator[BinaryIO]:
    """A file that appears under its name when it is whole, or not at all. Raises FileFormatError."""
    part = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        with open(part, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        if isinstance(error, OSError):
            reason = error.strerror or error
            raise FileFormatError(f"cannot write {path}: {reason}; what is finished in the folder is kept") from None
        raise
