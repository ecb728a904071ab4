"""A captured network as pure data: a list of operations on tensors, nothing of which can execute by itself."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Ref:
    """The output of an earlier node."""

    index: int


@dataclass(frozen=True)
class Size:
    """A size that depends on the batch: sum_i coefficients[i] B^i."""

    coefficients: tuple[int, ...]

    def __call__(self, batch: int) -> int:
        """The size for a batch of that many rows."""
        return sum(c * batch**i for i, c in enumerate(self.coefficients))


@dataclass(frozen=True)
class BaseDtype:
    """Stands for the floating-point dtype of the spline, so that a converted copy computes in its own."""


@dataclass(frozen=True)
class Device:
    """Stands for the device of the spline."""


Dim = int | Size


@dataclass(frozen=True)
class Layout:
    """Where the rows of the batch are: in this axis, merged there with `repeat` entries of the sample.

    Most tensors carry the batch in front. A time-major network carries it in axis 1, and flatten(0, 1) merges it with
    another axis: of 12 = 3 x 4 rows either each sample's 4 stand together (outer) or they alternate (not outer).
    """

    axis: int = 0
    repeat: int = 1
    outer: bool = True

    @property
    def plain(self) -> bool:
        """Batch first, a sample's entries adjacent: going to rows is at most a reshape."""
        return self.axis == 0 and (self.repeat == 1 or self.outer)

    def to_rows(self, tensor: Tensor) -> Tensor:
        """(N, *units): batch first, the merged entries as an axis of their own."""
        tensor = tensor.movedim(self.axis, 0) if self.axis else tensor
        if self.repeat == 1:
            return tensor
        if self.outer:
            return tensor.unflatten(0, (-1, self.repeat))
        return tensor.unflatten(0, (self.repeat, -1)).transpose(0, 1)

    def from_rows(self, rows: Tensor) -> Tensor:
        """Inverse of to_rows."""
        if self.repeat > 1:
            rows = (rows if self.outer else rows.transpose(0, 1)).flatten(0, 1)
        return rows.movedim(0, self.axis) if self.axis else rows

    def unit_shape(self, shape: tuple[Any, ...]) -> tuple[int, ...]:
        """Shape of one row of a tensor of this shape."""
        rest = tuple(d if type(d) is int else 1 for i, d in enumerate(shape) if i != self.axis)
        return rest if self.repeat == 1 else (self.repeat, *rest)


@dataclass(frozen=True)
class Node:
    """One operation: op is an ATen name with overload (and "#k" for output k), or input / tensor / rows.

    input: the variable the spline is taken over. tensor: args[0] is the number of a stored tensor. rows: the same,
    repeated along the batch. module: path of the calling module; label: the name the user sees.
    """

    op: str
    args: tuple[Any, ...] = ()
    kwargs: tuple[tuple[str, Any], ...] = ()
    module: str = ""
    label: str = ""
    shape: tuple[Dim, ...] = ()
    floating: bool = True

    def operands(self) -> Iterator[tuple[tuple[int, ...], int]]:
        """(position, node) of every node it reads; a position inside a list argument is (argument, place)."""
        for i, arg in enumerate((*self.args, *(v for _, v in self.kwargs))):
            if type(arg) is Ref:
                yield (i,), arg.index
            elif type(arg) in (tuple, list):
                yield from (((i, j), item.index) for j, item in enumerate(arg) if type(item) is Ref)

    @property
    def sized(self) -> bool:
        """Whether an argument depends on the batch size."""
        return any(_mentions(a, (Size,)) for a in (*self.args, *(v for _, v in self.kwargs)))

    @property
    def marked(self) -> bool:
        """Whether a positional argument must be settled before a call."""
        return any(_mentions(a, (Size, BaseDtype, Device)) for a in self.args)

    def sizes(self, batch: int) -> tuple[int, ...]:
        """The shape for a batch of that many rows."""
        return tuple(d(batch) if isinstance(d, Size) else d for d in self.shape)


@dataclass(frozen=True)
class Graph:
    """Nodes in execution order; input and output are node numbers; layouts say where the rows of live nodes are."""

    nodes: tuple[Node, ...]
    input: int
    output: int
    layouts: tuple[Layout | None, ...] = ()

    def users(self) -> list[list[int]]:
        """For every node the nodes that read it."""
        users: list[list[int]] = [[] for _ in self.nodes]
        for i, node in enumerate(self.nodes):
            for _, j in node.operands():
                users[j].append(i)
        return users

    def live(self, start: int) -> list[bool]:
        """Which nodes depend on node start."""
        live = [False] * len(self.nodes)
        live[start] = True
        for i, node in enumerate(self.nodes):
            live[i] |= any(live[j] for _, j in node.operands())
        return live

    def needed(self, ends: list[int], stop: int | None = None) -> list[bool]:
        """Which nodes the ends depend on, not looking behind node stop."""
        needed = [False] * len(self.nodes)
        for end in ends:
            needed[end] = True
        for i in range(len(self.nodes) - 1, -1, -1):
            if needed[i] and i != stop:
                for _, j in self.nodes[i].operands():
                    needed[j] = True
        return needed


def _mentions(value: Any, kinds: tuple[type, ...]) -> bool:
    return type(value) in kinds or (type(value) in (tuple, list) and any(_mentions(v, kinds) for v in value))


def substitute(value: Any, change: Callable[[Any], Any]) -> Any:
    """Rebuild nested arguments with change applied to every leaf."""
    if type(value) in (tuple, list):
        return type(value)(substitute(v, change) for v in value)
    return change(value)


def settle(value: Any, batch: int, dtype: torch.dtype, device: torch.device) -> Any:
    """Replace Size, BaseDtype and Device by what they are for this batch and spline."""

    def change(leaf: Any) -> Any:
        if type(leaf) is Size:
            return leaf(batch)
        if type(leaf) is BaseDtype:
            return dtype
        return device if type(leaf) is Device else leaf

    return substitute(value, change)
