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

STREAMED_ROWS = 256 * 2**20  # bytes of the largest activation of one chunk of single passes: only memory matters


def cached_rows(device: torch.device) -> int:
    """Bytes of the largest activation of one chunk of cotangents: what a cache holds, or what fills a GPU."""
    return 2 * 2**20 if device.type == "cpu" else 512 * 2**20


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
        self._versions, self._sums = _versions(self.tensors), _sums(self.tensors)
        self.dtype, self.device = dtype, device
        self._one: Frozen | None = None
        self._whole: Frozen | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {
            **self.__dict__,
            "_one": None,
            "_whole": None,
            "tensors": [t.detach() for t in self.tensors],
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._versions, self._sums = _versions(self.tensors), _sums(self.tensors)

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
        end = layout_of(self.plan, self.plan.ends[0])
        step = max(1, int(cached_rows(self.device) / self.row_bytes))
        with torch.set_grad_enabled(self.create_graph):
            first = self.frozen(slice(0, 1))
            prefixes = [(first.prefix(end.from_rows(part)), len(part)) for part in basis.split(step)]
            return self._spread(
                lambda frozen: [frozen.finish(*prefix) for prefix in prefixes], len(basis), self.plan.start
            )

    def columns(self, basis: Tensor) -> Tensor:
        """(K, *in) -> (N, K, *out)."""
        into, step = layout_of(self.plan, self.plan.start), max(1, int(cached_rows(self.device) / self.row_bytes))

        def push(frozen: Frozen) -> list[Tensor]:
            found = []
            for part in basis.split(max(1, step // frozen.samples)):
                rows = part.unsqueeze(1).expand(len(part), frozen.samples, *part.shape[1:]).flatten(0, 1)
                found.append(frozen.forward(into.from_rows(rows), linear=True))
            return found

        with torch.set_grad_enabled(self.create_graph):
            return self._spread(push, len(basis), self.plan.ends[0])

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
        if _versions(self.tensors) != self._versions or (rows.start == 0 and _written(self.tensors, self._sums)):
            raise InputError("the model's parameters changed since at(x); call spline.at(x) again")
        if self.create_graph:
            return self._freeze(rows, None)
        if self._one is None:
            self._one = self._freeze(slice(0, 1), None)
        if rows.stop - rows.start < self.samples:
            return self._freeze(rows, self._one)
        if self._whole is None:
            self._whole = self._freeze(rows, self._one)
        return self._whole

    def _freeze(self, rows: slice, like: Frozen | None) -> Frozen:
        count = rows.stop - rows.start
        return Frozen(self.plan, self.tensors, self.codes[rows], count, self.dtype, self.device, like)

    def _stream(self, act: Callable[[Frozen, Tensor], Tensor], x: Tensor, start: int, end: int) -> Tensor:
        into, out = layout_of(self.plan, start), layout_of(self.plan, end)
        with torch.set_grad_enabled(self.create_graph):
            parts = [
                out.to_rows(act(self.frozen(chunk), into.from_rows(x[chunk])))
                for chunk in self.chunks(1, STREAMED_ROWS)
            ]
            return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _spread(self, act: Callable[[Frozen], list[Tensor]], copies: int, end: int) -> Tensor:
        """Run act on chunks of samples and lay its (K S, ...) results out as (N, K, ...)."""
        layout, result, whole = layout_of(self.plan, end), [], None
        for chunk in self.chunks(copies, cached_rows(self.device)):
            frozen = found = None  # what the chunk before needed is not held beside this one
            frozen = self.frozen(chunk)
            found = [layout.to_rows(f).unflatten(0, (-1, frozen.samples)) for f in act(frozen)]
            if self.create_graph:
                result.append(torch.cat(found).transpose(0, 1))
                continue
            if whole is None:
                whole = found[0].new_empty((self.samples, copies, *found[0].shape[2:]))
            _place(whole[chunk], found)
        return torch.cat(result) if whole is None else whole


def _versions(tensors: Sequence[Tensor]) -> list[int]:
    return [t._version for t in tensors]


def _sums(tensors: Sequence[Tensor]) -> tuple[int, list[str]]:
    """The sum of each tensor, exactly as this many threads round it."""
    with torch.no_grad():
        sums = [t.sum() for t in tensors if t.is_floating_point()]
    alike = dict.fromkeys((total.dtype, total.device) for total in sums)
    found = [v for kind in alike for v in torch.stack([s for s in sums if (s.dtype, s.device) == kind]).tolist()]
    return torch.get_num_threads(), [v.hex() for v in found]


def _written(tensors: Sequence[Tensor], before: tuple[int, list[str]]) -> bool:
    """Whether sums changed: a write through .data leaves the versions as they are."""
    now = _sums(tensors)
    return now[0] == before[0] and now[1] != before[1]


def _place(target: Tensor, parts: Sequence[Tensor]) -> None:
    """Write (K_i, S, ...) parts side by side into (S, K, ...)."""
    first = 0
    for part in parts:
        target[:, first : first + len(part)] = part.transpose(0, 1)
        first += len(part)
