"""From a spline and a plane to its partition: restrict, find the cells, match them, read off the maps."""

from dataclasses import replace

import numpy as np
import torch

from maxaffine.errors import DegenerateSliceError, InputError
from maxaffine.geometry.cells import Job, Soup, Track, Vanishing, find_cells
from maxaffine.geometry.mesh import build
from maxaffine.geometry.plane import PlaneCodes, PlanePartition, UnitLists
from maxaffine.geometry.relunet import TOURNAMENT, ReluNet
from maxaffine.geometry.restriction import restrict
from maxaffine.geometry.synchronous import find_cells_on, working_memory
from maxaffine.slice import Plane
from maxaffine.spline import Spline

ZEROS = (1e-13, 4e-13, 2e-14)  # shares of a unit's magnitude that count as zero, tried in turn
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
    rounding (a slice inside a wall), or where lines lie closer than rounding can tell apart.
    """
    if workers < 1:
        raise InputError(f"workers={workers}; at least one is needed")
    target = _device(device, workers, track)
    net = reduced(spline, plane)
    per_cell = CELL + 8 * max(1, net.units // 64 + 1) + 24 * (len(net.A) - net.units)
    most = min(limit or 1 << 40, (memory or 1 << 50) // per_cell)
    merging = bool((net.kind == TOURNAMENT).any())
    for zero in ZEROS:
        try:
            job = Job(net, plane.corners, zero)
            if target is None:
                soup, bundles = find_cells(job, workers, most, track)
            else:
                soup, bundles = find_cells_on(job, target, most, working_memory(target))
        except Vanishing as error:
            raise _vanishing(spline, net, error.unit) from error
        found = build(tuple(soup[:6]), bundles, net.last, net.left, net.right, merging)
        vertices, offsets, edges = found[1], found[2], found[4]
        if found[0] == 0 and len(vertices) - len(edges) + len(offsets) - 1 == 1:
            return _finished(spline, plane, net, soup, found)
    raise DegenerateSliceError(
        f"{found[0]} sides of cells found no neighbour: lines of the partition lie closer together than float64 can "
        "tell apart; move the plane's origin a little, or turn u and v"
    )


def _device(device: str | None, workers: int, track: Track | None) -> torch.device | None:
    if device is None:
        return None
    if workers > 1 or track is not None:
        raise InputError("workers= and track= are for the search on the CPU; leave them out with device=")
    try:
        return torch.device(device)
    except RuntimeError as error:
        raise InputError(f"device={device!r} is no device of torch; give e.g. 'cuda'") from error


def reduced(spline: Spline, plane: Plane) -> ReluNet:
    """The spline on the plane as a ReluNet."""
    if tuple(plane.origin.shape) != spline.in_shape:
        raise InputError(
            f"the plane lies in inputs of shape {tuple(plane.origin.shape)}, the spline's are {spline.in_shape}"
        )
    exact = (
        spline if spline.dtype == torch.float64 and spline.device.type == "cpu" else spline.to("cpu").to(torch.float64)
    )
    plan = exact._exact
    plan.require_piecewise_affine("a partition")
    tensors = [source.read().detach() for source in exact.captured.sources]
    embedding = torch.stack([plane.origin, plane.u, plane.v])
    with torch.no_grad():
        return restrict(plan, tensors, embedding, torch.as_tensor(plane.corners))


def _vanishing(spline: Spline, net: ReluNet, unit: int) -> DegenerateSliceError:
    operator = spline.operators[net.operator[unit]]
    return DegenerateSliceError(
        f"unit {net.unit[unit]} of operator {operator.name!r} is zero, up to rounding, on a whole cell of the plane: "
        "the slice lies inside its wall; move the origin off the wall"
    )


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
