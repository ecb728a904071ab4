"""The network frozen at the codes of S samples: one affine map a sample, applied forwards, backwards or at a point."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from maxaffine.operators.registry import Spline1, Spline2
from maxaffine.program.graph import Graph, Layout
from maxaffine.program.links import (
    BATCH_NORM,
    CONVOLUTIONS,
    LINEAR,
    AffineLink,
    Link,
    SplineLink,
    affine_link,
    channels_last,
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
        like: "Frozen | None" = None,
    ) -> None:
        """like: the same network at other codes; its static constants and affine links serve here too."""
        self.plan, self.tensors, self.codes, self.samples = plan, tensors, codes, samples
        self.dtype, self.device = dtype, device
        self._static = like._static if like else None
        self._constants: dict[tuple[int, bool], list[Any]] = {}
        env = self.constants(samples, linear=False)
        self._static = self._static or env
        self._affine: list[AffineLink | Step] = like._affine if like else list(affine_links(plan, env))
        self.links: list[Link] = [
            _spline_link(plan, link, env, codes, dtype) if isinstance(link, Step) else link for link in self._affine
        ]

    def constants(self, rows: int, linear: bool) -> list[Any]:
        """Constants for that many rows; the held values are zero in a linear part."""
        key = (rows, linear and bool(self.plan.held))
        if key not in self._constants:
            env = self.plan.constants(self.tensors, rows, self.dtype, self.device, self._static)
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

    def adjoint(self, u: Tensor) -> Tensor:
        """Cotangent of the start for cotangents u (K S, *out) of the end."""
        layout = _layout(self.plan.graph, self.plan.ends[0])
        copies = u.shape[layout.axis] // layout.repeat // self.samples
        return self.finish(Prefix({self.plan.ends[0]: Cotangent(u)}, len(self.links)), copies)

    def prefix(self, basis: Tensor) -> "Prefix":
        """Pull K cotangents of the end back as far as they are the same for all samples."""
        pending = {self.plan.ends[0]: Cotangent(basis, common=self._shareable(self.plan.ends[0]))}
        if not pending[self.plan.ends[0]].common:
            return Prefix(pending, len(self.links), unshared=True)
        n = len(self.links)
        while n and self._shares(self.links[n - 1]):
            n -= 1
            self._step(self.links[n], pending, len(basis))
        for cotangent in pending.values():
            cotangent.owned = False
        return Prefix(pending, n)

    def finish(self, prefix: "Prefix", copies: int) -> Tensor:
        """Pull the rest back for all samples: (K S, *in)."""
        pending = {slot: replace(c) for slot, c in prefix.pending.items()}
        if prefix.unshared:
            pending = {slot: Cotangent(self._unshare(c.tensor, slot, copies)) for slot, c in pending.items()}
        for link in reversed(self.links[: prefix.position]):
            self._step(link, pending, copies)
        start = pending.get(self.plan.start)
        if start is None:
            shape = self.plan.graph.nodes[self.plan.start].sizes(copies * self.samples)
            return torch.zeros(shape, dtype=self.dtype, device=self.device)
        return self._unshare(start.tensor, self.plan.start, copies) if start.common else start.tensor

    def _step(self, link: Link, pending: dict[int, "Cotangent"], copies: int) -> None:
        if link.out not in pending:
            return
        c = pending.pop(link.out)
        plain = all(self._shareable(node) for node in (link.out, *(slot for _, slot in link.step.live)))
        stays = link.broadcasts if type(link) is SplineLink else self._shares(link)
        if c.common and not (plain and stays):
            c = Cotangent(self._unshare(c.tensor, link.out, copies))
        rows = copies * self.samples
        if type(link) is SplineLink:
            alone = c.owned and not _held(c.tensor, [p.tensor for p in pending.values()])
            found, common = link.adjoint(c.tensor, rows, self.dtype, c.common, alone), False
        else:
            assert type(link) is AffineLink
            rows, common = copies if c.common else rows, c.common
            found = link.adjoint(c.tensor, self.constants(rows, linear=True), rows, self.dtype, self.device)
        for (_, slot), cotangent in zip(link.step.live, found, strict=True):
            fresh = c.owned or not _shares_memory(cotangent, c.tensor)
            owned = fresh and not torch.is_grad_enabled() and not _overlaps(cotangent)
            self._add(pending, slot, Cotangent(cotangent, common, owned), copies, found)

    def _shares(self, link: Link) -> bool:
        ends = [link.out, *(slot for _, slot in link.step.live)]
        return type(link) is AffineLink and not link.per_row and all(self._shareable(node) for node in ends)

    def _shareable(self, node: int) -> bool:
        layout = _layout(self.plan.graph, node)
        return layout.axis == 0 and layout.repeat == 1

    def _unshare(self, g: Tensor, node: int, copies: int) -> Tensor:
        """K rows -> K S rows."""
        layout = _layout(self.plan.graph, node)
        rows = layout.to_rows(g)
        rows = rows.unsqueeze(1).expand(copies, self.samples, *rows.shape[1:]).flatten(0, 1)
        return layout.from_rows(rows)

    def _add(
        self,
        pending: dict[int, "Cotangent"],
        slot: int,
        new: "Cotangent",
        copies: int,
        siblings: Sequence[Tensor],
    ) -> None:
        """Add new to what waits at slot, in place where no one else reads that memory; siblings: new and its like."""
        old = pending.get(slot)
        if old is None:
            pending[slot] = new
            return
        if old.common != new.common:
            old, new = (Cotangent(self._unshare(c.tensor, slot, copies)) if c.common else c for c in (old, new))
        others = [c.tensor for at, c in pending.items() if at != slot]
        alone = old.owned and not _held(old.tensor, [*others, *siblings])
        total = old.tensor.add_(new.tensor) if alone else old.tensor + new.tensor
        pending[slot] = Cotangent(total, old.common, not torch.is_grad_enabled())


@dataclass
class Cotangent:
    """A cotangent on its way: common to all samples (K rows, not K S), and whether its memory is of this pass."""

    tensor: Tensor
    common: bool = False
    owned: bool = False


@dataclass(frozen=True)
class Prefix:
    """Cotangents pulled back to the links before `position`; unshared: they are K rows that must be spread first."""

    pending: dict[int, Cotangent]
    position: int
    unshared: bool = False


def _shares_memory(a: Tensor, b: Tensor) -> bool:
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()


def _held(tensor: Tensor, others: Sequence[Tensor]) -> bool:
    return any(_shares_memory(tensor, other) for other in others)


def _overlaps(tensor: Tensor) -> bool:
    return any(stride == 0 and size > 1 for stride, size in zip(tensor.stride(), tensor.shape, strict=True))


def _layout(graph: Graph, node: int) -> Layout:
    layout = graph.layouts[node] if graph.layouts else Layout()
    assert layout is not None
    return layout


def affine_links(plan: Plan, env: list[Any]) -> Iterator[AffineLink | Step]:
    """The affine links, and the steps of the spline links between them."""
    graph, skip = plan.graph, set()
    varying = {*plan.held, *(set(plan.fixed) - plan.static)}
    following = _foldable(plan)
    for step in plan.steps:
        if step.out in skip:
            continue
        if type(step.rule) in (Spline1, Spline2):
            yield step
        elif step.out in following:
            norm = following[step.out]
            skip.add(norm.out)
            overrides = fold_batch_norm(_values(step, env), _values(norm, env))
            yield affine_link(step, graph, varying, {**overrides, 1: channels_last(overrides[1])}, norm.out)
        elif step.node.op in CONVOLUTIONS:
            yield affine_link(step, graph, varying, {1: channels_last(_values(step, env)[1])})
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
        by_channel = step.node.op in CONVOLUTIONS or (step.node.op == LINEAR and len(step.node.shape) == 2)
        if alone and by_channel and after[0].node.op == BATCH_NORM and step.live[0][0] == (0,):
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
    rows = layout.from_rows(code)
    if rows.dim() == 4 and dtype == torch.float32 and rows.device.type == "cpu":
        rows = rows.contiguous(memory_format=torch.channels_last)
    frozen = operator.freeze(rows, dtype)
    plain = layout.plain and all(_layout(graph, slot).plain for _, slot in step.live)
    return SplineLink(step.out, step, operator, code, layout, tuple(operands), code.shape[0], frozen, plain)
