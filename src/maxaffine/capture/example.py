"""The example inputs: three equal rows with a free batch, one of them the variable and the others fixed."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from maxaffine.errors import CaptureError

ROWS = 3  # 1 is specialised by torch.export and 2 may coincide with a constant of the model


@dataclass(frozen=True)
class Call:
    """An example with positional and keyword inputs."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass(frozen=True)
class Inputs:
    """Arguments for the model at ROWS rows, which of their leaves carry the batch, and where the variable is."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    batched: tuple[bool, ...]
    variable: int
    named: bool

    @property
    def leaves(self) -> list[Any]:
        """All inputs, flattened in the order of the call."""
        return pytree.tree_leaves((self.args, self.kwargs))

    def replaced(self, leaves: list[Any]) -> "Inputs":
        """The same call with other leaves."""
        spec = pytree.tree_structure((self.args, self.kwargs))
        args, kwargs = pytree.tree_unflatten(leaves, spec)
        return Inputs(args, kwargs, self.batched, self.variable, self.named)

    def with_rows(self, rows: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments and keyword arguments for another number of equal rows."""
        pairs = zip(self.leaves, self.batched, strict=True)
        other = self.replaced([v[:1].expand(rows, *v.shape[1:]).clone() if b else v for v, b in pairs])
        return other.args, other.kwargs

    def dynamic_shapes(self, forward: Callable[..., Any]) -> dict[str, Any]:
        """What torch.export wants: the batch free on every batched input, by the parameter names of forward."""
        batch = torch.export.Dim("batch")
        spec = pytree.tree_structure((self.args, self.kwargs))
        args, kwargs = pytree.tree_unflatten([{0: batch} if b else None for b in self.batched], spec)
        try:
            signature = inspect.signature(forward)
            shapes = dict(signature.bind(*args, **kwargs).arguments)
        except TypeError as error:
            raise CaptureError(f"the example does not fit the model's forward: {error}") from None
        loose = [n for n in shapes if signature.parameters[n].kind is inspect.Parameter.VAR_KEYWORD]
        if loose:  # torch.export cannot set sizes free there
            raise CaptureError(
                f"the inputs {list(shapes[loose[0]])} arrive in **{loose[0]} of forward; give forward named parameters"
            )
        return shapes


def arrange(example: Any, over: int | str | None, forward: Callable[..., Any]) -> Inputs:
    """Spread an example (a tensor, a tuple, or keyword inputs as a mapping) to ROWS equal rows.

    over: position or name of the variable (a path of a module is looked up later, in the graph); with one floating
    input it may be left out.
    """
    args, kwargs = _call(example)
    leaves = pytree.tree_leaves((args, kwargs))
    names = _names(args, kwargs)
    over = _position(over, args, forward)
    tensors = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    if not tensors:
        raise CaptureError(
            f"the example holds no tensor ({type(example).__name__}); give a tensor, a tuple or a dict of inputs"
        )
    variable = _find(over, names, leaves, tensors)
    value = leaves[variable]
    if value.dim() == 0 or value.shape[0] == 0:
        raise CaptureError(
            f"the example {names[variable]!r} has shape {tuple(value.shape)}: its first axis must be a batch of >= 1"
        )
    rows = value.shape[0]
    batched = tuple(isinstance(v, Tensor) and v.dim() > 0 and v.shape[0] == rows for v in leaves)
    spread = [_spread(v, names[i], i == variable) if batched[i] else v for i, v in enumerate(leaves)]
    return Inputs(args, kwargs, batched, variable, over in names).replaced(spread)


def _call(example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(example, Call):
        return example.args, example.kwargs
    if isinstance(example, Mapping):
        return (), dict(example)
    return (tuple(example) if isinstance(example, tuple | list) else (example,)), {}


def _names(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[str | int]:
    names: list[str | int] = []
    for key, value in [*enumerate(args), *kwargs.items()]:
        names.extend([key] * len(pytree.tree_leaves(value)))
    return names


def _position(over: int | str | None, args: tuple[Any, ...], forward: Callable[..., Any]) -> int | str | None:
    """The name of a parameter of forward that is given by position, as that position."""
    parameters = list(inspect.signature(forward).parameters)[: len(args)]
    return parameters.index(over) if isinstance(over, str) and over in parameters else over


def _find(over: int | str | None, names: list[str | int], leaves: list[Any], tensors: list[int]) -> int:
    if over in names and over is not None:
        return names.index(over)
    if type(over) is int:
        raise CaptureError(f"over={over!r}, but the inputs are {names}")
    floating = [i for i in tensors if leaves[i].is_floating_point()]
    if over is not None or len(floating or tensors) == 1:
        return (floating or tensors)[0]
    raise CaptureError(
        f"the model has several inputs ({names}); name the one that varies: over={names[floating[0]]!r}, say"
    )


def _spread(value: Tensor, name: str | int, varies: bool) -> Tensor:
    if value.is_floating_point() and value.dtype.itemsize < 4:
        raise CaptureError(f"the example {name!r} is {value.dtype}; convert model and example with .to(torch.float32)")
    if varies and value.is_floating_point() and not bool(value.isfinite().all()):
        raise CaptureError(f"the example {name!r} contains NaN or infinite values; remove or replace them")
    if not varies and not bool((value == value[:1]).all()):
        raise CaptureError(f"the fixed input {name!r} has {value.shape[0]} different rows; give one row (batch 1)")
    return value.detach()[:1].expand(ROWS, *value.shape[1:]).clone()
