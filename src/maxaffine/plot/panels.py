"""Several pictures of a plane side by side: layer by layer, through training, unit by unit."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from maxaffine.code import index_of
from maxaffine.errors import InputError
from maxaffine.plot.library import INK, new_panels
from maxaffine.plot.planes import draw_edges, draw_segments, extent, frame, hue_order, partition, shape_of
from maxaffine.spline import Spline
from maxaffine.tiling.colours import colour_cells
from maxaffine.tiling.levels import edge_operators, edges_of, merge_cells, switching_units
from maxaffine.tiling.paint import class_image
from maxaffine.tiling.palette import tints
from maxaffine.tiling.pixels import cell_image, window_of
from maxaffine.types import flat

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from maxaffine.geometry.plane import PlanePartition

NEW = "#c2410c"  # what an operator adds
PANEL, FIELD = 700, 240  # pixels along the longer side of a panel: of cells, of values that are smooth in a cell
MOST = 8  # units shown unless they are named
CHUNK = 4096  # points at which a unit is evaluated at a time
PAIRS = ("maximum", "minimum", "fmax", "fmin")  # of two tensors: no single pre-activation

Floats = NDArray[np.float64]


def layers(plane: "PlanePartition", columns: int = 4) -> "Figure":
    """One panel an operator: the cells after the operators so far, with the edges that this one adds in orange.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    names, first = plane.edge_units.names, edge_operators(plane)
    figure, axes = new_panels(len(names), columns, shape_of(plane))
    figure.suptitle("The cells after each operator; orange: the edges that it adds", fontsize=10)
    window = window_of(plane.plane.corners, PANEL)
    ids = cell_image(plane, window)
    for k, (name, axis) in enumerate(zip(names, axes, strict=True)):
        walls = (first >= 0) & (first <= k)
        merged = merge_cells(plane.neighbours, len(plane), walls)
        neighbours = np.where(plane.neighbours >= 0, merged[plane.neighbours], -1)
        count = int(merged.max()) + 1
        colours = tints()[colour_cells(neighbours[walls], count)[merged][ids]]
        rgba = np.concatenate([colours, np.where(ids < 0, 0, 255)[..., None].astype(np.uint8)], axis=2)
        axis.imshow(rgba, origin="lower", extent=extent(window), aspect="auto", zorder=1)
        areas = _alike(np.bincount(merged, weights=plane.areas, minlength=count), len(plane))
        draw_edges(axis, plane, walls & (first < k), areas, INK, 0.5)
        draw_edges(axis, plane, first == k, areas, NEW, 1.0)
        frame(axis, plane)
        axis.set_title(f"after {name!r}: {count:,} cells", fontsize=9)
    _outer(axes, columns)
    return figure


def training(
    partitions: "Sequence[PlanePartition]",
    titles: Sequence[str] = (),
    *,
    colour: str | ArrayLike | None = None,
    boundary: bool = True,
    points: Tensor | ArrayLike | None = None,
    labels: Sequence[str] | ArrayLike | None = None,
    columns: int = 4,
) -> "Figure":
    """A strip of partitions of the same plane, such as snapshots of a network in training; see `partition`.

    Without ``titles`` each panel says its number of cells.

    Raises:
        InputError: no partition, or another number of titles than of partitions.
        MissingExtraError: matplotlib is not installed.
    """
    if not partitions or len(titles) not in (0, len(partitions)):
        raise InputError(f"a strip of {len(partitions)} partitions needs as many titles, got {len(titles)}")
    figure, axes = new_panels(len(partitions), columns, max(map(shape_of, partitions)))
    hues = None
    if isinstance(colour, str) and colour == "class":  # the hues of the last snapshot for all of them
        last = partitions[-1]
        hues = hue_order(class_image(last, window_of(last.plane.corners, PANEL)), last).tolist()
    said = titles or [f"{len(plane):,} cells" for plane in partitions]
    for plane, title, axis in zip(partitions, said, axes, strict=True):
        partition(plane, colour, boundary=boundary, points=points, labels=labels, names=False, hues=hues, ax=axis)
        axis.set_title(title, fontsize=9)
    _outer(axes, columns)
    return figure


def units(
    plane: "PlanePartition", spline: Spline, operator: str, units: Sequence[int] = (), columns: int = 4
) -> "Figure":
    """One panel a unit of an operator: its pre-activation on the plane and, as a line, the edges where it switches.

    These edges are the unit's hyperplane pulled back to the input: straight in each region of the layers before it and
    bent where they bend. Blue is below 0, red above. Of a maximum the winning candidate is shown instead. Without
    ``units``: the eight with most edges on the plane.

    Raises:
        InputError: no such operator, or it has fewer units.
        MissingExtraError: matplotlib is not installed.
    """
    known = {op.name: op for op in spline.operators}
    if operator not in known:
        raise InputError(f"no spline operator is called {operator!r}; the operators are {list(known)}")
    shown = list(units) or switching_units(plane, operator)[:MOST].tolist()
    if not shown:
        raise InputError(f"no unit of {operator!r} switches on this plane; name the units to show")
    if not all(0 <= unit < known[operator].units for unit in shown):
        raise InputError(f"{operator!r} has units 0 to {known[operator].units - 1}; got {shown}")
    figure, axes = new_panels(len(shown), columns, shape_of(plane))
    figure.suptitle(_meaning(known[operator].op, operator), fontsize=10)
    window = window_of(plane.plane.corners, FIELD)
    ids = cell_image(plane, window)
    fields = _fields(plane, spline, operator, shown, window.centres(), ids.ravel())
    for unit, field, axis in zip(shown, fields, axes, strict=True):
        values = np.ma.masked_array(field.reshape(ids.shape), ids < 0)
        reach = float(np.abs(values).max()) or 1.0
        image = axis.imshow(values, origin="lower", extent=extent(window), aspect="auto", cmap="RdBu_r")
        image.set_clim(-reach, reach)
        draw_edges(axis, plane, np.ones(len(plane.edges), bool), _alike(plane.areas, len(plane)), INK, 0.4)
        draw_segments(axis, plane.vertices[plane.edges[edges_of(plane, operator, unit)]], INK, 1.4)
        frame(axis, plane)
        axis.set_title(f"unit {unit}", fontsize=9)
    _outer(axes, columns)
    return figure


def _meaning(kind: str, operator: str) -> str:
    """What the panels of units show."""
    if kind in PAIRS or "max" in kind:
        return f"Units of {operator!r} ({kind}): the candidate that wins; line: where another one does"
    return f"Units of {operator!r} ({kind}): what they are given, blue below 0, red above; line: where they switch"


def _outer(axes: "list[Axes]", columns: int) -> None:
    """Numbers and names of s and t only at the left and below."""
    for k, axis in enumerate(axes):
        left, low = k % columns == 0, k + columns >= len(axes)
        axis.locator_params(nbins=5, prune="both")  # numbers at the ends would touch those of the next panel
        axis.tick_params(labelleft=left, labelbottom=low, labelsize="x-small")
        if not left:
            axis.set_ylabel("")
        if not low:
            axis.set_xlabel("")


def _fields(
    plane: "PlanePartition", spline: Spline, operator: str, units: list[int], points: Floats, ids: NDArray[np.int64]
) -> Floats:
    """(units, pixels): pre-activations at the centres of the pixels inside, or pieces of a maximum."""
    found = np.zeros((len(units), len(points)))
    inside = np.flatnonzero(ids >= 0)
    exact = spline if spline.dtype == torch.float64 else spline.to(torch.float64)
    for part in np.array_split(inside, -(-len(inside) // CHUNK)):
        x = plane.embed(points[part]).to(exact.device)
        found[:, part] = _unit_values(exact, operator, x)[:, units].cpu().numpy().T
    return found


def _unit_values(spline: Spline, operator: str, x: Tensor) -> Tensor:
    """(N, units): the operand of an elementwise operator, the winning candidate of a maximum."""
    known = next(op for op in spline.operators if op.name == operator)
    f = spline.at(x, output=(operator, 0))
    if known.op in PAIRS or f.out_shape != known.shape:
        code = spline.code(x)
        return flat(code.values[index_of(code, operator)]).double()
    return flat(f(x))


def _alike(areas: NDArray, count: int) -> Floats:
    """The mean area around a random point, for all cells: lines of one panel are drawn alike, or not at all."""
    return np.full(count, float((areas**2).sum() / areas.sum()))
