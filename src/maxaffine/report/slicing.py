"""The slice of a report: the partition of the plane through three of its inputs, or of as much of it as is shown."""

from collections.abc import Sequence

import numpy as np
import torch

from maxaffine.errors import DegenerateSliceError, InputError, MemoryBudgetError
from maxaffine.geometry import partition
from maxaffine.geometry.plane import PlanePartition
from maxaffine.report.findings import Exactness, Overview, Slice
from maxaffine.slice import Plane, Segment
from maxaffine.spline import Spline
from maxaffine.tiling.pixels import window_of
from maxaffine.types import flat

CELLS = 20_000  # more cannot be told apart in a picture, and the report must not take longer
ENOUGH = 4_000  # cells of a part of the plane with which the search for a larger part ends
UNITS = 3_000  # units that switch: with more the partition itself becomes the work
TRIES = 9
STEPS = 200  # along the line between two inputs
START = 2**-6  # of the width of the plane; less for networks of many units
CHECKED = 1_000  # cells
GRID, WORK = 240, 4 * 10**7  # points along the overview's side; points times units evaluated for it


def slice_through(spline: Spline, x: torch.Tensor, rows: Sequence[int]) -> Slice | None:
    """Partition the plane through three inputs x (3, *in); None where there is no plane.

    The whole square around the inputs if it has at most 20,000 cells. Else the largest square found to hold fewer,
    around the point where the line from the first input to the second leaves the first's largest output (if it
    does); then an overview of the whole shows the network's largest output at points of a grid.
    """
    if x[0].numel() < 2 or len(x) < 3:
        return None
    exact = spline.to("cpu").to(torch.float64)
    inputs = x.to("cpu", torch.float64)
    try:
        whole = Plane.through(inputs[0], inputs[1], inputs[2])
        turn = _turn(exact, inputs[0], inputs[1])
        found, share = _largest(exact, whole, inputs[0] if turn is None else turn)
    except (DegenerateSliceError, InputError) as error:
        return Slice(tuple(rows), None, 0.0, None, None, None, False, str(error))
    if found is None:
        note = f"even a square {share:.2g} times as wide as the plane holds more than {CELLS:,} regions"
        return Slice(tuple(rows), None, share, None, None, None, turn is not None, note)
    overview = None if share == 1 or exact.out_shape in ((), (1,)) else _overview(exact, whole, inputs, found.plane)
    places, checked = found.plane.coordinates(inputs), check_cells(exact, found)
    return Slice(tuple(rows), found, share, checked, overview, places, turn is not None, "")


def _turn(spline: Spline, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor | None:
    """The point where the line from a to b leaves the largest output of a; None if it does not."""
    segment = Segment(a, b)
    best = flat(spline(segment.embed(torch.linspace(0, 1, STEPS + 1, dtype=torch.float64)))).argmax(1)
    changed = (best != best[0]).nonzero()
    if not len(changed):
        return None
    low, high = (int(changed[0]) - 1) / STEPS, int(changed[0]) / STEPS
    for _ in range(50):
        middle = (low + high) / 2
        same = spline(segment.embed(torch.tensor([middle], dtype=torch.float64))).flatten().argmax() == best[0]
        low, high = (middle, high) if same else (low, middle)
    return segment.embed(torch.tensor([high], dtype=torch.float64))[0]


def check_cells(spline: Spline, plane: PlanePartition, count: int = CHECKED) -> Exactness:
    """Compare f with the map b + A (s, t) of a cell, and codes, at the centres of up to ``count`` cells."""
    cells = np.unique(np.linspace(0, len(plane) - 1, count).round().astype(np.int64))
    worst = scale = 0.0
    same = 0
    for part in np.array_split(cells, -(-len(cells) // 100)):
        x, at = plane.embed(plane.centres[part]), plane.centres[part]
        values = flat(spline(x)).numpy()
        A, b = plane.A[part].reshape(len(part), -1, 2), plane.b[part].reshape(len(part), -1)
        worst = max(worst, float(np.abs(values - b - (A @ at[..., None])[..., 0]).max()))
        scale = max(scale, float(np.abs(values).max()))
        same += int((spline.code(x) == plane.codes[part]).sum())
    return Exactness(len(cells), len(plane), same, worst, scale)


def _largest(spline: Spline, whole: Plane, centre: torch.Tensor) -> tuple[PlanePartition | None, float]:
    """The partition of the plane, or of a smaller square around a point, and its width as a share of the plane's.

    The square grows from a small one until it is the plane or holds enough cells: a network with many units is never
    asked for all that switches in the plane at once.
    """
    units = sum(operator.units for operator in spline.operators)
    share, known, stopped = min(START, START * UNITS / max(units, 1)), 0.0, 1.0
    best = None
    for _ in range(TRIES):
        part = whole if share == 1 else Plane.square(centre, share * whole.u, share * whole.v)
        try:
            found = partition(spline, part, limit=CELLS)
        except MemoryBudgetError:
            stopped = share
            share = (known * share) ** 0.5 if known else share / 8
            continue
        best, known = found, share
        fits = len(found) <= CELLS * share**2  # the whole would, if its cells are as large as these
        if share == 1 or len(found.codes.net.operator) > UNITS or (len(found) >= ENOUGH and (stopped < 1 or not fits)):
            break
        grown = share * min(4.0, max(1.3, (2 * ENOUGH / len(found)) ** 0.5))
        if stopped < 1:
            share = min(grown, (known * stopped) ** 0.5)
        else:
            share = 1.0 if fits and len(found) >= ENOUGH else min(grown, 1.0)
    return best, known if best is not None else share


def _overview(spline: Spline, whole: Plane, inputs: torch.Tensor, part: Plane) -> Overview:
    """The largest output at points of a grid on the whole plane, and where the inputs and the part lie in it."""
    units = sum(operator.units for operator in spline.operators)
    window = window_of(whole.corners, int(np.clip((WORK / max(units, 1)) ** 0.5, 40, GRID)))
    points = window.centres()
    chunk = max(1, min(4096, 2**26 // (8 * max(units, 1))))
    best = [
        flat(spline(whole.embed(points[first : first + chunk]))).argmax(1).numpy()
        for first in range(0, len(points), chunk)
    ]
    square = whole.coordinates(part.embed(part.corners))
    classes = np.concatenate(best).reshape(window.rows, window.columns)
    return Overview(classes, window, whole.coordinates(inputs), square)
