"""Exact geometry: the partition of a line or a plane that a network makes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, overload

from maxaffine.errors import InputError
from maxaffine.slice import Plane, Segment
from maxaffine.spline import Spline
from maxaffine.types import on_cpu

if TYPE_CHECKING:
    from maxaffine.geometry.cells import Track
    from maxaffine.geometry.line import LinePartition
    from maxaffine.geometry.plane import PlanePartition


@overload
def partition(spline: Spline, domain: Segment) -> "LinePartition": ...
@overload
def partition(spline: Spline, domain: Sequence[Segment]) -> "list[LinePartition]": ...
@overload
def partition(
    spline: Spline,
    domain: Plane,
    *,
    workers: int = 1,
    memory: int | None = None,
    limit: int | None = None,
    device: str | None = None,
    track: "Track | None" = None,
) -> "PlanePartition": ...
def partition(
    spline: Spline,
    domain: Segment | Sequence[Segment] | Plane,
    *,
    workers: int = 1,
    memory: int | None = None,
    limit: int | None = None,
    device: str | None = None,
    track: "Track | None" = None,
) -> "LinePartition | list[LinePartition] | PlanePartition":
    """The exact partition of a segment, of each of a list of segments, or of a convex polygon in a plane.

    For planes only: workers, threads; memory, bytes the result may take; limit, cells; device, e.g. "cuda": find the
    cells there by tensor operations, a level at a time; track shows progress, track(iterable, text) -> iterable. With
    more workers, or track, the same cells come in another order. Everything is computed in float64; a polygon on which
    that cannot tell whether three lines meet in one point is refused.

    A unit that is zero in a whole region follows the convention for ties: piece 0, of a maximum the lowest index. So
    does one that is zero there but for rounding (weights 0.1, 0.2 and -0.3 on three equal units), where spline.code
    at a point is what rounding makes of it and may say otherwise. A slice that lies inside a wall of an elementwise
    unit up to rounding is refused. Raises InputError, NotPiecewiseAffineError, DegenerateSliceError, MemoryBudgetError.

    >>> import torch, maxaffine as ma
    >>> spline = ma.Spline(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.ReLU()), torch.zeros(1, 2))
    >>> len(ma.partition(spline, ma.Segment(torch.tensor([-1.0, -1]), torch.tensor([3.0, 1]))))
    3
    """
    if not isinstance(spline, Spline):
        raise InputError(f"partition takes a Spline, not a {type(spline).__name__}: give ma.Spline(model, example)")
    if isinstance(domain, Plane):
        from maxaffine.geometry.planes import partition_plane

        with on_cpu():
            return partition_plane(spline, domain, workers, memory, limit, device, track)
    if workers != 1 or any(option is not None for option in (memory, limit, device, track)):
        raise InputError("workers=, memory=, limit=, device= and track= are for a Plane; leave them out with segments")
    from maxaffine.geometry.line import partition_segments

    segments = [domain] if isinstance(domain, Segment) else domain
    if not isinstance(segments, Sequence) or not all(isinstance(d, Segment) for d in segments):
        raise InputError(f"partition takes a Segment, a list of them or a Plane, not a {type(domain).__name__}")
    with on_cpu():
        found = partition_segments(spline, list(segments))
    return found[0] if isinstance(domain, Segment) else found
