"""What is cut, kept in a folder: the reduced network, the polygon, the frontier of root cells, ranges of tasks."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, cast
from uuid import uuid4

import numpy as np
import torch
from numpy.typing import NDArray

from maxaffine.code import Units
from maxaffine.errors import DegenerateSliceError, FileFormatError, InputError
from maxaffine.geometry.cells import Job, Store
from maxaffine.geometry.exploring import advance
from maxaffine.geometry.relunet import TOURNAMENT, Floats, Ints, ReluNet
from maxaffine.slice import Plane
from maxaffine.spline import Spline
from maxaffine.types import Shape

FILE = "job.npz"
Labels = NDArray[np.int32]
NET = tuple(f.name for f in fields(ReluNet) if f.name != "base")


@dataclass(frozen=True)
class Setup:
    """All that a worker must know.

    level: of the frontier. store: its cells. table: (B, 2) labels of the frontier's sides along which several units
    vanish. tasks: (T + 1,) task i cuts the root cells tasks[i] .. tasks[i + 1]. fingerprint: of network and plane.
    """

    job: Job
    plane: Plane
    signature: tuple[Units, ...]
    out: Shape
    level: int
    store: Store
    table: Labels
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
        if failure == -2:
            raise InputError("a cell has more than 500 sides; give a polygon with fewer corners")
        if failure >= 0:
            net = self.job.net
            raise DegenerateSliceError(
                f"unit {net.unit[failure]} of operator {self.operators[net.operator[failure]]!r} is zero, up to "
                "rounding, on a whole cell of the plane: the slice lies inside its wall; move the origin off the wall"
            )

    def save(self, folder: Path) -> None:
        """Write it to the folder."""
        net, plane, job = self.job.net, self.plane, self.job
        arrays: dict[str, Any] = {f"net_{name}": getattr(net, name) for name in NET}
        arrays |= {f"base_{i}": base for i, base in enumerate(net.base)}
        arrays |= {f"store_{name}": value for name, value in self.store._asdict().items()}
        arrays |= {name: getattr(plane, name).numpy() for name in ("origin", "u", "v")}
        arrays |= {"corners": job.corners, "zero": job.zero, "table": self.table, "tasks": self.tasks}
        arrays["about"] = json.dumps(
            {
                "signature": [[u.name, u.pieces, list(u.shape)] for u in self.signature],
                "out": list(self.out),
                "level": self.level,
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
                tuple(Units(name, pieces, tuple(shape)) for name, pieces, shape in about["signature"]),
                tuple(about["out"]),
                about["level"],
                store,
                arrays["table"],
                arrays["tasks"],
                about["fingerprint"],
            )
        except (OSError, KeyError, ValueError, EOFError) as error:
            raise FileFormatError(f"{folder / FILE} cannot be read ({error}); take a new folder") from None


def prepared(spline: Spline, plane: Plane, net: ReluNet, zero: float, wanted: int, fingerprint: str) -> Setup:
    """Cut level by level until there are at least `wanted` root cells, and share them out among `wanted` tasks."""
    job, table, last = Job(net, plane.corners, zero), np.empty((0, 2), np.int32), len(net.levels) - 1
    level, store, start = 0, job.root(), np.array([0, 1])
    setup = Setup(job, plane, spline._signature, spline.out_shape, level, store, table, start, fingerprint)
    arrays = job.arrays()
    while level < last and len(store.h) < wanted:
        store, table = advanced(setup, arrays, level, store, table)
        level += 1
    cells = len(store.h)
    tasks = np.unique(np.linspace(0, cells, min(cells, wanted) + 1).astype(np.int64))
    return replace(setup, level=level, store=store, table=table, tasks=tasks)


def advanced(
    setup: Setup, arrays: tuple[Floats, Ints, Ints], level: int, store: Store, table: Labels
) -> tuple[Store, Labels]:
    """The cells of a store cut by one level, and the table of bundled labels, which grows."""
    job, rows = setup.job, table.copy()
    new, rows, count, failure = cast(Any, advance)(arrays, level, tuple(store), job.eps, job.strict, rows, len(rows))
    setup.check(failure)
    return Store(*(np.ascontiguousarray(a) for a in new)), rows[:count].copy()


def writable(setup: Setup) -> Setup:
    """The same with arrays of its own where compiled code reads them: it does not take read-only ones."""
    net = setup.job.net
    own = {name: getattr(net, name).copy() for name in ("levels", "left", "right", "last")}
    return replace(setup, job=replace(setup.job, net=replace(net, **own)))


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
