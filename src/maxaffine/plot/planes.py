"""One picture of a plane partition: cells in colour, their edges, the decision boundary, data points."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from maxaffine.errors import InputError
from maxaffine.geometry.statistics import statistics
from maxaffine.plot.library import INK, new_axes
from maxaffine.plot.marks import legend_of, mark_points
from maxaffine.tiling.boundary import decision_boundary
from maxaffine.tiling.paint import class_image, class_order, line_weights, name_places, paint_cells, paint_classes
from maxaffine.tiling.pixels import Window, cell_image, window_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from maxaffine.geometry.plane import PlanePartition

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
TAILS = 0.01  # of the area: values of the smallest and of the largest such share do not stretch the colours
DECADES = 100.0  # positive values that span more are shown on a logarithmic scale
SIZE = 1600  # pixels along the longer side
MEANING = {
    "sides": "number of sides",
    "area": "area in (s, t)",
    "eccentricity": "eccentricity",
    "slope": "norm of the slope: output per unit of (s, t)",
}


def partition(
    plane: "PlanePartition",
    colour: str | ArrayLike | None = None,
    *,
    boundary: bool = False,
    points: Tensor | ArrayLike | None = None,
    labels: Sequence[str] | ArrayLike | None = None,
    edges: bool = True,
    names: bool = True,
    limits: tuple[float, float] | None = None,
    hues: Sequence[int] | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw the cells of a plane in (s, t); 400,000 of them take seconds.

    colour: None: six calm colours, neighbours always different; "class": the hue is the largest output of each pixel
    (of one output: its sign), the cell a shade of it; "sides", "area", "eccentricity" or "slope"
    (geometry.statistics); or one number a cell (F,), shown
    over ``limits`` (default: all but the outermost hundredths of the area), on a logarithmic scale when all are
    positive and span more than two decades. boundary: draw where the two largest outputs are equal (of one output:
    where it is 0). points: inputs (n, *in), each shown at its nearest point of the plane; labels: texts beside them,
    or numbers that colour them, class numbers in the hues of their classes. edges: thin lines between cells that are
    large enough for it. names: write the number of each class into it. hues: the classes in the order in which they
    get their hues (default: the class with the largest part of the picture first), for pictures to be compared.
    ax: where to draw; without it a new figure, which also gets a title, a colour bar and a legend.

    Raises:
        InputError: a colour that is no name and not one number a cell, or labels that do not fit the points.
        MissingExtraError: matplotlib is not installed.
    """
    places = np.zeros((0, 2)) if points is None else plane.plane.coordinates(torch.as_tensor(points))
    flat = colour is None or (isinstance(colour, str) and colour == "class")
    axis = new_axes(shape_of(plane), 0.0 if flat else 0.9) if ax is None else ax
    window = window_of(plane.plane.corners, SIZE)
    order = np.arange(0)
    if colour is None:
        _show(axis, paint_cells(plane, window), window)
    elif flat:
        order = _classes(axis, plane, window, names, places, hues)
    else:
        _values(axis, plane, window, colour, limits, bar=ax is None)
    if edges:
        draw_edges(axis, plane, np.ones(len(plane.edges), bool), plane.areas, INK if flat else "white")
    segments = decision_boundary(plane) if boundary else np.zeros((0, 2, 2))
    draw_segments(axis, segments, INK, 1.6)
    frame(axis, plane)
    kinds = mark_points(axis, places, labels, order)
    if ax is None:
        axis.set_title(_title(plane, colour), fontsize=10)
        legend_of(axis, kinds, _boundary_name(plane) if len(segments) else "")
    return axis


def _title(plane: "PlanePartition", colour: str | ArrayLike | None) -> str:
    """How many cells, and what the colour is unless a colour bar says so."""
    cells = f"{len(plane):,} cells"
    if isinstance(colour, str) and colour == "class":
        return f"{cells}, colour: {'sign of the output' if plane.b[0].size == 1 else 'largest output'}"
    return cells


def _boundary_name(plane: "PlanePartition") -> str:
    return "where f = 0" if plane.b[0].size == 1 else "decision boundary"


def values_of(plane: "PlanePartition", colour: str | ArrayLike) -> Floats:
    """One number a cell (F,): an array as it is, or a statistic by its name."""
    if isinstance(colour, str):
        return _statistic(plane, colour)
    values = np.asarray(colour, dtype=np.float64)
    if values.shape != (len(plane),):
        raise InputError(f"a colour needs one number for each of the {len(plane)} cells, got shape {values.shape}")
    return values


def _statistic(plane: "PlanePartition", name: str) -> Floats:
    known = statistics(plane)._asdict()
    if name not in known:
        raise InputError(f'no colour is called {name!r}; give "class", one of {", ".join(known)}, or an array')
    return np.asarray(known[name], dtype=np.float64)


def limits_of(values: Floats, areas: Floats) -> tuple[float, float]:
    """The smallest and the largest value, without those of the outermost hundredths of the area."""
    finite = np.isfinite(values)
    values, areas = values[finite], areas[finite]
    order = values.argsort()
    share = np.cumsum(areas[order]) / areas.sum()
    low, high = values[order][np.searchsorted(share, [TAILS, 1 - TAILS]).clip(0, len(values) - 1)]
    return (float(low), float(high)) if high > low else (float(low), float(low) + 1.0)


def draw_segments(axis: "Axes", segments: Floats, colour: str, width: float) -> None:
    """Draw (n, 2, 2) segments as one dark line with a light rim, so that it shows on any colour."""
    from matplotlib.collections import LineCollection

    for shade, wide, layer in (("white", width + 1.8, 3.0), (colour, width, 3.1)):
        axis.add_collection(
            LineCollection(list(segments), colors=shade, linewidths=wide, capstyle="round", zorder=layer)
        )


def shape_of(plane: "PlanePartition") -> float:
    """Height over width of the picture: a unit of t is as long as v, a unit of s as long as u."""
    width, height = np.ptp(plane.plane.corners, axis=0)
    return float(height / width * (plane.plane.v.norm() / plane.plane.u.norm()))


def frame(axis: "Axes", plane: "PlanePartition") -> None:
    """Show the plane's polygon without distortion, with the length in the input space of a unit of s and of t."""
    from matplotlib.patches import Polygon

    corners, u, v = plane.plane.corners, plane.plane.u, plane.plane.v
    axis.add_patch(Polygon(corners, fill=False, edgecolor=INK, linewidth=0.8, zorder=3.5, clip_on=False))
    (left, bottom), (right, top) = corners.min(0), corners.max(0)
    axis.set_xlim(left, right)
    axis.set_ylim(bottom, top)
    axis.set_aspect(float(v.norm() / u.norm()))
    axis.spines[:].set_visible(False)
    axis.set_xlabel(_unit("s", float(u.norm())), fontsize="small")
    axis.set_ylabel(_unit("t", float(v.norm())), fontsize="small")
    axis.locator_params(nbins=5)
    axis.tick_params(length=3, width=0.6, labelsize="small")


def _unit(name: str, length: float) -> str:
    return name if abs(length - 1) < 1e-9 else f"{name}, in units of {length:.3g}"


def _show(axis: "Axes", rgba: NDArray[np.uint8], window: Window) -> None:
    axis.imshow(rgba, origin="lower", extent=extent(window), aspect="auto", zorder=1)


def extent(window: Window) -> tuple[float, float, float, float]:
    """The window as imshow wants it."""
    return window.left, window.right, window.bottom, window.top


def _classes(
    axis: "Axes", plane: "PlanePartition", window: Window, names: bool, points: Floats, hues: Sequence[int] | None
) -> Ints:
    """Paint and name the classes; returns the order in which they have their hues."""
    classes, single = class_image(plane, window), plane.b[0].size == 1
    order = hue_order(classes, plane, hues)
    _show(axis, paint_classes(plane, window, classes, order), window)
    for name, (s, t) in name_places(classes, window, points).items() if names else ():
        text = ("f < 0", "f > 0")[name] if single else str(name)
        axis.text(s, t, text, ha="center", va="center", color=INK, fontsize="large", fontweight="bold", zorder=4)
    return order


def hue_order(classes: Ints, plane: "PlanePartition", first: Sequence[int] | None = None) -> Ints:
    """All classes in the order of their hues: those in ``first``, then by their share of the picture, then the rest.

    Two classes keep their hues in every picture.
    """
    count = max(2, plane.b[0].size)
    if first is None and count == 2:
        return np.arange(2)
    wanted = np.concatenate(
        [np.asarray(() if first is None else first, np.int64), class_order(classes), np.arange(count)]
    )
    return wanted[np.sort(np.unique(wanted, return_index=True)[1])]


def _values(
    axis: "Axes",
    plane: "PlanePartition",
    window: Window,
    colour: str | ArrayLike,
    limits: tuple[float, float] | None,
    bar: bool,
) -> None:
    from matplotlib.colors import LogNorm, Normalize

    values = values_of(plane, colour)
    low, high = limits_of(values, plane.areas) if limits is None else limits
    norm = LogNorm(low, high) if low > 0 and high / low > DECADES else Normalize(low, high)
    ids = cell_image(plane, window)
    pixels = np.ma.masked_array(values[ids], ids < 0)
    image = axis.imshow(
        pixels, origin="lower", extent=extent(window), aspect="auto", norm=norm, cmap="viridis", zorder=1
    )
    if bar:
        beyond = (bool(np.nanmin(values) < low), bool(np.nanmax(values) > high))
        ends = {(True, True): "both", (True, False): "min", (False, True): "max", (False, False): "neither"}
        label = MEANING.get(colour, colour) if isinstance(colour, str) else ""
        column = axis.inset_axes((1.03, 0.0, 0.03, 1.0))
        axis.figure.colorbar(image, cax=column, extend=ends[beyond])
        column.set_ylabel(label, fontsize="small")
        column.tick_params(labelsize="small")


def draw_edges(
    axis: "Axes", plane: "PlanePartition", chosen: NDArray[np.bool_], areas: Floats, colour: str, width: float = 0.7
) -> None:
    """Draw some edges as lines: the smaller the cells beside them, of these areas, the thinner; the smallest none.

    Where most cells are too small for lines, those around the few larger ones would only be specks: all grow fainter.
    """
    from matplotlib.collections import LineCollection
    from matplotlib.colors import to_rgb

    place = axis.get_window_extent()
    window = window_of(plane.plane.corners, round(max(place.width, place.height)))
    typical = line_weights(np.array([(areas**2).sum() / areas.sum()]), np.zeros((1, 2), np.int64), window)
    weight = line_weights(areas, plane.neighbours, window) * typical
    drawn = chosen & (weight > 0) & (plane.neighbours >= 0).all(1)
    weight = weight[drawn]
    colours = np.concatenate(
        [np.tile(to_rgb(colour), (len(weight), 1)), 0.15 * typical + 0.5 * weight[:, None]], axis=1
    )
    lines = plane.vertices[plane.edges[drawn]]
    axis.add_collection(LineCollection(list(lines), colors=colours, linewidths=width * (0.3 + 0.7 * weight), zorder=2))
