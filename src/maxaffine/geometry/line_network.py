"""A network on intervals of segments: every live node is an affine function of tau on each of them.

A node is carried as its value at the middle of the interval and its derivative with respect to tau, so that nothing is
lost when an interval is short.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import torch
from torch import Tensor

from maxaffine.geometry.convolving import fast_links
from maxaffine.geometry.line_scan import active, simple
from maxaffine.operators.registry import SplineOperator
from maxaffine.program.graph import Ref
from maxaffine.program.links import AffineLink
from maxaffine.program.plan import Plan, Step, operand_count, operator_of
from maxaffine.program.record import layout_of
from maxaffine.spline import Spline
from maxaffine.types import flat


@dataclass(frozen=True)
class Pieces:
    """n intervals of segments in their order; values and slopes: node -> what it is at the middle, and d/dtau."""

    segment: Tensor
    lo: Tensor
    hi: Tensor
    values: dict[int, Tensor]
    slopes: dict[int, Tensor]

    def __len__(self) -> int:
        return len(self.lo)

    @cached_property
    def middle(self) -> Tensor:
        """(n,): where the values are taken."""
        return self.lo + (self.hi - self.lo) / 2

    @property
    def half(self) -> Tensor:
        """(n, 1): half the length."""
        return (self.hi - self.lo)[:, None] / 2


@dataclass(frozen=True)
class Operands:
    """What a spline operator is given on n intervals: its operands' values and slopes, and its code in the middle."""

    step: Step
    operator: SplineOperator
    values: list[Any]
    slopes: list[Any]
    code: Tensor


class Network:
    """A float64 spline that is run on pieces, link by link."""

    def __init__(self, spline: Spline) -> None:
        self.plan = Plan(spline.captured.graph)
        self.plan.require_piecewise_affine("a partition")
        self.device, self.start = spline.device, self.plan.start
        sizes = [prod(step.node.sizes(1)) for step in self.plan.steps]
        self.largest = max([1, *sizes, *(o.units * o.pieces for o in spline.operators)])  # numbers an interval needs
        self._tensors = [source.read().detach() for source in spline.captured.sources]
        self._known: list[Any] | None = None
        self._known = self.constants(1)
        self.links = list(fast_links(self.plan, self._known))

    def constants(self, rows: int) -> list[Any]:
        """The nodes that do not vary, for that many rows."""
        return self.plan.constants(self._tensors, rows, torch.float64, self.device, self._known)

    def rows(self, node: int, tensor: Tensor) -> Tensor:
        """(n, *units): that node's tensor with the rows first."""
        return layout_of(self.plan, node).to_rows(tensor)

    def begin(self, segment: Tensor, x: Tensor, slope: Tensor) -> Pieces:
        """Whole segments with the middles x and the derivatives slope, both (n, *in)."""
        layout, lo = layout_of(self.plan, self.start), torch.zeros(len(x), dtype=torch.float64, device=self.device)
        start = self.start
        return Pieces(segment, lo, lo + 1, {start: layout.from_rows(x)}, {start: layout.from_rows(slope)})

    def affine(self, link: AffineLink, pieces: Pieces, env: list[Any]) -> None:
        """Write what an affine link makes of the pieces."""
        live = [slot for _, slot in link.step.live]
        found = []
        for linear, source in ((False, pieces.values), (True, pieces.slopes)):
            for slot in live:
                env[slot] = source[slot]
            found.append(link.forward(env, len(pieces), torch.float64, self.device, linear))
        for slot in live:
            env[slot] = None
        self._write(pieces, link.out, link.step.dead, *found)

    def operands(self, step: Step, pieces: Pieces, env: list[Any]) -> Operands:
        """What a spline operator is given; constant operands have slope zero."""
        live, values, slopes = {slot for _, slot in step.live}, [], []
        for arg in step.node.args[: operand_count(step)]:
            if type(arg) is Ref and arg.index in live:
                values.append(pieces.values[arg.index])
                slopes.append(pieces.slopes[arg.index])
            else:
                values.append(env[arg.index] if type(arg) is Ref else arg)
                slopes.append(values[-1].new_zeros(()))
        operator = operator_of(self.plan, step, step.arguments(env, len(pieces), torch.float64, self.device))
        return Operands(step, operator, values, slopes, operator.code(*values))

    def select(self, here: Operands, pieces: Pieces) -> None:
        """Write the active piece of a spline operator."""
        if simple(here.operator) and here.code.is_cpu:
            value, slope = active(here.operator, here.code, *here.values, *here.slopes)
        else:
            frozen = here.operator.freeze(here.code, torch.float64)
            value = here.operator.piece(frozen, *here.values)
            slope = here.operator.piece(frozen, *here.slopes, linear=True)
        self._write(pieces, here.step.out, here.step.dead, value, slope)

    def _write(self, pieces: Pieces, out: int, dead: Sequence[int], value: Tensor, slope: Tensor) -> None:
        pieces.values[out], pieces.slopes[out] = value, slope
        for slot in dead:
            del pieces.values[slot], pieces.slopes[slot]

    def walls(self, here: Operands, operands: Sequence[Any], linear: bool) -> Tensor:
        """(W, n, units): the walls of the pieces that are active in the middle, or their derivatives."""
        walls, layout = here.operator.walls(here.code, *operands, linear=linear), layout_of(self.plan, here.step.out)
        rows = torch.stack([layout.to_rows(wall) for wall in walls]) if layout.axis or layout.repeat > 1 else walls
        return rows.flatten(2) if rows.dim() > 2 else rows.unsqueeze(2)

    def scale(self, here: Operands, rows: int) -> Tensor:
        """(rows,): the largest entry of the operands, or of their derivatives."""
        live = {place[0]: slot for place, slot in here.step.live}
        largest = torch.zeros(rows, dtype=torch.float64, device=self.device)
        for i, (value, slope) in enumerate(zip(here.values, here.slopes, strict=True)):
            if i in live:
                for part in (value, slope):
                    largest = torch.maximum(largest, flat(self.rows(live[i], part)).abs().amax(1))
            else:
                largest = largest.clamp(min=float(value.abs().max()))
        return largest

    def at(self, step: Step, x: Tensor, direction: Tensor) -> Operands:
        """What an operator is given at inputs x, and how that changes in a direction within the regions of x."""
        env = self.constants(len(x))
        pieces = self.begin(torch.zeros(len(x), dtype=torch.long, device=self.device), x, direction)
        for link in self._until(step):
            if isinstance(link, AffineLink):
                self.affine(link, pieces, env)
            else:
                self.select(self.operands(link, pieces, env), pieces)
        return self.operands(step, pieces, env)

    def _until(self, step: Step) -> Iterator[AffineLink | Step]:
        """The links before a step."""
        for link in self.links:
            if link is step:
                return
            yield link

    def part(self, pieces: Pieces, parent: Tensor, lo: Tensor, hi: Tensor) -> Pieces:
        """Smaller intervals of the parents' rows: values go to the new middle, slopes stay."""
        shift = lo + (hi - lo) / 2 - pieces.middle[parent]
        values, slopes = {}, {}
        for slot, value in pieces.values.items():
            layout = layout_of(self.plan, slot)
            slope = layout.to_rows(pieces.slopes[slot])[parent]
            moved = torch.addcmul(layout.to_rows(value)[parent], slope, shift.reshape(-1, *[1] * (slope.dim() - 1)))
            values[slot], slopes[slot] = layout.from_rows(moved), layout.from_rows(slope)
        return Pieces(pieces.segment[parent], lo, hi, values, slopes)
