"""The network frozen at the codes of S samples: one affine map a sample, applied forwards, backwards or at a point."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from maxaffine.operators.registry import Spline1, Spline2
from maxaffine.program.graph import Graph, Layout
from maxaffine.program.links import (
    BATCH_NORM,
    FOLDABLE,
    AffineLink,
    Link,
    SplineLink,
    affine_link,
    fold_batch_norm,
)
from maxaffine.program.plan import Plan, Step, operand_count, operator_of


@dataclass(frozen=True)
class Codes:
    """What freezing needs of S samples: the code of each spline step (S, *units) and the values held fixed (S, ...)."""

    pieces: Mapping[int, Tensor]
    held: Mapping[int, Tensor]

    def __getitem__(self, rows: slice) -> "Codes":
        return Codes({k: v[rows] for k, v in self.pieces.items()}, {k: v[rows] for k, v in self.held.items()})


class Frozen:
    """The links of a plan at given codes; every method takes K S rows, K-major."""

    def __init__(
        self,
        plan: Plan,
        tensors: Sequence[Tensor],
        codes: Codes,
        samples: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.plan, self.tensors, self.codes, self.samples = plan, tensors, codes, samples
        self.dtype, self.device = dtype, device
        self._constants: dict[tuple[int, bool], list[Any]] = {}
        env = self.constants(samples, linear=False)
        varying = {*plan.held, *(set(plan.fixed) - plan.static)}
        self.links = list(_links(plan, env, codes, self.dtype, varying))

    def constants(self, rows: int, linear: bool) -> list[Any]:
        """Constants for that many rows; the held values are zero in a linear part."""
        key = (rows, linear and bool(self.plan.held))
        if key not in self._constants:
            known = next(iter(self._constants.values()), None)
            env = self.plan.constants(self.tensors, rows, self.dtype, self.device, known)
            for j in self.plan.held:
                env[j] = self._held(j, rows, linear)
            self._constants[key] = env
        return list(self._constants[key])

    def _held(self, j: int, rows: int, linear: bool) -> Tensor:
        if linear:
            return torch.zeros(self.plan.graph.nodes[j].sizes(rows), dtype=self.dtype, device=self.device)
        layout = _layout(self.plan.graph, j)
        value = self.codes.held[j]
        return layout.from_rows(value.repeat(rows // self.samples, *[1] * (value.dim() - 1)))

    def forward(
        self, x: Tensor, linear: bool, watch: Callable[[SplineLink, list[Any], int], None] | None = None
    ) -> Tensor:
        """The frozen map at x, or its linear part; watch sees every spline link before it acts."""
        rows = x.shape[0] if self.plan.start == self.plan.graph.input else self._rows(x)
        env = self.constants(rows, linear)
        env[self.plan.start] = x
        last = self._last_use()
        for n, link in enumerate(self.links):
            if watch is not None and type(link) is SplineLink:
                watch(link, env, rows)
            env[link.out] = link.forward(env, rows, self.dtype, self.device, linear)
            for slot in last.get(n, ()):
                env[slot] = None
        return env[self.plan.ends[0]] if self.plan.ends else x

    def _rows(self, x: Tensor) -> int:
        layout = _layout(self.plan.graph, self.plan.start)
        return x.shape[layout.axis] // layout.repeat

    def _last_use(self) -> dict[int, list[int]]:
        last = {slot: n for n, link in enumerate(self.links) for _, slot in link.step.live}
        dead: dict[int, list[int]] = {}
        for slot, n in last.items():
            if slot not in self.plan.ends:
                dead.setdefault(n, []).append(slot)
        return dead

    def adjoint(self, u: Tensor, shared: bool = False) -> Tensor:
        """Cotangent of the start for a cotangent u of the end: (K S, ...) rows; shared: u has the K rows of all samples."""
        copies = u.shape[0] if shared else self._end_rows(u) // self.samples
        rows = copies * self.samples
        pending: dict[int, tuple[Tensor, bool]] = {
            self.plan.ends[0]: (u, shared and self._shareable(self.plan.ends[0]))
        }
        if shared and not pending[self.plan.ends[0]][1]:
            pending[self.plan.ends[0]] = (self._unshare(u, self.plan.ends[0], copies), False)
        for link in reversed(self.links):
            if link.out not in pending:
                continue
            g, common = pending.pop(link.out)
            if common and ((link.per_row and type(link) is AffineLink) or not self._links_share(link)):
                g, common = self._unshare(g, link.out, copies), False
            found, common = self._pull(link, g, copies if common else rows, common, rows)
            for (_, slot), cotangent in zip(link.step.live, found, strict=True):
                pending[slot] = self._add(pending.get(slot), cotangent, common, slot, copies)
        g, common = pending.get(self.plan.start, (None, False))
        if g is None:
            return torch.zeros(self.plan.graph.nodes[self.plan.start].sizes(rows), dtype=self.dtype, device=self.device)
        return self._unshare(g, self.plan.start, copies) if common else g

    def _pull(self, link: Link, g: Tensor, rows: int, common: bool, full: int) -> tuple[list[Tensor], bool]:
        env = self.constants(rows, linear=True)
        if type(link) is SplineLink:
            return link.adjoint(g, env, full, self.dtype, self.device, common), False
        assert type(link) is AffineLink
        return link.adjoint(g, env, rows, self.dtype, self.device), common

    def _end_rows(self, u: Tensor) -> int:
        layout = _layout(self.plan.graph, self.plan.ends[0])
        return u.shape[layout.axis] // layout.repeat

    def _shareable(self, node: int) -> bool:
        layout = _layout(self.plan.graph, node)
        return layout.axis == 0 and layout.repeat == 1

    def _links_share(self, link: Link) -> bool:
        return all(self._shareable(slot) for _, slot in link.step.live)

    def _unshare(self, g: Tensor, node: int, copies: int) -> Tensor:
        """K rows -> K S rows."""
        layout = _layout(self.plan.graph, node)
        rows = layout.to_rows(g)
        rows = rows.unsqueeze(1).expand(copies, self.samples, *rows.shape[1:]).flatten(0, 1)
        return layout.from_rows(rows)

    def _add(
        self, old: tuple[Tensor, bool] | None, g: Tensor, common: bool, slot: int, copies: int
    ) -> tuple[Tensor, bool]:
        if old is None:
            return g, common
        other, both = old
        if both != common:
            g = self._unshare(g, slot, copies) if common else g
            other = self._unshare(other, slot, copies) if both else other
        return other + g, common and both


def _layout(graph: Graph, node: int) -> Layout:
    layout = graph.layouts[node] if graph.layouts else Layout()
    assert layout is not None
    return layout


def _links(plan: Plan, env: list[Any], codes: Codes, dtype: torch.dtype, varying: set[int]) -> Iterator[Link]:
    graph, skip = plan.graph, set()
    following = _foldable(plan)
    for step in plan.steps:
        if step.out in skip:
            continue
        if type(step.rule) in (Spline1, Spline2):
            yield _spline_link(plan, step, env, codes, dtype)
        elif step.out in following:
            norm = following[step.out]
            skip.add(norm.out)
            overrides = fold_batch_norm(_values(step, env), _values(norm, env))
            yield affine_link(step, graph, varying, overrides, norm.out)
        else:
            yield affine_link(step, graph, varying)


def _foldable(plan: Plan) -> dict[int, Step]:
    """Convolution or linear step -> the batch norm that alone reads it."""
    readers: dict[int, list[Step]] = {}
    for step in plan.steps:
        for _, slot in step.live:
            readers.setdefault(slot, []).append(step)
    found: dict[int, Step] = {}
    for step in plan.steps:
        after = readers.get(step.out, [])
        alone = len(after) == 1 and step.out not in plan.ends
        if alone and after[0].node.op == BATCH_NORM and step.node.op in FOLDABLE and step.live[0][0] == (0,):
            if step.node.op != "aten.linear.default" or len(step.node.shape) == 2:
                found[step.out] = after[0]
    return found


def _values(step: Step, env: list[Any]) -> list[Any]:
    slots = {slot for _, slot in step.live}
    full = list(env)
    for slot in slots:
        full[slot] = None
    return list(step.arguments(full, 1, torch.float32, torch.device("cpu")))


def _spline_link(plan: Plan, step: Step, env: list[Any], codes: Codes, dtype: torch.dtype) -> SplineLink:
    graph = plan.graph
    operands = [graph.nodes[j] for place, j in step.node.operands() if len(place) == 1]
    operands = operands[: operand_count(step)]
    operator = operator_of(plan, step, _values(step, env))
    layout = _layout(graph, step.out)
    code = codes.pieces[step.out]
    frozen = operator.freeze(layout.from_rows(code), dtype)
    return SplineLink(step.out, step, operator, code, layout, tuple(operands), code.shape[0], frozen)
