"""The steps of a network frozen at a code: each link is affine, knows its linear part and its adjoint.

A frozen network holds S samples. A tensor inside it carries K S rows, K-major: K directions (or cotangents) a sample.
A cotangent that has met no mask yet is the same for all samples and is carried as K rows only ("shared").
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from maxaffine.operators import transpose as adjoint
from maxaffine.operators.affine import Affine
from maxaffine.operators.elementwise import Elementwise
from maxaffine.operators.maximum import Pair, Windows
from maxaffine.operators.registry import SplineOperator
from maxaffine.program.graph import Graph, Layout, Node, Ref, Size, settle, substitute
from maxaffine.program.plan import Step

CONVOLUTIONS = tuple(f"aten.conv{d}d.default" for d in (1, 2, 3))
LINEAR = "aten.linear.default"
BATCH_NORM = "aten._native_batch_norm_legit_no_training.default#0"


@dataclass(frozen=True)
class AffineLink:
    """An affine operation; overrides replace arguments (a convolution that has swallowed its batch norm)."""

    out: int
    step: Step
    rule: Affine
    shapes: tuple[Node, ...]
    passes: bool
    per_row: bool
    overrides: dict[int, Any] = field(default_factory=dict)

    def forward(self, env: list[Any], rows: int, dtype: torch.dtype, device: torch.device, linear: bool) -> Tensor:
        """The operation at the values in env; its linear part alone when linear."""
        live = [env[slot] for _, slot in self.step.live]
        return self._apply(live, env, rows, dtype, device, linear)

    def _apply(
        self,
        live: Sequence[Tensor],
        env: list[Any],
        rows: int,
        dtype: torch.dtype,
        device: torch.device,
        linear: bool,
    ) -> Tensor:
        if linear and self.passes:
            return live[0]
        slots = {slot: value for (_, slot), value in zip(self.step.live, live, strict=True)}
        args = list(
            substitute(self.step.node.args, lambda a: slots.get(a.index, env[a.index]) if type(a) is Ref else a)
        )
        if self.step.node.marked:
            args = settle(args, rows, dtype, device)
        for place, value in self.overrides.items():
            args[place : place + 1] = [value]
        if linear:
            self._drop_shifts(args)
        kwargs = dict(settle(self.step.node.kwargs, rows, dtype, device)) if self.step.kwargs else {}
        return self.step.function(*args, **kwargs)

    def _drop_shifts(self, args: list[Any]) -> None:
        live = {place for place, _ in self.step.live}
        for i in self.rule.biases:
            if i < len(args) and (i,) not in live:
                args[i] = None
        if self.step.node.op == BATCH_NORM:
            args[2], args[3] = None, torch.zeros_like(args[3])
        shifts = [i for i, j in self.rule.products if (i,) not in live and (j,) not in live]
        for i in (*self.rule.shifts, *shifts):
            if i < len(args) and (i,) not in live:
                lists = type(args[i]) in (list, tuple)
                args[i] = (
                    [_zero(v) if (i, j) not in live else v for j, v in enumerate(args[i])] if lists else _zero(args[i])
                )

    def adjoint(self, g: Tensor, env: list[Any], rows: int, dtype: torch.dtype, device: torch.device) -> list[Tensor]:
        """Cotangents of the live operands."""
        if self.passes:
            return [g]
        shapes = [node.sizes(rows) for node in self.shapes]
        transpose = self.rule.transpose
        if transpose is not None and not self.step.kwargs:
            args = self._constant_arguments(env, rows, dtype, device)
            found = [
                transpose(g, args, shape, place[0]) for shape, (place, _) in zip(shapes, self.step.live, strict=True)
            ]
            if all(f is not None for f in found):
                return [f for f in found if f is not None]
        zeros = [g.new_zeros(()).expand(shape) for shape in shapes]
        return adjoint.by_vjp(lambda *z: self._apply(z, env, rows, dtype, device, True), g, zeros)

    def _constant_arguments(self, env: list[Any], rows: int, dtype: torch.dtype, device: torch.device) -> list[Any]:
        slots = {slot for _, slot in self.step.live}
        fill = lambda a: (None if a.index in slots else env[a.index]) if type(a) is Ref else a  # noqa: E731
        args = list(substitute(self.step.node.args, fill))
        if self.step.node.marked:
            args = settle(args, rows, dtype, device)
        for place, value in self.overrides.items():
            args[place : place + 1] = [value]
        return args


@dataclass(frozen=True)
class SplineLink:
    """A spline operator frozen at a code of S samples."""

    out: int
    step: Step
    operator: SplineOperator
    code: Tensor
    layout: Layout
    shapes: tuple[Node, ...]
    samples: int
    frozen: Any
    plain: bool  # whether all live operands and the result have their rows in front

    @property
    def broadcasts(self) -> bool:
        """Whether one frozen piece serves K copies as a leading axis; a user's operator may count axes from it."""
        return self.plain and type(self.operator) in (Elementwise, Pair, Windows)

    def _frozen(self, copies: int, dtype: torch.dtype) -> Any:
        if copies == 1 or self.broadcasts:
            return self.frozen
        rows = self.code.repeat(copies, *[1] * (self.code.dim() - 1))
        return self.operator.freeze(self.layout.from_rows(rows), dtype)

    def _split(self, tensor: Tensor, copies: int) -> Tensor:
        """(K S, ...) -> (K, S, ...) so that the frozen piece broadcasts over the K copies."""
        return tensor.unflatten(0, (copies, -1)) if copies > 1 and self.broadcasts else tensor

    def operands(self, env: list[Any], rows: int, linear: bool) -> list[Tensor]:
        """All operands (a constant one is zero in the linear part), the copies as a leading axis."""
        live, copies = {slot for _, slot in self.step.live}, rows // self.samples
        values = []
        for arg in self.step.node.args[: self._count]:
            if type(arg) is Ref and arg.index in live:
                values.append(self._split(env[arg.index], copies))
            else:
                value: Any = env[arg.index] if type(arg) is Ref else arg
                values.append(value.new_zeros(()) if linear else value)
        return values

    @property
    def _count(self) -> int:
        return len(self.shapes)

    def forward(self, env: list[Any], rows: int, dtype: torch.dtype, device: torch.device, linear: bool) -> Tensor:  # noqa: ARG002
        """The frozen piece at the values in env."""
        copies = rows // self.samples
        value = self.operator.piece(self._frozen(copies, dtype), *self.operands(env, rows, linear), linear=linear)
        return value.flatten(0, 1) if copies > 1 and self.broadcasts else value

    def walls(self, env: list[Any], rows: int, linear: bool) -> Tensor:
        """(W, K S, *units) for a plain layout, rows first in every case: the walls at the values in env."""
        copies = rows // self.samples
        code = self.code if copies == 1 else self.code.repeat(copies, *[1] * (self.code.dim() - 1))
        values = [
            v.flatten(0, 1) if copies > 1 and self.broadcasts and v.dim() else v
            for v in self.operands(env, rows, linear)
        ]
        walls = self.operator.walls(self.layout.from_rows(code), *values, linear=linear)
        return torch.stack([self.layout.to_rows(w) for w in walls])

    def adjoint(
        self, g: Tensor, rows: int, dtype: torch.dtype, shared: bool = False, owned: bool = False
    ) -> list[Tensor]:
        """Cotangents of the live operands, K S rows each; a shared g has K rows, an owned one may be overwritten."""
        copies = rows // self.samples
        g = channels_last(g)
        g = g.unsqueeze(1) if shared else self._split(g, copies)
        lead = (copies, self.samples) if (self.broadcasts and copies > 1) or shared else (rows,)
        shapes = [self._lead(node, rows, lead) for node in self.shapes]
        frozen = self._frozen(copies, dtype)
        if owned and not shared and type(self.operator) is Elementwise:
            found: Sequence[Tensor] = [g.mul_(frozen.slope)]  # saves the memory traffic of a new tensor
        else:
            found = self.operator.transpose(frozen, g, *shapes)
        live = {place[0]: node for place, node in self.step.live}
        result = []
        for i in live:
            cotangent = found[i].flatten(0, 1) if len(lead) == 2 else found[i]
            result.append(adjoint.unbroadcast(cotangent, self.shapes[i].sizes(rows)))
        return result

    def _lead(self, node: Node, rows: int, lead: tuple[int, ...]) -> tuple[int, ...]:
        sizes = node.sizes(rows)
        batched = bool(node.shape) and type(node.shape[0]) is Size
        return sizes if len(lead) == 1 or not batched else (lead[0], sizes[0] // lead[0], *sizes[1:])


Link = AffineLink | SplineLink


def channels_last(tensor: Tensor) -> Tensor:
    """Images with their channels innermost: the layout in which convolutions and masks run fastest on the CPU."""
    fast = tensor.dim() == 4 and tensor.dtype == torch.float32 and tensor.device.type == "cpu"
    return tensor.contiguous(memory_format=torch.channels_last) if fast else tensor


def _zero(value: Any) -> Any:
    return torch.zeros_like(value) if isinstance(value, Tensor) else 0


def affine_link(
    step: Step,
    graph: Graph,
    varying: set[int],
    overrides: dict[int, Any] | None = None,
    out: int | None = None,
) -> AffineLink:
    """The link of an affine step; varying: constants that differ from row to row."""
    assert type(step.rule) is Affine
    shapes = tuple(graph.nodes[slot] for _, slot in step.live)
    alone = len(step.live) == 1 and step.live[0][0] == (0,) and not step.kwargs
    adds = step.rule.transpose in (adjoint.add, adjoint.subtract, adjoint.identity)
    passes = alone and adds and shapes[0].shape == step.node.shape
    per_row = any(j in varying for _, j in step.node.operands())
    return AffineLink(step.out if out is None else out, step, step.rule, shapes, passes, per_row, overrides or {})


def fold_batch_norm(conv: Sequence[Any], norm: Sequence[Any]) -> dict[int, Any]:
    """Overrides {1: weight, 2: bias} of a convolution or linear map that is followed by batch norm at test time."""
    scale, shift = adjoint.batch_norm_affine(norm)
    weight = conv[1] * scale.reshape(-1, *[1] * (conv[1].dim() - 1))
    bias = conv[2] if len(conv) > 2 else None
    return {1: weight, 2: shift if bias is None else bias * scale + shift}
