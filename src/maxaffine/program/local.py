"""N frozen maps in chunks: splits samples and directions so that the largest activation stays in the cache."""

from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from maxaffine.errors import InputError
from maxaffine.program.frozen import Codes, Frozen
from maxaffine.program.plan import Plan
from maxaffine.program.record import layout_of

CACHED_ROWS = 4 * 2**20  # bytes of the largest activation of one chunk of cotangents: about the second-level cache
STREAMED_ROWS = 256 * 2**20  # the same for single passes, where only memory matters


class Local:
    """The affine maps of N samples at fixed codes; satisfies maxaffine.affine.LocalMaps."""

    def __init__(
        self,
        plan: Plan,
        tensors: Sequence[Tensor],
        codes: Codes,
        samples: int,
        dtype: torch.dtype,
        device: torch.device,
        create_graph: bool = False,
    ) -> None:
        self.plan, self.codes, self.samples, self.create_graph = plan, codes, samples, create_graph
        self.tensors = list(tensors) if create_graph else [t.detach() for t in tensors]
        self._versions = [t._version for t in self.tensors]
        self.dtype, self.device = dtype, device
        self._whole: Frozen | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {
            **self.__dict__,
            "_whole": None,
            "tensors": [t.detach() for t in self.tensors],
            "_versions": None,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._versions = [t._version for t in self.tensors]

    def value(self, x: Tensor) -> Tensor:
        """Each map at its own point."""
        return self._stream(
            lambda frozen, rows: frozen.forward(rows, linear=False), x, self.plan.start, self.plan.ends[0]
        )

    def tangent(self, v: Tensor) -> Tensor:
        """Each linear part at its own direction."""
        return self._stream(
            lambda frozen, rows: frozen.forward(rows, linear=True), v, self.plan.start, self.plan.ends[0]
        )

    def cotangent(self, u: Tensor) -> Tensor:
        """Each adjoint at its own cotangent."""
        return self._stream(lambda frozen, rows: frozen.adjoint(rows), u, self.plan.ends[0], self.plan.start)

    def rows(self, basis: Tensor) -> Tensor:
        """(K, *out) -> (N, K, *in)."""

        def pull(frozen: Frozen, part: Tensor) -> Tensor:
            return frozen.adjoint(layout_of(self.plan, self.plan.ends[0]).from_rows(part), shared=True)

        return self._spread(pull, basis, self.plan.start)

    def columns(self, basis: Tensor) -> Tensor:
        """(K, *in) -> (N, K, *out)."""

        def push(frozen: Frozen, part: Tensor) -> Tensor:
            repeated = part.repeat_interleave(frozen.samples, 0)
            return frozen.forward(layout_of(self.plan, self.plan.start).from_rows(repeated), linear=True)

        return self._spread(push, basis, self.plan.ends[0])

    def chunks(self, copies: int, limit: int) -> Iterator[slice]:
        """Sample ranges such that copies x samples rows of the largest activation stay under limit bytes."""
        step = max(1, int(limit / self.row_bytes / copies))
        return (slice(i, min(i + step, self.samples)) for i in range(0, self.samples, step))

    @property
    def row_bytes(self) -> int:
        """Bytes of the largest activation of one row."""
        sizes = [prod(step.node.sizes(1)) for step in self.plan.steps]
        return max([*sizes, 1]) * self.dtype.itemsize

    def frozen(self, rows: slice) -> Frozen:
        """The network frozen at those samples. Raises InputError when the model was changed since."""
        if [t._version for t in self.tensors] != self._versions:
            raise InputError("the model's parameters changed since at(x); call spline.at(x) again")
        count = rows.stop - rows.start
        if count < self.samples or self.create_graph:
            return Frozen(self.plan, self.tensors, self.codes[rows], count, self.dtype, self.device)
        if self._whole is None:
            self._whole = Frozen(self.plan, self.tensors, self.codes, count, self.dtype, self.device)
        return self._whole

    def _stream(self, act: Callable[[Frozen, Tensor], Tensor], x: Tensor, start: int, end: int) -> Tensor:
        into, out = layout_of(self.plan, start), layout_of(self.plan, end)
        with torch.set_grad_enabled(self.create_graph):
            parts = [
                out.to_rows(act(self.frozen(chunk), into.from_rows(x[chunk])))
                for chunk in self.chunks(1, STREAMED_ROWS)
            ]
            return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _spread(self, act: Callable[[Frozen, Tensor], Tensor], basis: Tensor, end: int) -> Tensor:
        layout, result = layout_of(self.plan, end), []
        with torch.set_grad_enabled(self.create_graph):
            for chunk in self.chunks(len(basis), CACHED_ROWS):
                frozen, step = (
                    self.frozen(chunk),
                    max(1, int(CACHED_ROWS / self.row_bytes / (chunk.stop - chunk.start))),
                )
                found = [layout.to_rows(act(frozen, part)) for part in basis.split(step)]
                stacked = [f.unflatten(0, (-1, frozen.samples)) for f in found]
                result.append((stacked[0] if len(stacked) == 1 else torch.cat(stacked)).transpose(0, 1))
            return torch.cat(result)
