"""The exact partition of a plane: shared vertices, convex cells, labelled edges, codes and affine maps."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maxaffine.code import Code, Signature
from maxaffine.errors import InputError
from maxaffine.geometry.level_sets import trace
from maxaffine.geometry.mesh import measured
from maxaffine.geometry.relunet import TOURNAMENT, Floats, Ints, ReluNet
from maxaffine.geometry.topology import winners
from maxaffine.slice import Plane


@dataclass(frozen=True, eq=False)
class UnitLists(Sequence[tuple[tuple[str, int], ...]]):
    """For each edge or vertex the units that change there: [i] -> ((operator name, flat unit index), ...)."""

    names: tuple[str, ...]
    offsets: Ints
    operators: Ints
    units: Ints

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, i: int) -> tuple[tuple[str, int], ...]: ...
    @overload
    def __getitem__(self, i: slice) -> "list[tuple[tuple[str, int], ...]]": ...
    def __getitem__(self, i: int | slice) -> "tuple[tuple[str, int], ...] | list[tuple[tuple[str, int], ...]]":
        if isinstance(i, slice):
            return [self[k] for k in range(len(self))[i]]
        i = range(len(self))[i]
        rows = slice(self.offsets[i], self.offsets[i + 1])
        pairs = dict.fromkeys(zip(self.operators[rows].tolist(), self.units[rows].tolist(), strict=True))
        return tuple((self.names[o], u) for o, u in pairs)


@dataclass(frozen=True, eq=False)
class PlaneCodes:
    """The codes of F cells, built for the cells asked for: codes[i:j] -> Code.

    bits: (F, W) uint64, the reduced units that are on; everything else is the same in all cells.
    """

    signature: Signature
    net: ReluNet
    bits: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.bits)

    def __getitem__(self, key: int | slice | NDArray[np.int64]) -> Code:
        if isinstance(key, int | np.integer):
            key = np.array([range(len(self))[int(key)]])
        bits = np.ascontiguousarray(self.bits[key])
        return Code(self.signature, tuple(self._pieces(o, bits) for o in range(len(self.signature))), len(bits))

    def __iter__(self) -> Iterator[Code]:
        return (self[i] for i in range(len(self)))

    def _pieces(self, operator: int, bits: NDArray[np.uint64]) -> Tensor:
        net, units = self.net, self.signature[operator]
        kind = np.uint8 if units.pieces <= 256 else np.int32
        values = np.repeat(net.base[operator].astype(kind)[None], len(bits), 0)
        for k in np.flatnonzero((net.operator == operator) & (net.kind != TOURNAMENT)):
            values[:, net.unit[k]] += ((bits[:, k >> 6] >> np.uint64(k & 63)) & np.uint64(1)).astype(kind)
        roots = net.roots[net.roots[:, 0] == operator]
        values[:, roots[:, 1]] = winners(bits, roots[:, 2].copy(), net.left, net.right)
        return torch.from_numpy(values.reshape(len(bits), *units.shape))


@dataclass(frozen=True, eq=False)
class PlanePartition:
    """The cells of a network on the plane x = origin + s u + t v, inside a convex polygon.

    vertices: (V, 2) in (s, t). offsets (F + 1,), indices: the corners of each cell, counter-clockwise. edges: (E, 2)
    vertices. neighbours: (E, 2) the cells on the left and right of each edge, -1 outside. A (F, *out, 2), b (F, *out):
    f = b + A (s, t) on the cell. All float64 and int64. Cells are the classes of the code: neighbours differ in it.
    Source: Humayun et al. 2023, arXiv 2302.12828 (partitions of slices); Sotoudeh & Thakur 2021 (SyReNN).

    >>> import torch, maxaffine as ma
    >>> spline = ma.Spline(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.ReLU()), torch.zeros(1, 2))
    >>> plane = ma.partition(spline, ma.Plane.square(torch.zeros(2), torch.tensor([1.0, 0]), torch.tensor([0, 1.0])))
    >>> len(plane), len(plane.vertices), len(plane.edges), plane.areas.tolist()
    (4, 9, 12, [1.0, 1.0, 1.0, 1.0])
    """

    plane: Plane
    vertices: Floats
    offsets: Ints
    indices: Ints
    edges: Ints
    neighbours: Ints
    edge_units: UnitLists
    A: Floats
    b: Floats
    codes: PlaneCodes

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def cells(self) -> tuple[Ints, Ints]:
        """(offsets (F + 1,), indices): cell i has the vertices indices[offsets[i]:offsets[i + 1]]."""
        return self.offsets, self.indices

    @cached_property
    def _measures(self) -> tuple[Floats, Floats]:
        return measured(self.vertices, self.offsets, self.indices)

    @property
    def areas(self) -> Floats:
        """(F,) areas in (s, t)."""
        return self._measures[0]

    @property
    def centres(self) -> Floats:
        """(F, 2) a point inside each cell: the mean of its corners."""
        return self._measures[1]

    @cached_property
    def vertex_units(self) -> UnitLists:
        """The units that change across the edges at each vertex."""
        lists, ends = self.edge_units, self.edges.T.reshape(-1)
        counts = np.tile(np.diff(lists.offsets), 2)
        entry = np.repeat(np.tile(lists.offsets[:-1], 2) - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        order = np.argsort(np.repeat(ends, counts), kind="stable")
        sizes = np.bincount(ends, weights=counts, minlength=len(self.vertices)).astype(np.int64)
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
        return UnitLists(lists.names, offsets, lists.operators[entry][order], lists.units[entry][order])

    def embed(self, st: Tensor | Floats) -> Tensor:
        """(n, 2) in (s, t) -> inputs (n, *in), float64."""
        return self.plane.embed(st)

    def level_set(self, i: int, j: int | None = None, level: float = 0.0) -> list[Floats]:
        """Polylines [(k, 2), ...] in (s, t) where out[i] - out[j] (or out[i]) passes the level; see level_sets.py.

        i, j: flat output indices. A closed line repeats its first point at its end. The decision boundary between two
        classes is level_set(i, j). It is the border of where the output is below the level: there is no line where the
        output only touches it, and none inside cells on which it equals the level. Raises InputError.
        """
        A, b = self.A.reshape(len(self), -1, 2), self.b.reshape(len(self), -1)
        for index in (i, j):
            if not isinstance(index, int | np.integer | None):
                raise InputError(f"output {index!r}; give the flat index of an output, a whole number")
            if index is not None and not -b.shape[1] <= index < b.shape[1]:
                raise InputError(f"output {index} of a network with {b.shape[1]} outputs")
        if not np.isfinite(level):
            raise InputError(f"level={level}; a finite number is needed")
        slope, shift = A[:, i], b[:, i] - level
        if j is not None:
            slope, shift = slope - A[:, j], shift - b[:, j]
        return trace(self.vertices, self.edges, self.neighbours, slope, shift)

    def __repr__(self) -> str:
        return f"PlanePartition({len(self)} cells, {len(self.vertices)} vertices, {len(self.edges)} edges)"
