"""From a spline and a plane to its partition: restrict, find the cells, match them, read off the maps."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from maxaffine.errors import DegenerateSliceError, InputError, MemoryBudgetError
from maxaffine.geometry.cells import Doubtful, Job, Soup, Track, Vanishing, find_cells, too_many_sides
from maxaffine.geometry.mesh import build
from maxaffine.geometry.plane import PlaneCodes, PlanePartition, UnitLists
from maxaffine.geometry.relunet import TOURNAMENT, ReluNet
from maxaffine.geometry.restriction import restrict
from maxaffine.geometry.synchronous import find_cells_on, require, working_memory
from maxaffine.geometry.vanishing import Surroundings
from maxaffine.slice import Plane
from maxaffine.spline import Spline

ZEROS = (1e-13, 4e-13, 2e-14, 4e-15)  # shares of a unit's magnitude that count as zero, tried in turn
REACH = 1e13  # from there on what a network does around an origin of size 1 is rounding
Found = tuple[Soup, NDArray[np.int32]]
CELL = 400  # bytes of a cell's corners, sides and edges while it is found and matched


def partition_plane(
    spline: Spline,
    plane: Plane,
    workers: int = 1,
    memory: int | None = None,
    limit: int | None = None,
    device: str | None = None,
    track: Track | None = None,
) -> PlanePartition:
    """The exact partition of the spline on the plane's polygon.

    Raises InputError (shapes, workers), NotPiecewiseAffineError, MemoryBudgetError after `limit` cells or when the
    result would take more than `memory` bytes, and DegenerateSliceError where a unit vanishes on a whole cell up to
    rounding but not beside the plane (a slice inside a wall), or where lines lie closer than rounding can tell apart.
    """
    for name, value in (("workers", workers), ("memory", memory), ("limit", limit)):
        if value is not None and (not isinstance(value, int) or value < 1):
            raise InputError(f"{name}={value}; a whole number, at least 1, is needed")
    too_many_sides(len(plane.corners))
    target = _device(device, workers, track)
    net = reduced(spline, plane)
    most = _most_cells(net, memory, limit)
    merging = bool((net.kind == TOURNAMENT).any())

    def search(job: Job) -> Found:
        if target is None:
            return find_cells(job, workers, most, track)
        return find_cells_on(job, target, most, working_memory(target))

    for zero in ZEROS:
        try:
            soup, bundles = _searched(spline, plane, Job(net, plane.corners, zero), search)
        except Doubtful:
            continue
        found = build(tuple(soup[:6]), bundles, net.last, net.left, net.right, merging)
        if _whole(found):
            return _finished(spline, plane, net, soup, found)
    raise too_close()


def _searched(spline: Spline, plane: Plane, job: Job, search: Callable[[Job], Found]) -> Found:
    """The cells, units that are zero up to rounding taken for zero where they are so in every direction."""
    try:
        return search(job)
    except Vanishing:
        job = replace(job, lenient=True)
        found = search(job)
        Surroundings(spline, plane).require_no_walls(job, found[0])
        return found


def too_close() -> DegenerateSliceError:
    """The answer when lines meet in a way that rounding hides."""
    return DegenerateSliceError(
        "lines of the partition lie closer together than float64 can tell apart on a polygon of this size; take a "
        "smaller polygon, move the plane's origin a little, or turn u and v"
    )


def _most_cells(net: ReluNet, memory: int | None, limit: int | None) -> int:
    """How many cells there may be. Raises MemoryBudgetError when not even one fits."""
    per_cell = CELL + 8 * max(1, net.units // 64 + 1) + 24 * (len(net.A) - net.units)
    if memory is not None and memory < per_cell:
        raise MemoryBudgetError(f"one cell takes about {per_cell} bytes, memory={memory}; allow more")
    return min(limit or 1 << 40, (memory or 1 << 50) // per_cell)


def _whole(found: tuple) -> bool:
    """Whether every half-edge found its other half, every cell has an area, and V - E + F = 1."""
    lost, vertices, offsets, edges = found[0], found[1], found[2], found[4]
    euler = len(vertices) - len(edges) + len(offsets) - 1
    return lost == 0 and euler == 1 and bool((np.diff(offsets) > 2).all())


def _device(device: str | None, workers: int, track: Track | None) -> torch.device | None:
    if device is None:
        return None
    if workers > 1 or track is not None:
        raise InputError("workers= and track= are for the search on the CPU; leave them out with device=")
    try:
        target = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"device={device!r} is no device of torch; give e.g. 'cuda'") from error
    require(target)
    return target


def reduced(spline: Spline, plane: Plane) -> ReluNet:
    """The spline on the plane as a ReluNet."""
    if tuple(plane.origin.shape) != spline.in_shape:
        raise InputError(
            f"the plane lies in inputs of shape {tuple(plane.origin.shape)}, the spline's are {spline.in_shape}"
        )
    sizes = [float(d.abs().max()) for d in (plane.u, plane.v)]
    if (reach := float((np.abs(plane.corners) @ sizes).max())) > REACH * max(1.0, float(plane.origin.abs().max())):
        raise DegenerateSliceError(
            f"the polygon reaches {reach:.1g} far from its origin, where float64 cannot tell what happens around the "
            "origin; take a smaller one"
        )
    exact = (
        spline if spline.dtype == torch.float64 and spline.device.type == "cpu" else spline.to("cpu").to(torch.float64)
    )
    plan = exact._exact
    plan.require_piecewise_affine("a partition")
    tensors = [source.read().detach() for source in exact.captured.sources]
    embedding = torch.stack([plane.origin, plane.u, plane.v])
    with torch.no_grad():
        return restrict(plan, tensors, embedding, torch.as_tensor(plane.corners), Surroundings(exact, plane))


def _finished(spline: Spline, plane: Plane, net: ReluNet, soup: Soup, found: tuple) -> PlanePartition:
    _, vertices, offsets, indices, edges, neighbours, where, units, member = found
    whole = len(member) == len(soup.h)
    maps = soup.maps if whole else soup.maps[member]
    bits = soup.bits if whole else soup.bits[member]
    out = spline.out_shape
    names = tuple(o.name for o in spline.operators)
    labels = UnitLists(names, where, net.operator[units], net.unit[units])
    slim = replace(net, A=net.A[:0], V=net.V[:0, :0])
    return PlanePartition(
        plane,
        vertices,
        offsets,
        indices,
        edges,
        neighbours,
        labels,
        maps[..., 1:].reshape(len(maps), *out, 2),
        np.ascontiguousarray(maps[..., 0]).reshape(len(maps), *out),
        PlaneCodes(spline._signature, slim, bits),
    )
