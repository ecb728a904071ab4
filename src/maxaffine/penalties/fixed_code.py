"""Gradients of a function of the templates, without one double backward pass a class.

A(theta) is the product of the network's linear parts at a fixed code, so the gradient of phi(A) is the gradient of
<M, A(theta)> with M = dphi/dA held fixed. Row c of A is e_c pulled back through the links, and

    <M_c, A_c> = <d_c, W v_c>      for every affine link W:  d_c = cotangent of its output when e_c is pulled back,
                                                             v_c = tangent of its input when M_c is pushed forward

because W enters linearly: so one pass back (which gives A and all d_c), one forward (all v_c), and the products
d_c v_c^T, all C classes and many samples as one batch. Each link's product is taken by torch's own backward of that
one link, with its input held fixed, so every operation whose linear part has parameters is covered (a PReLU's slopes
too). What the graph computes of the parameters (batch norm folded into its convolution, weight norm) is differentiated
once a call.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from maxaffine.penalties.pooling import MaskLink, masked, poolings
from maxaffine.program.frozen import Cotangent, Frozen
from maxaffine.program.links import AffineLink, Link, channels_last
from maxaffine.program.local import Local
from maxaffine.program.plan import Step
from maxaffine.program.record import layout_of

Energy = Callable[[Tensor], Tensor]
"""Templates (S, K, D) -> a 0-dim tensor, additive over the samples."""

CHUNK = {"cpu": 12 * 2**20, "cuda": 512 * 2**20}  # bytes of the largest activation of all templates of one chunk
PART = 256 * 2**20  # the same for one sample: if its K templates need more they are done in parts


class Kept(Frozen):
    """A frozen network that keeps the cotangents of the links whose linear part has parameters."""

    def __init__(
        self,
        local: Local,
        tensors: Sequence[Tensor],
        rows: slice,
        parametric: frozenset[int] = frozenset(),
        pairs: dict[int, int] | None = None,
        like: "Kept | None" = None,
    ) -> None:
        count = rows.stop - rows.start
        super().__init__(local.plan, tensors, local.codes[rows], count, local.dtype, local.device, like)
        self.links: list[Any] = masked(self.links, pairs or {}, self.dtype)
        self.parametric = parametric
        self.kept: dict[int, Cotangent] = {}

    def _step(self, link: Any, pending: dict[int, Cotangent], copies: int) -> None:
        if type(link) is MaskLink:
            self._unpool(link, pending, copies)
            return
        if link.out in self.parametric and link.out in pending:
            found = self.kept[link.out] = pending[link.out]
            memory = found.tensor.untyped_storage().data_ptr()
            for cotangent in pending.values():  # nobody may write into what is kept
                cotangent.owned &= cotangent.tensor.untyped_storage().data_ptr() != memory
        super()._step(link, pending, copies)

    def _unpool(self, link: MaskLink, pending: dict[int, Cotangent], copies: int) -> None:
        if link.out not in pending:
            return
        c = pending.pop(link.out)
        found = link.adjoint(self._unshare(c.tensor, link.out, copies) if c.common else c.tensor)
        self._add(pending, link.step.live[0][1], Cotangent(found, owned=True), copies, [found])

    def cotangent(self, link: Link, copies: int) -> Tensor:
        """What was kept of the link's output, as K S rows."""
        kept = self.kept[link.out]
        return self._unshare(kept.tensor, link.out, copies) if kept.common else kept.tensor

    def push(self, tangent: Tensor, copies: int, learn: Callable[[Tensor, Tensor], None]) -> None:
        """Push K S tangents of the start forward; learn sees each parametric link's output and kept cotangent."""
        rows = copies * self.samples
        env = self.constants(rows, linear=True)
        env[self.plan.start] = tangent
        last, dead = max((n for n, k in enumerate(self.links) if k.out in self.kept), default=-1), self._last_use()
        for n, link in enumerate(self.links[: last + 1]):
            with torch.set_grad_enabled(link.out in self.kept):
                out = link.forward(env, rows, self.dtype, self.device, True)
            if out.requires_grad:
                learn(out, self.cotangent(link, copies))
            env[link.out] = out.detach()
            for slot in dead.get(n, ()):
                env[slot] = None


class Leaves:
    """Constants that depend on parameters, cut from them: each original, its leaf, and the leaf's gradient so far."""

    def __init__(self) -> None:
        self.originals: list[Tensor] = []
        self.leaves: list[Tensor] = []
        self.gradients: list[Tensor | None] = []
        self._places: dict[int, int] = {}

    def leaf(self, value: Any) -> Any:
        """The leaf that stands for a constant; the constant itself when it depends on no parameter."""
        if not isinstance(value, Tensor) or not value.requires_grad:
            return value
        if id(value) not in self._places:
            self._places[id(value)] = len(self.leaves)
            self.originals.append(value)
            self.leaves.append(value.detach().requires_grad_())
            self.gradients.append(None)
        return self.leaves[self._places[id(value)]]

    def learn(self, out: Tensor, cotangent: Tensor) -> None:
        """Add the gradient of <cotangent, out> in all leaves."""
        found = torch.autograd.grad(out, self.leaves, cotangent, retain_graph=True, allow_unused=True)
        for i, new in enumerate(found):
            if new is not None:
                old = self.gradients[i]
                self.gradients[i] = new if old is None else old.add_(new)

    def pull(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The gradients of the tensors that the originals were computed of."""
        pairs = [(o, g) for o, g in zip(self.originals, self.gradients, strict=True) if g is not None]
        if not pairs:
            return [torch.zeros_like(t) for t in tensors]
        outputs, gradients = zip(*pairs, strict=True)
        found = torch.autograd.grad(outputs, tensors, gradients, allow_unused=True)
        return [torch.zeros_like(t) if g is None else g for g, t in zip(found, tensors, strict=True)]


class Network:
    """The network of a batch frozen at its codes, on leaves, made for a few samples at a time."""

    def __init__(self, local: Local, basis: Tensor) -> None:
        """basis: (K, *out), the cotangents whose pullbacks are the templates."""
        self.local, self.leaves = local, Leaves()
        self.basis = layout_of(local.plan, local.plan.ends[0]).from_rows(basis)
        with torch.enable_grad():
            model = Kept(local, local.tensors, slice(0, 1))
        assert model._static is not None
        model._static = [self.leaves.leaf(value) for value in model._static]
        model._affine = [self._on_leaves(link) for link in model._affine]
        self.tensors = [self.leaves.leaf(tensor) for tensor in local.tensors]
        self.pairs = poolings(local.plan)
        self.parametric = frozenset(link.out for link in model._affine if self._has_parameters(link, model._static))
        self._like = model
        self._one = self.frozen(slice(0, 1))

    def frozen(self, rows: slice) -> Kept:
        """The network frozen at some of the samples."""
        with torch.enable_grad():  # a learned slope is a constant of the frozen spline operator
            return Kept(self.local, self.tensors, rows, self.parametric, self.pairs, self._like)

    def templates(self, frozen: Kept, part: slice) -> Tensor:
        """(S, K, D): some templates of some samples; their cotangents are kept in `frozen`."""
        self._one.kept = {}
        prefix = self._one.prefix(self.basis[part])
        frozen.kept = dict(self._one.kept)
        copies = part.stop - part.start
        rows = layout_of(self.local.plan, self.local.plan.start).to_rows(frozen.finish(prefix, copies))
        return rows.flatten(1).unflatten(0, (copies, frozen.samples)).transpose(0, 1)

    def learn(self, frozen: Kept, M: Tensor) -> None:
        """Add the gradients of <M, A> for directions M (S, K, D) and the templates whose cotangents are kept."""
        start = self.local.plan.start
        shape = self.local.plan.graph.nodes[start].sizes(1)
        rows = M.transpose(0, 1).flatten(0, 1)
        units = layout_of(self.local.plan, start).unit_shape(shape)
        tangent = layout_of(self.local.plan, start).from_rows(rows.unflatten(1, units))
        frozen.push(channels_last(tangent), M.shape[1], self.leaves.learn)

    def _on_leaves(self, link: AffineLink | Step) -> AffineLink | Step:
        if type(link) is not AffineLink:
            return link
        return replace(link, overrides={place: self.leaves.leaf(value) for place, value in link.overrides.items()})

    def _has_parameters(self, link: AffineLink | Step, static: Sequence[Any]) -> bool:
        """Whether a constant of the link requires a gradient, or is made anew for each batch size and might."""
        step = link.step if type(link) is AffineLink else link
        assert isinstance(step, Step)
        values = list(link.overrides.values()) if type(link) is AffineLink else []
        fixed = [j for _, j in step.node.operands() if j in self.local.plan.fixed]
        anew = any(j not in self.local.plan.static for j in fixed)
        return anew or any(isinstance(v, Tensor) and v.requires_grad for v in [*values, *(static[j] for j in fixed)])


@torch.no_grad()
def value_and_gradients(
    local: Local, basis: Tensor, energy: Energy, tensors: Sequence[Tensor], memory: int | None = None
) -> tuple[Tensor, list[Tensor]]:
    """Sum of energy(A[x]) over the samples, and its gradients in the tensors; (value, []) without tensors.

    basis: (K, *out). memory: bytes of the largest activation that K templates of one chunk of samples may take.
    """
    network, K = Network(local, basis), len(basis)
    budget = CHUNK.get(local.device.type, CHUNK["cuda"]) if memory is None else memory
    most = max(1, (PART if memory is None else memory) // local.row_bytes)  # templates of one sample done at once
    parts = [slice(i, min(i + most, K)) for i in range(0, K, most)]
    total = torch.zeros((), dtype=local.dtype, device=local.device)
    for chunk in local.chunks(K, budget):
        frozen = network.frozen(chunk)
        A = torch.cat([network.templates(frozen, part) for part in parts], 1)
        if not tensors:
            total += energy(A)
            continue
        value, M = _direction(energy, A)
        total += value
        for part in parts:
            if len(parts) > 1:
                network.templates(frozen, part)  # its cotangents were not kept beside those of the other parts
            network.learn(frozen, M[:, part])
    return total, network.leaves.pull(tensors) if tensors else []


def _direction(energy: Energy, A: Tensor) -> tuple[Tensor, Tensor]:
    """phi(A) and dphi/dA."""
    with torch.enable_grad():
        value = energy(A.requires_grad_())
        (M,) = torch.autograd.grad(value, A)
    return value.detach(), M
