"""A node bound to its constants: a function of its tensors alone, in torch's terms."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from maxaffine.errors import CaptureError

from .ops import ALL, NUMBERS, REVERSED, Rule
from .reader import Node

NO_AXES_NO_OP = "noop_with_empty_axes"  # says that an empty list of axes means none of them, not all


@dataclass(frozen=True)
class Value:
    """A tensor of the file, at batch 1 and at the batch of the file; live if it depends on an input."""

    one: Tensor
    full: Tensor
    live: bool

    @property
    def hidden(self) -> bool:
        """Whether the first axis is not the batch."""
        return self.one.dim() == 0 or self.one.shape[0] != 1


Operands = Sequence[Value | None]


def one(value: Value) -> Tensor:
    """The tensor at batch 1."""
    return value.one


def full(value: Value) -> Tensor:
    """The tensor at the batch of the file."""
    return value.full


def bind(rule: Rule, node: Node, operands: Operands, pick: Callable[[Value], Tensor]) -> Callable[..., Any]:
    """The function of the node with its attributes, constant operands and axes filled in.

    Raises:
        CaptureError: an unknown attribute, an operand that should be constant, an axis that is the batch.
    """
    known = {name: value for name, value in node.attributes.items() if name not in rule.ignored}
    every = not known.pop(NO_AXES_NO_OP, 0)
    unknown = rule.unknown(known)
    if unknown:
        raise CaptureError(f"its attribute {unknown[0]} = {known[unknown[0]]} is not supported")
    if rule.tensors is not None:
        if len(operands) > rule.tensors + len(rule.static):
            raise CaptureError(
                f"it has {len(operands)} operands, at most {rule.tensors + len(rule.static)} are supported"
            )
        for name, value in zip(rule.static, operands[rule.tensors :], strict=False):
            if value is not None and name not in rule.ignored:
                known[name] = _plain(name, value, pick)
    lead = next((v for v in operands if v is not None and v.live), operands[0] if operands else None)
    if lead is not None and known.get("sizes") and len(known["sizes"]) == lead.one.dim():
        new, old = pick(lead).shape, lead.full.shape  # where the batch is wired in, at batch 1 it is 1
        known["sizes"] = [new[i] if s == old[i] else s for i, s in enumerate(known["sizes"])]
    if rule.axes and lead is not None:
        known |= _axes(rule, known, lead, every=every)
    return partial(rule.target or rule.run, **known)


def _plain(name: str, value: Value, pick: Callable[[Value], Tensor]) -> Any:
    if value.live:
        raise CaptureError(f"its operand '{name}' depends on the input of the network; only a constant is supported")
    tensor = pick(value)
    return tensor.reshape(()).item() if name in NUMBERS else tensor.tolist()


def _axes(rule: Rule, known: dict[str, Any], lead: Value, *, every: bool) -> dict[str, Any]:
    """The axes counted from the right."""
    rank, result = lead.one.dim(), {}
    for name, default in rule.axes.items():
        axes = known.get(name, default)
        if default == ALL and (axes == ALL or not axes):
            axes = list(range(rank)) if every else []
        if default == REVERSED:
            axes = list(range(rank))[::-1] if axes == REVERSED else axes
            if sorted(axes) != list(range(rank)):
                raise CaptureError(f"its {name} {axes} is no order of the {rank} axes of its operand")
        if axes is None:
            continue
        listed = [axes] if isinstance(axes, int) else axes
        if any(not -rank <= axis < rank for axis in listed):
            raise CaptureError(f"its {name} {axes} does not fit an operand of {rank} axes")
        counted = [axis - rank if axis >= 0 else axis for axis in listed]
        if -rank in counted and lead.live and not lead.hidden and not rule.moves:
            raise CaptureError("it computes along the first axis, which is the batch: rows would depend on each other")
        result[name] = counted[0] if isinstance(axes, int) else counted
    return result
