"""Pictures of codes over a data set: who is near whom at each depth, how many cells are used, how networks compare."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maxaffine.codebook import AgainstEuclidean, Agreement, Comparison, Nearest, Occupancy
from maxaffine.errors import InputError
from maxaffine.plot.library import INK, new_panels, pyplot
from maxaffine.tiling.palette import CLASS_HUES, oklch

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

QUERY, OTHER = "#d6221f", "#f08c00"  # frames: the query, and an image of another class
GAP = 0.12  # of an image's side, between images
BINS = 60
Floats = NDArray[np.float64]


def neighbours(
    images: ArrayLike,
    found: Mapping[str, Nearest],
    queries: ArrayLike,
    labels: ArrayLike | None = None,
    *,
    pool: ArrayLike | None = None,
    pool_labels: ArrayLike | None = None,
) -> "Figure":
    """The paper's mosaics: each query (red frame) before its nearest images, a row a query and a column a depth.

    images (N, H, W), (N, 1, H, W) or (N, 3, H, W); found: by name of the depth, of `codebook.nearest`, one row a query;
    queries: the rows of images that were asked for. 15 neighbours make mosaics of 4 x 4. With labels, orange frames
    mark images of another class. pool: where the neighbours' rows point (default: the images themselves).

    Raises InputError for sizes that do not fit, MissingExtraError without matplotlib.
    """
    own, asked = _pictures(images), np.asarray(queries).reshape(-1)
    theirs = own if pool is None else _pictures(pool)
    kinds = None if labels is None else np.asarray(labels)
    other = kinds if pool is None else None if pool_labels is None else np.asarray(pool_labels)
    if not found or any(len(one.rows) != len(asked) for one in found.values()):
        raise InputError(f"found holds {[len(one.rows) for one in found.values()]} rows for {len(asked)} queries")
    high, low = (max(v.max() for v in (own, theirs)), min(v.min() for v in (own, theirs)))
    own, theirs = ((v - low) / ((high - low) or 1) for v in (own, theirs))
    figure, axes = pyplot().subplots(
        len(asked), len(found), figsize=(2.05 * len(found), 2.0 * len(asked) + 0.3), layout="constrained", squeeze=False
    )
    for line, row, query in zip(axes, range(len(asked)), asked, strict=True):
        for axis, (depth, one) in zip(line, found.items(), strict=True):
            near = one.rows[row]
            wrong = None if kinds is None or other is None else other[near] != kinds[query]
            _mosaic(axis, np.concatenate([own[query : query + 1], theirs[near]]), wrong)
            if row == 0:
                axis.set_title(depth, fontsize=9)
    return figure


def _pictures(images: ArrayLike) -> Floats:
    """(N, H, W, 1 or 3)."""
    found = np.asarray(images, np.float64)
    found = found[:, None] if found.ndim == 3 else found
    if found.ndim != 4 or found.shape[1] not in (1, 3) or not len(found):
        raise InputError(f"images have shape {np.shape(images)}; give (N, H, W), (N, 1, H, W) or (N, 3, H, W)")
    return found.transpose(0, 2, 3, 1)


def _mosaic(axis: "Axes", shown: Floats, wrong: NDArray[np.bool_] | None) -> None:
    """Images row by row in a square; frames around the first and around those of another class."""
    side = int(np.ceil(np.sqrt(len(shown))))
    height, width = shown.shape[1:3]
    gap = max(1, round(GAP * max(height, width)))
    canvas = np.ones((side * (height + gap) + gap, side * (width + gap) + gap, 3))
    for place, image in enumerate(shown):
        top, left = (gap + n * (size + gap) for n, size in zip(divmod(place, side), (height, width), strict=True))
        canvas[top : top + height, left : left + width] = image
        colour = QUERY if place == 0 else OTHER if wrong is not None and wrong[place - 1] else None
        if colour is not None:
            corner = left - 0.5 - gap / 4, top - 0.5 - gap / 4
            box = pyplot().Rectangle(corner, width + gap / 2, height + gap / 2, fill=False, edgecolor=colour)
            axis.add_patch(box)
            box.set_linewidth(2.0 if place == 0 else 1.4)
    axis.imshow(canvas, interpolation="nearest")
    axis.set_axis_off()


def occupancy(found: Occupancy | Mapping[str, Occupancy]) -> "Figure":
    """Occupied cells against the number of inputs, a panel a depth, a line a network (before and after training).

    Dashed: a cell for every input. Raises InputError, MissingExtraError.
    """
    named = {"": found} if isinstance(found, Occupancy) else dict(found)
    depths = list(dict.fromkeys(depth for one in named.values() for depth in one.depths))
    if not depths:
        raise InputError("no occupancy is given: occupancy({}) has nothing to show")
    figure, axes = new_panels(len(depths), 4, 0.85)
    for axis, depth in zip(axes, depths, strict=True):
        for (name, one), colour in zip(named.items(), _colours(len(named)), strict=True):
            if depth in one.depths:
                axis.plot(one.inputs, one.cells[one.depths.index(depth)], color=colour, linewidth=1.7, label=name)
        most = max(one.inputs[-1] for one in named.values())
        axis.plot([0, most], [0, most], "--", color=INK, linewidth=0.8, alpha=0.6)
        axis.set_title(depth, fontsize=9)
        axis.set_xlabel("inputs")
        _plain(axis)
    axes[0].set_ylabel("occupied cells")
    if len(named) > 1:
        axes[0].legend(frameon=False, fontsize="small")
    return figure


def class_agreement(
    found: Agreement | Mapping[str, Agreement], k: int | None = None, *, ax: "Axes | None" = None
) -> "Axes":
    """Share of the k nearest neighbours by code that are of the query's class, over the depths; a line a network.

    k: one of those that were counted (default: the first). Dashed: neighbours drawn at random.
    Raises InputError for a k that is not there, MissingExtraError.
    """
    named = {"": found} if isinstance(found, Agreement) else dict(found)
    if not named or (k is not None and any(k not in one.k for one in named.values())):
        raise InputError(f"k is {k}; what is given has {[one.k for one in named.values()]}")
    axis = pyplot().subplots(figsize=(5.6, 3.4), layout="constrained")[1] if ax is None else ax
    first = next(iter(named.values()))
    for (name, one), colour in zip(named.items(), _colours(len(named)), strict=True):
        place = 0 if k is None else one.k.index(k)
        axis.plot(range(len(one.depths)), one.shares[:, place], "o-", color=colour, linewidth=1.7, label=name)
    axis.axhline(first.chance, linestyle="--", color=INK, linewidth=0.8, alpha=0.6)
    longest = max(len(one.depths) for one in named.values())
    axis.set_xticks(range(longest), _ticks(list(named.values()), longest), fontsize=8)
    axis.set_xlabel("operator, from input to output")
    axis.set_ylabel(f"neighbours of the same class (k = {first.k[0] if k is None else k})")
    axis.set_ylim(0, 1.02)
    _plain(axis)
    if len(named) > 1:
        axis.legend(frameon=False, fontsize="small")
    return axis


def _ticks(given: Sequence[Agreement], longest: int) -> list[str]:
    """The operators' names where all networks have the same, else their places."""
    same = all(one.depths == given[0].depths for one in given)
    return list(given[0].depths) if same else [str(n + 1) for n in range(longest)]


def distances(found: AgainstEuclidean) -> "Figure":
    """Code distance against Euclidean distance of pairs of inputs, a panel a depth; darker: more pairs.

    Above each panel stands the rank correlation. Raises MissingExtraError.
    """
    figure, axes = new_panels(len(found.depths), 4)
    for axis, depth, codes, correlation in zip(axes, found.depths, found.codes, found.correlations, strict=True):
        axis.hexbin(found.euclidean, codes, gridsize=BINS // 2, bins="log", mincnt=1, cmap="Blues", linewidths=0.1)
        axis.set_title(f"{depth}: rank correlation {correlation:.2f}", fontsize=9)
        axis.set_xlabel("Euclidean distance")
        axis.set_ylim(bottom=0)
        _plain(axis)
    axes[0].set_ylabel("code distance")
    return figure


def embedding(
    places: ArrayLike | Mapping[str, ArrayLike], labels: ArrayLike | None = None, names: Sequence[str] = ()
) -> "Figure":
    """Inputs in the plane (N, 2) as `codebook.embedding` puts them, coloured by label; a panel a depth.

    The axes have no scale: only what lies near what has a meaning. Raises InputError, MissingExtraError.
    """
    panels = {k: np.asarray(v) for k, v in places.items()} if isinstance(places, Mapping) else {"": np.asarray(places)}
    kinds, kind = (np.zeros(1), None) if labels is None else np.unique(np.asarray(labels), return_inverse=True)
    for name, one in panels.items():
        if one.ndim != 2 or one.shape[1] != 2 or (kind is not None and len(kind) != len(one)):
            count = "none" if kind is None else len(kind)
            raise InputError(f"places {name!r} have shape {one.shape}, labels: {count}; give (N, 2) and (N,)")
    colours = _colours(len(kinds))
    figure, axes = new_panels(len(panels), 4)
    for axis, (depth, one) in zip(axes, panels.items(), strict=True):
        for place, (value, colour) in enumerate(zip(kinds, colours, strict=True)):
            mine = slice(None) if kind is None else kind == place
            name = names[place] if names else f"{value}"
            axis.scatter(*one[mine].T, s=9, color=[colour], linewidths=0, label=name)
        axis.set_title(depth, fontsize=9)
        axis.set_aspect("equal", "datalim")
        axis.set_xticks([])
        axis.set_yticks([])
    if kind is not None:
        handles, said = axes[0].get_legend_handles_labels()
        figure.legend(
            handles, said, loc="outside right center", frameon=False, fontsize="small", markerscale=2, handletextpad=0.1
        )
    return figure


def comparison(found: Comparison, names: tuple[str, str] = ("first", "second")) -> "Figure":
    """Three tables over pairs of depths: adjusted Rand index, mutual information, correlation of the distances.

    names: of the two networks. Raises MissingExtraError.
    """
    tables = {
        "adjusted Rand index": found.rand,
        "mutual information": found.information,
        "correlation of distances": found.correlation,
    }
    figure, axes = new_panels(3, 3, max(0.5, len(found.first) / len(found.second)))
    for axis, (title, table) in zip(axes, tables.items(), strict=True):
        axis.imshow(table, cmap="Blues", vmin=0, vmax=1)
        for (i, j), value in np.ndenumerate(table):
            said = "–" if np.isnan(value) else f"{value:.2f}"
            axis.text(j, i, said, ha="center", va="center", fontsize=9, color="white" if value > 0.6 else INK)
        axis.set_xticks(range(len(found.second)), found.second, fontsize=8)
        axis.set_yticks(range(len(found.first)), found.first, fontsize=8)
        axis.set_xlabel(names[1])
        axis.set_title(title, fontsize=10)
    axes[0].set_ylabel(names[0])
    return figure


def _colours(count: int) -> list[tuple[float, ...]]:
    hues = [CLASS_HUES[k % len(CLASS_HUES)] for k in range(count)]
    return [tuple(oklch(0.58 - 0.08 * (k // len(CLASS_HUES) % 3), 0.14, h)[0] / 255) for k, h in enumerate(hues)]


def _plain(axis: "Axes") -> None:
    axis.spines[["top", "right"]].set_visible(False)
