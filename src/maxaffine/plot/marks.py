"""Data points on a picture, what stands beside them, and the legend."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maxaffine.errors import InputError
from maxaffine.plot.library import INK
from maxaffine.tiling.palette import CLASS_HUES, oklch

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]
Kinds = dict[str, NDArray[np.float64]]  # what the colours of points stand for
FEW = 30  # points that are drawn large
MOST = 12  # kinds in a legend


def mark_points(
    axis: "Axes", places: Floats, labels: Sequence[str] | ArrayLike | None, order: NDArray[np.int64]
) -> Kinds:
    """Draw points (n, 2) with texts beside them, or coloured by number: class k in the k-th hue of ``order``.

    Raises:
        InputError: another number of labels than of points.
    """
    marks = None if labels is None else np.asarray(labels)
    if marks is not None and marks.shape != (len(places),):
        raise InputError(f"{len(places)} points need as many labels, got shape {marks.shape}")
    if not len(places):
        return {}
    if marks is None or marks.dtype.kind in "US":
        _dots(axis, places, "white", INK)
        for text, place in zip(() if marks is None else marks, places, strict=False):
            _tag(axis, str(text), place)
        return {}
    kinds, kind = np.unique(marks, return_inverse=True)
    colours = _strong(_hues_of(kinds, order))
    _dots(axis, places, colours[kind], "white")
    return {f"{name:g}": colour for name, colour in zip(kinds, colours, strict=True)}


def legend_of(axis: "Axes", kinds: Kinds, line: str) -> None:
    """A row below the picture: the kinds of points, and what the dark line is ("": there is none)."""
    from matplotlib.lines import Line2D

    shown = kinds if len(kinds) <= MOST else {}
    handles = [
        Line2D([], [], marker="o", linestyle="", color=tuple(colour.tolist()), label=f"label {name}")
        for name, colour in shown.items()
    ]
    if line:
        handles.append(Line2D([], [], color=INK, linewidth=1.6, label=line))
    if handles:
        axis.figure.legend(
            handles=handles, loc="outside lower center", ncols=min(7, len(handles)), frameon=False, fontsize="small"
        )


def _dots(axis: "Axes", places: Floats, colours: str | Floats, rim: str) -> None:
    box = axis.get_window_extent()
    share = min(1.0, max(box.width, box.height) / 450)  # small panels, small dots
    size = (34 if len(places) <= FEW else 16) * max(share, 0.6)
    axis.scatter(
        *places.T, s=size, c=colours, edgecolors=rim, linewidths=(0.9 if rim == INK else 0.5) * share, zorder=5
    )


def _tag(axis: "Axes", text: str, place: Floats) -> None:
    """A text beside a point, towards the middle of the picture where the border is near."""
    right, above = axis.transAxes.inverted().transform(axis.transData.transform(place)) < 0.88
    box = {"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": INK, "linewidth": 0.6, "alpha": 0.9}
    axis.annotate(
        text,
        tuple(place.tolist()),
        xytext=(7 if right else -7, 7 if above else -7),
        textcoords="offset points",
        ha="left" if right else "right",
        va="bottom" if above else "top",
        color=INK,
        bbox=box,
        fontsize=9,
        zorder=6,
    )


def _hues_of(kinds: NDArray, order: NDArray[np.int64]) -> NDArray[np.int64]:
    """The place in the palette of each kind: that of its class if all of them are classes."""
    if not len(order) or not np.isin(kinds, order).all():
        return np.arange(len(kinds))
    place = np.zeros(order.max() + 1, np.int64)
    place[order] = np.arange(len(order))
    return place[kinds.astype(np.int64)]


def _strong(places: NDArray[np.int64]) -> Floats:
    """The hues of the classes, darker and more vivid than the cells below (n, 3)."""
    return np.concatenate([oklch(0.55, 0.15, CLASS_HUES[k % len(CLASS_HUES)]) for k in places.tolist()]) / 255
