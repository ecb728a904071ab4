"""The walls of regions: as a matrix G z <= h, or only their distances with the directions streaming through."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf, prod
from typing import Any

import torch
from torch import Tensor

from maxaffine.arguments import sized
from maxaffine.errors import MemoryBudgetError
from maxaffine.operators.elementwise import Elementwise
from maxaffine.polytope import Region
from maxaffine.program.frozen import Frozen
from maxaffine.program.links import SplineLink
from maxaffine.program.local import Local, cached_rows
from maxaffine.program.record import layout_of

CONSTANT = 1e-13  # a wall whose gradient is below this share of its operator's largest is constant (dead, duplicated)


@dataclass
class WallNorms:
    """For one operator: wall values (W, S, *units) at the points, and the accumulated |gradient|^q (or max)."""

    node: int
    label: str
    values: Tensor
    norms: Tensor


def wall_values(frozen: Frozen, x: Tensor) -> dict[int, WallNorms]:
    """The walls of every operator at the points x (S, *in), by running the frozen network on them."""
    found: dict[int, WallNorms] = {}

    def watch(link: SplineLink, env: list[Any], rows: int) -> None:
        values = link.walls(env, rows, linear=False)
        found[link.out] = WallNorms(link.out, link.step.node.label, values.clamp(min=0), torch.zeros_like(values))

    frozen.forward(layout_of(frozen.plan, frozen.plan.start).from_rows(x), linear=False, watch=watch)
    return found


def directions(
    ins: tuple[int, ...], samples: int, row_bytes: int, dtype: torch.dtype, device: torch.device
) -> Iterator[Tensor]:
    """The unit vectors of the input space in chunks (K, *in) that keep K x samples rows in the cache."""
    total = prod(ins)
    step = max(1, min(total, int(cached_rows(device) / 2 / row_bytes / samples)))
    for first in range(0, total, step):
        count = min(step, total - first)
        basis = torch.zeros(count, total, dtype=dtype, device=device)
        basis[:, first : first + count].fill_diagonal_(1)
        yield basis.reshape(count, *ins)


def wall_norms(local: Local, chunk: slice, x: Tensor, dual: float) -> dict[int, WallNorms]:
    """Wall values and gradient norms |.|_dual at the points x of one chunk of samples."""
    frozen = local.frozen(chunk)
    found = wall_values(frozen, x)
    for basis in directions(tuple(x.shape[1:]), len(x), local.row_bytes, local.dtype, local.device):
        _accumulate(frozen, found, basis, dual)
    for item in found.values():
        if dual not in (1.0, inf):
            item.norms = item.norms.pow(1 / dual)
    return found


def _accumulate(frozen: Frozen, found: dict[int, WallNorms], basis: Tensor, dual: float) -> None:
    def watch(link: SplineLink, env: list[Any], rows: int) -> None:
        item = found[link.out]
        slopes = _slopes(link, env, rows, frozen.samples)
        if dual == inf:
            item.norms = torch.maximum(item.norms, slopes.abs().amax(1))
        elif dual == 2:
            item.norms += (slopes * slopes).sum(1)  # ten times faster than vector_norm along an outer axis
        else:
            item.norms += slopes.abs().pow_(dual).sum(1)

    rows = basis.unsqueeze(1).expand(len(basis), frozen.samples, *basis.shape[1:]).flatten(0, 1)
    frozen.forward(layout_of(frozen.plan, frozen.plan.start).from_rows(rows), linear=True, watch=watch)


def _slopes(link: SplineLink, env: list[Any], rows: int, samples: int) -> Tensor:
    """(W, K, S, *units): derivatives of the walls, up to sign (those of an elementwise operator are its operand's)."""
    if type(link.operator) is Elementwise:
        operand = link.layout.to_rows(env[link.step.live[0][1]]).unsqueeze(0)
        return operand.unflatten(1, (-1, samples))
    return link.walls(env, rows, linear=True).unflatten(1, (-1, samples))


def nearest(found: dict[int, WallNorms], samples: int) -> list[tuple[float, str, int]]:
    """Every sample's distance to its nearest wall, that wall's operator and flat unit (inf, "", -1 without walls)."""
    best: list[tuple[float, str, int]] = [(inf, "", -1)] * samples
    for item in found.values():
        distance = _distances(item)
        for s in range(samples):
            flat = distance[:, s].reshape(len(distance), -1)
            if flat.numel() == 0:
                continue
            smallest, unit = flat.amin(0).min(0)
            if float(smallest) < best[s][0]:
                best[s] = (float(smallest), item.label, int(unit))
    return best


def _distances(item: WallNorms) -> Tensor:
    largest = (
        item.norms.transpose(0, 1).reshape(item.norms.shape[1], -1).amax(1)
        if item.norms.numel()
        else item.norms.new_zeros(item.norms.shape[1])
    )
    floor = (CONSTANT * largest).reshape(1, -1, *[1] * (item.norms.dim() - 2))
    return torch.where(item.norms > floor, item.values / item.norms, inf)


def region_of(local: Local, x: Tensor, memory: int) -> Region:
    """The region of the single sample x (1, *in), constant walls left out."""
    frozen, ins = local.frozen(slice(0, 1)), tuple(x.shape[1:])
    found = wall_values(frozen, x)
    rows = sum(item.values.numel() for item in found.values())
    if rows * prod(ins) * 8 > memory:
        raise MemoryBudgetError(
            f"the region's matrix G would take {sized(rows * prod(ins) * 8)} ({rows} walls x {prod(ins)}), "
            f"the budget is {sized(memory)}; use maxaffine.margin(spline, x), which never holds G, or "
            "region(x, memory=bytes)"
        )
    slopes: dict[int, list[Tensor]] = {i: [] for i in found}

    def watch(link: SplineLink, env: list[Any], rows: int) -> None:
        slopes[link.out].append(link.walls(env, rows, linear=True).transpose(0, 1).reshape(rows, -1))

    for basis in directions(ins, 1, local.row_bytes, local.dtype, local.device):
        frozen.forward(layout_of(frozen.plan, frozen.plan.start).from_rows(basis), linear=True, watch=watch)
    parts = [_half_spaces(found[i], torch.cat(slopes[i]).T) for i in found]
    empty = torch.zeros(0, prod(ins), dtype=x.dtype, device=x.device)
    gradients = torch.cat([g for g, _, _ in parts]) if parts else empty
    slack = torch.cat([s for _, s, _ in parts]) if parts else empty[:, 0]
    owners = tuple(owner for _, _, o in parts for owner in o)
    return Region(x[0].detach(), -gradients, slack - gradients @ x.flatten(), slack, owners)


def _half_spaces(item: WallNorms, gradients: Tensor) -> tuple[Tensor, Tensor, list[tuple[str, int]]]:
    """Gradients, slacks and owners of the walls of one operator that are not constant."""
    values = item.values[:, 0].flatten()
    sizes = torch.linalg.vector_norm(gradients, dim=1)
    kept = (sizes > CONSTANT * (sizes.max() if len(sizes) else 0.0)) & values.isfinite()
    units = item.values[0, 0].numel() if item.values.shape[0] else 1
    owners = [(item.label, int(i) % units) for i in kept.nonzero().flatten()]
    return gradients[kept], values[kept], owners
