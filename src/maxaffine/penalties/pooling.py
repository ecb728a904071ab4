"""A frozen activation and the max pooling behind it as one mask: the pair moves far fewer numbers than its parts.

At a fixed code, pooling over windows that do not overlap picks one pixel of each window, and the activation before it
multiplies that pixel by a slope: out[window] = sum over the window of m z, m = slope where the winner is, else 0. With
the channels innermost that is one multiplication a pixel, forwards and backwards, the same m for all K templates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from maxaffine.operators.elementwise import Elementwise
from maxaffine.operators.maximum import Windows
from maxaffine.program.links import Link, SplineLink
from maxaffine.program.plan import Plan, Step

POOLS = ("aten.max_pool2d.default", "aten.max_pool2d_with_indices.default#0")
LARGEST = 16  # pixels of a window; a larger one is rare and better served by the winner's index


@dataclass(frozen=True)
class MaskLink:
    """The linear part of S samples' activation and pooling: mask (S, h, k, w, l, channels) for windows of k x l."""

    out: int
    step: Step
    mask: Tensor
    sizes: tuple[int, int]

    def forward(self, env: list[Any], *_: object) -> Tensor:
        """(K S, channels, H, W) -> (K S, channels, h, w)."""
        v = self._windows(env[self.step.live[0][1]].permute(0, 2, 3, 1))
        k, m = self.mask.shape[2], self.mask.shape[4]
        first, *rest = [(i, j) for i in range(k) for j in range(m)]
        total = v[:, :, :, first[0], :, first[1]] * self.mask[:, :, first[0], :, first[1]]
        for i, j in rest:
            total.addcmul_(v[:, :, :, i, :, j], self.mask[:, :, i, :, j])
        return total.flatten(0, 1).permute(0, 3, 1, 2)

    def adjoint(self, g: Tensor) -> Tensor:
        """(K S, channels, h, w) -> (K S, channels, H, W)."""
        samples, h, k, w, m, channels = self.mask.shape
        g = g.permute(0, 2, 3, 1).unflatten(0, (-1, samples))[:, :, :, None, :, None]
        if self.sizes == (h * k, w * m):
            return (g * self.mask).reshape(-1, *self.sizes, channels).permute(0, 3, 1, 2)
        whole = g.new_zeros((len(g) * samples, *self.sizes, channels))  # pixels beyond the last window
        torch.mul(g, self.mask, out=self._windows(whole))
        return whole.permute(0, 3, 1, 2)

    def _windows(self, pixels: Tensor) -> Tensor:
        """(K S, H, W, channels) -> a view (K, S, h, k, w, l, channels)."""
        samples, h, k, w, m, _ = self.mask.shape
        inside = pixels[:, : h * k, : w * m]
        return inside.unflatten(2, (w, m)).unflatten(1, (h, k)).unflatten(0, (-1, samples))


def poolings(plan: Plan) -> dict[int, int]:
    """Pooling without overlap -> the step before it, for each pooling step by its output."""
    readers: dict[int, int] = {}
    for step in plan.steps:
        for _, slot in step.live:
            readers[slot] = readers.get(slot, 0) + 1
    alone = {slot for slot, count in readers.items() if count == 1 and slot not in plan.ends}
    return {s.out: s.live[0][1] for s in plan.steps if s.node.op in POOLS and s.live[0][1] in alone and _tiles(s)}


def _tiles(step: Step) -> bool:
    """Whether the windows neither overlap nor reach over the border."""
    kernel, stride, padding, dilation, ceil = _settings(step)
    size, plain = _pair(kernel), not ceil and _pair(padding) == (0, 0) and _pair(dilation) == (1, 1)
    return plain and _pair(stride or kernel) == size and size[0] * size[1] <= LARGEST


def _settings(step: Step) -> list[Any]:
    given = list(step.node.args[1:])
    return [*given, *[(), 0, 1, False][len(given) - 1 :]]


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    sizes = [value] if isinstance(value, int) else list(value)
    return sizes[0], sizes[-1]


def masked(links: Sequence[Link], pairs: dict[int, int], dtype: torch.dtype) -> list[Link | MaskLink]:
    """The links with every pooling of `pairs`, and the activation before it, as one mask."""
    by_out = {link.out: link for link in links}
    found: dict[int, MaskLink] = {}
    swallowed = set()
    for out, before in pairs.items():
        pool, activation = by_out[out], by_out.get(before)
        assert type(pool) is SplineLink
        if not pool.layout.plain or pool.layout.repeat > 1 or type(pool.operator) is not Windows:
            continue
        slope = _slope(activation)
        if slope is not None and activation is not None:
            swallowed.add(before)
        first = pool.step if slope is None or activation is None else activation.step
        sizes = pool.shapes[0].sizes(1)
        found[out] = MaskLink(out, first, _mask(pool, slope, dtype), (sizes[2], sizes[3]))
    return [found.get(link.out, link) for link in links if link.out not in swallowed]


def _slope(link: Link | None) -> Tensor | None:
    """(S, channels, H, W): the slopes of a frozen activation without parameters."""
    if type(link) is not SplineLink or type(link.operator) is not Elementwise or not link.layout.plain:
        return None
    return None if link.frozen.slope.requires_grad else link.frozen.slope


def _mask(pool: SplineLink, slope: Tensor | None, dtype: torch.dtype) -> Tensor:
    """(S, h, k, w, l, channels): the slope at the winner of each window, zero elsewhere."""
    k, m = _pair(pool.step.node.args[1])
    code = pool.code.permute(0, 2, 3, 1)
    place = torch.arange(k * m, device=code.device, dtype=code.dtype).reshape(k, 1, m, 1)
    wins = code[:, :, None, :, None] == place
    if slope is None:
        return wins.to(dtype)
    h, w = code.shape[1:3]
    inside = slope.permute(0, 2, 3, 1)[:, : h * k, : w * m].unflatten(2, (w, m)).unflatten(1, (h, k))
    return inside * wins
