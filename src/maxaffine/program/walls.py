"""The walls of regions: as a matrix G z <= h, or only their distances with the directions streaming through."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf, prod
from typing import Any

import torch
from torch import Tensor

from maxaffine.arguments import sized
from maxaffine.errors import InputError, MemoryBudgetError
from maxaffine.operators.elementwise import Elementwise
from maxaffine.polytope import Region
from maxaffine.program.frozen import Frozen
from maxaffine.program.links import SplineLink
from maxaffine.program.local import Local, cached_rows
from maxaffine.program.record import layout_of

PROBES = 8  # random directions in which a wall that is not constant changes
SMALLEST = 1e-290  # below, sums of powers lose digits
NOISE = 0.01  # a slope that another rounding changes by more than this share is rounding alone


@dataclass
class WallNorms:
    """For one operator, (W, S, *units): the walls at the points, their |gradient|^q (or max) so far, which vary."""

    node: int
    label: str
    values: Tensor
    norms: Tensor
    varies: Tensor


def wall_values(frozen: Frozen, x: Tensor) -> dict[int, WallNorms]:
    """The walls of every operator at the points x (S, *in), by running the frozen network on them."""
    found: dict[int, WallNorms] = {}

    def watch(link: SplineLink, env: list[Any], rows: int) -> None:
        values = link.walls(env, rows, linear=False)
        empty = torch.zeros_like(values)
        found[link.out] = WallNorms(link.out, link.step.node.label, values.clamp(min=0), empty, values.isfinite())

    frozen.forward(layout_of(frozen.plan, frozen.plan.start).from_rows(x), linear=False, watch=watch)
    return found


def directions(
    ins: tuple[int, ...], samples: int, row_bytes: int, dtype: torch.dtype, device: torch.device
) -> Iterator[Tensor]:
    """The unit vectors of the input space in chunks (K, *in) that keep K x samples rows in the cache."""
    total = prod(ins)
    step = _step(total, samples, row_bytes, device)
    for first in range(0, total, step):
        count = min(step, total - first)
        basis = torch.zeros(count, total, dtype=dtype, device=device)
        basis[:, first : first + count].fill_diagonal_(1)
        yield basis.reshape(count, *ins)


def _step(total: int, samples: int, row_bytes: int, device: torch.device) -> int:
    return max(1, min(total, int(cached_rows(device) / 2 / row_bytes / samples)))


def wall_norms(local: Local, chunk: slice, x: Tensor, dual: float) -> dict[int, WallNorms]:
    """Wall values and gradient norms |.|_dual at the points x of one chunk of samples."""
    frozen = local.frozen(chunk)
    found = wall_values(frozen, x)
    leave_constant(local, frozen, found, tuple(x.shape[1:]))
    for basis in directions(tuple(x.shape[1:]), len(x), local.row_bytes, local.dtype, local.device):
        _accumulate(frozen, found, basis, dual)
    for item in found.values():
        if dual not in (1.0, inf):
            lost = item.varies & ~((item.norms > SMALLEST) & item.norms.isfinite())
            if bool(lost.any()):
                raise InputError(f"|gradients|^{dual:g} of operator {item.label!r} leave float64; scale the network")
            item.norms = item.norms.pow(1 / dual)
    return found


def leave_constant(local: Local, frozen: Frozen, found: dict[int, WallNorms], ins: tuple[int, ...]) -> None:
    """Mark as not varying the walls whose slope is rounding alone: of dead units, of differences of equal functions.

    However small a slope is, it is computed to many digits unless its terms cancel. So it is computed twice, the second
    time along directions a third as long, which round otherwise: what is left of terms that cancel does not repeat.
    """
    generator = torch.Generator().manual_seed(0)
    probes = torch.randn(PROBES, *ins, generator=generator, dtype=local.dtype, device="cpu").to(local.device)
    sizes, gaps = ({i: torch.zeros_like(item.values) for i, item in found.items()} for _ in range(2))

    def watch(link: SplineLink, env: list[Any], rows: int) -> None:
        first, second = _slopes(link, env, rows, frozen.samples).chunk(2, 1)
        sizes[link.out] = torch.maximum(sizes[link.out], first.abs().amax(1))
        gaps[link.out] = torch.maximum(gaps[link.out], (first - 3 * second).abs().amax(1))

    for part in probes.split(_step(len(probes), 2 * frozen.samples, local.row_bytes, local.device)):
        frozen.forward(_spread(frozen, torch.cat([part, part / 3])), linear=True, watch=watch)
    for i, item in found.items():
        item.varies &= (sizes[i] > 0) & (gaps[i] <= NOISE * sizes[i])


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

    frozen.forward(_spread(frozen, basis), linear=True, watch=watch)


def _spread(frozen: Frozen, directions: Tensor) -> Tensor:
    """K directions (K, *in) for each of the S samples, laid out as the network takes them."""
    rows = directions.unsqueeze(1).expand(len(directions), frozen.samples, *directions.shape[1:]).flatten(0, 1)
    return layout_of(frozen.plan, frozen.plan.start).from_rows(rows)


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
    return torch.where(item.varies, item.values / item.norms, inf)


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
    leave_constant(local, frozen, found, ins)
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
    kept = item.varies[:, 0].flatten() & (gradients != 0).any(1)
    units = item.values[0, 0].numel() if item.values.shape[0] else 1
    owners = [(item.label, int(i) % units) for i in kept.nonzero().flatten()]
    return gradients[kept], values[kept], owners
