"""The network of an ONNX file as a torch module: one child per node, the batch always in front.

A *row* is one pass of the file at batch 1; the module maps a batch of rows to the batch of their results.
A value of the file with sizes (1, *rest) is held as (B, *rest). A value whose first size is not 1, say after
a Transpose that moved the batch of 1 elsewhere, is held *hidden* as (B, *sizes): the rows stacked in front of
all that the file knows. Since operators count axes from the right, they run unchanged in either.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from maxaffine.errors import CaptureError

Form = Literal["rows", "hidden", "padded", "folded"]
FORMS: tuple[Form, ...] = ("rows", "hidden", "padded", "folded")  # in the order of preference


@dataclass(frozen=True)
class Layout:
    """How a step holds its operands while it runs.

    rows: as they are; hidden: all rows stacked; padded: stacked, with axes of size 1 up to `rank` so that
    operands of different rank broadcast; folded: the first axis of the file merged into the batch, for
    operators of fixed rank.
    """

    form: Form
    hidden: tuple[bool, ...]  # of each operand
    rank: int  # the largest of all operands, as the file counts
    leads: tuple[int | None, ...] = ()  # the first size of each result, as the file counts; None without axes

    def enter(self, x: Tensor, index: int) -> Tensor:
        """An operand as the operator wants it."""
        if self.form == "rows":
            return x
        x = x if self.hidden[index] else x.unsqueeze(1)
        if self.form == "folded":
            return x.flatten(0, 1)
        while self.form == "padded" and x.dim() <= self.rank:
            x = x.unsqueeze(1)
        return x

    def leave(self, y: Tensor, index: int) -> Tensor:
        """A result as the next step wants it."""
        lead = self.leads[index]
        if self.form == "rows":
            return y
        if self.form == "folded":
            return y.unflatten(0, (-1, lead or 1))
        return y.squeeze(1) if lead == 1 else y


class Step(nn.Module):
    """One ONNX node: `run` of its live operands and its constants."""

    def __init__(
        self,
        run: Callable[..., Any],
        operands: Sequence[str | Tensor | None],
        writes: tuple[str, ...],
        layout: Layout,
        *,
        spread: bool = False,
    ) -> None:
        super().__init__()
        self.run, self.writes, self.layout, self.spread = run, writes, layout, spread
        self.reads = tuple(operand for operand in operands if isinstance(operand, str))
        self.slots: list[str | int | None] = []  # a name: constant; a number: live operand; None: absent
        live = iter(range(len(self.reads)))
        for i, operand in enumerate(operands):
            if isinstance(operand, nn.Parameter):
                self.register_parameter(f"operand{i}", operand)
            elif isinstance(operand, Tensor):
                self.register_buffer(f"operand{i}", operand)
            self.slots.append(operand if operand is None else next(live) if isinstance(operand, str) else f"operand{i}")

    def forward(self, *live: Tensor) -> tuple[Tensor, ...]:
        """The results of the node for a batch of rows."""
        entered = [self.layout.enter(x, i) for i, x in enumerate(live)]
        y = self.run(*(self._operand(slot, entered) for slot in self.slots))
        return tuple(self.layout.leave(part, i) for i, part in enumerate(y if isinstance(y, tuple) else (y,)))

    def _operand(self, slot: str | int | None, entered: list[Tensor]) -> Tensor | None:
        if slot is None or isinstance(slot, int):
            return None if slot is None else entered[slot]
        constant = getattr(self, slot)
        if not self.spread:
            return constant
        front = entered[0]
        return constant.expand(front.shape[0], *constant.shape[constant.dim() + 1 - front.dim() :])


class OnnxModule(nn.Module):
    """The network of an ONNX file: `forward(*inputs)`, each (B, ...), gives one (B, ...) or a tuple of them.

    `names` maps the path of each child ("steps.3") to the first output of its ONNX node.
    """

    def __init__(self, inputs: tuple[str, ...], outputs: tuple[str, ...], steps: Sequence[Step]) -> None:
        super().__init__()
        self.inputs, self.outputs = inputs, outputs
        self.steps = nn.ModuleList(steps)
        self.names: Mapping[str, str] = {f"steps.{i}": step.writes[0] for i, step in enumerate(steps)}

    def place_of(self, over: int | str | None) -> int | str | None:
        """An input of the file by name or number as its position, the output of a node as the path of its step."""
        if not isinstance(over, str):
            return over
        paths = {name: path for path, name in self.names.items()}
        if over in self.inputs or over in paths:
            return self.inputs.index(over) if over in self.inputs else paths[over]
        if over.isdecimal():
            return int(over)
        raise CaptureError(f"over={over!r} is none of the file's inputs {list(self.inputs)}, nor a node's output")

    def output_of(self, select: Any) -> Any:
        """An output of the file by name or number as its position; None where it is the only one."""
        if not isinstance(select, str) or (select.isdecimal() and select not in self.outputs):
            return select
        if select not in self.outputs:
            raise CaptureError(f"select={select!r} is none of the file's outputs {list(self.outputs)}")
        return self.outputs.index(select) if len(self.outputs) > 1 else None

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The outputs for a batch of rows."""
        values = dict(zip(self.inputs, inputs, strict=True))
        for step in self.steps:
            assert isinstance(step, Step)
            values.update(zip(step.writes, step(*(values[name] for name in step.reads)), strict=False))
        results = tuple(values[name] for name in self.outputs)
        return results[0] if len(results) == 1 else results


def same(a: Tensor, b: Tensor) -> bool:
    """Equal in shape, and in value up to rounding in single precision."""
    if a.shape != b.shape:
        return False
    if not a.is_floating_point():
        return bool((a == b).all())
    finite = b[b.isfinite()].double().abs()
    scale = finite.max().item() if finite.numel() else 1.0
    return torch.allclose(a.double(), b.double(), rtol=1e-4, atol=1e-4 * scale, equal_nan=True)
