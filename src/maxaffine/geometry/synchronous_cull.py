"""A ReluNet as tensors on a device, and the net that is left of it for cells in a box: culling.py, a level at a time.

The box gives bounds of the units that are not cut yet. Units that cannot switch in it vanish, or are folded into
those that read them. Of the units before, those that are off in all cells are left out.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from maxaffine.geometry.cells import Job
from maxaffine.geometry.culling import OFF, ON, OPEN, SOUND
from maxaffine.geometry.synchronous_cut import Polygons


class Box(NamedTuple):
    """A box around cells in (s, t): centre and half sides."""

    s: float
    t: float
    rs: float
    rt: float

    @property
    def area(self) -> float:
        """Of the whole box."""
        return 4 * self.rs * self.rt


def box_of(polygons: Polygons) -> Box:
    """Around all corners; the padding repeats some of them."""
    ends = [v for a in (polygons.x, polygons.y) for v in (a.amin(), a.amax())]
    s0, s1, t0, t1 = torch.stack(ends).tolist()
    return Box((s0 + s1) / 2, (t0 + t1) / 2, (s1 - s0) / 2, (t1 - t0) / 2)


@dataclass(frozen=True, eq=False)
class Layers:
    """The net, with P as in kernels.py: P (3 + n, n + O), rows 1, s, t and relu(z_k), columns units and outputs.

    levels: first unit of each level, n and n + O: the outputs are level `depth`. ids, eps, strict: (n,) number in the
    ReluNet, what counts as zero, and what vanishing up to rounding means.
    """

    P: Tensor
    levels: list[int]
    ids: Tensor
    eps: Tensor
    strict: Tensor

    @property
    def depth(self) -> int:
        """How many levels of units there are."""
        return len(self.levels) - 2

    def columns(self, level: int) -> slice:
        """Of a level's units, or of the outputs."""
        return slice(self.levels[level], self.levels[level + 1])

    def width(self, level: int) -> int:
        """How many columns a level has."""
        return self.levels[level + 1] - self.levels[level]

    @cached_property
    def uses(self) -> Tensor:
        """(n,) the last level in which a unit is read, -1 for none."""
        last = torch.full_like(self.ids, -1)
        for level in range(self.depth + 1):
            read = (self.P[3 : 3 + self.levels[level], self.columns(level)] != 0).any(1)
            last[: len(read)][read] = level
        return last

    def live(self, level: int) -> Tensor:
        """The units before a level that are read in it or later."""
        return (self.uses[: self.levels[level]] >= level).nonzero(as_tuple=True)[0]

    def product(self, level: int, maps: Tensor) -> Tensor:
        """(C, 3, m) the level's pre-activations (or the outputs) where its live units have maps (C, 3, n)."""
        columns = self.columns(level)
        weights = self.P[3 + self.live(level), columns]
        return (maps.flatten(0, 1) @ weights).unflatten(0, (-1, 3)) + self.P[:3, columns]


def layers_of(job: Job, device: torch.device) -> Layers:
    """The whole net on a device."""
    net = job.net
    A, V, eps, strict = (torch.tensor(a, device=device) for a in (net.A, net.V, job.eps, job.strict))
    levels = [*net.levels.tolist(), len(net.A)]
    return Layers(torch.cat([A.T, V.T]), levels, torch.arange(net.units, device=device), eps, strict)


def culled(layers: Layers, level: int, box: Box, polygons: Polygons, maps: Tensor) -> tuple[Layers, Tensor, Tensor]:
    """What is left of the net in the box: layers, maps (C, 3, n') of its live units, ids of the units that are on."""
    first, units, live = layers.levels[level], len(layers.ids), layers.live(level)
    seen = (maps != 0).any(1).any(0)
    state = _states(layers, level, box, live, *_summary(polygons, maps))
    P = _folded(layers, level, state)
    later = (state == OPEN).nonzero(as_tuple=True)[0] + first
    kept = torch.cat([live[seen], later])
    outputs = torch.arange(units, P.shape[1], device=P.device)
    rows = torch.cat([torch.arange(3, device=P.device), 3 + kept])
    slim = P[rows][:, torch.cat([kept, outputs])]
    starts = torch.searchsorted(kept, torch.tensor(layers.levels[:-1], device=kept.device)).tolist()
    ids = layers.ids
    new = Layers(slim, [*starts, slim.shape[1]], ids[kept], layers.eps[kept], layers.strict[kept])
    return new, maps[:, :, seen][:, :, new.live(level)], ids[first:][state == ON]


def _summary(polygons: Polygons, maps: Tensor) -> tuple[Tensor, Tensor]:
    """(3, n), (n,): relu(z) of each unit is within the latter of the former affine function, in every cell.

    The difference is affine in a cell, so that it is largest at a corner.
    """
    mean = maps.mean(0)
    one, s, t = (maps - mean).unbind(1)
    error = torch.zeros_like(mean[0])
    for v in range(polygons.x.shape[1]):
        x, y = polygons.x[:, v, None], polygons.y[:, v, None]
        error = torch.maximum(error, (one + s * x + t * y).abs().amax(0))
    return mean, error


def _states(layers: Layers, level: int, box: Box, live: Tensor, mean: Tensor, error: Tensor) -> Tensor:
    """Which of the units from a level on are on or off in the whole box, or open.

    An open unit is enclosed by relu(z) = slope z + half + [-half, half] with slope = h / (h - l), half = -l slope / 2
    on [l, h]; l and h are widened by SOUND times what counts as zero.
    """
    first, units = layers.levels[level], len(layers.ids)
    P = layers.P[:, first:]
    lin = P[:3] + mean @ P[3 + live]
    err = error @ P[3 + live].abs()
    state = torch.full((units - first,), OPEN, device=P.device)
    for i in range(level, layers.depth):
        a, b = layers.levels[i] - first, layers.levels[i + 1] - first
        one, s, t = lin[:, a:b]
        reach = s.abs() * box.rs + t.abs() * box.rt + err[a:b] + SOUND * layers.eps[first + a : first + b]
        middle = one + s * box.s + t * box.t
        low, high = middle - reach, middle + reach
        state[a:b] = torch.where(low > 0, ON, torch.where(high < 0, OFF, OPEN))
        slope = (high / (high - low)).nan_to_num(0.5)
        half = -low * slope / 2
        slope = torch.where(low > 0, 1.0, torch.where(high < 0, 0.0, slope))
        half = torch.where((low > 0) | (high < 0), 0.0, half)
        relu = lin[:, a:b] * slope
        relu[0] += half
        rows = P[3 + first + a : 3 + first + b, b:]
        lin[:, b:] += relu @ rows
        err[b:] += (slope * err[a:b] + half) @ rows.abs()
    return state


def _folded(layers: Layers, level: int, state: Tensor) -> Tensor:
    """P with the units that are on substituted into all that read them; their own rows are of no use any more."""
    P, first = layers.P.clone(), layers.levels[level]
    for i in range(level, layers.depth):
        a, b = layers.levels[i], layers.levels[i + 1]
        on = (state[a - first : b - first] == ON).nonzero(as_tuple=True)[0] + a
        P[:, b:] += P[:, on] @ layers.P[3 + on, b:]
    return P
