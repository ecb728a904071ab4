"""Pixels in colour: RGBA pictures of a plane partition, and where the names of its classes may stand."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from maxaffine.tiling.boundary import leading_outputs, maps
from maxaffine.tiling.colours import colour_cells
from maxaffine.tiling.palette import class_tints, tints
from maxaffine.tiling.pixels import Window, cell_image

if TYPE_CHECKING:
    from maxaffine.geometry.plane import PlanePartition

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
CHUNK = 2**22
COARSE = 120  # columns or rows of the picture in which places for names are looked for
POINT = 0.03  # of the picture: so much room is a point given
INSET = 0.035  # of the picture: a name needs so much room around it


def paint_cells(plane: "PlanePartition", window: Window) -> Bytes:
    """(rows, columns, 4): every cell in one of six calm colours, neighbours always in different ones."""
    ids = cell_image(plane, window)
    return _opaque(tints()[colour_cells(plane.neighbours, len(plane))[ids]], ids)


def paint_classes(plane: "PlanePartition", window: Window, classes: Ints, order: Ints | None = None) -> Bytes:
    """(rows, columns, 4): the class of each pixel as its hue, the cell as a shade of it.

    classes: (rows, columns) as `class_image` returns it. Hues go to the classes in this order, or else by their share
    of the picture.
    """
    ids = cell_image(plane, window)
    shade = colour_cells(plane.neighbours, len(plane))[ids]
    order = class_order(classes) if order is None else order
    place = _places(order)
    return _opaque(class_tints(len(order))[place[classes], shade], ids)


def paint_grid(classes: Ints, order: Ints) -> Bytes:
    """(rows, columns, 4): classes at points of a grid, without cells, in the hues of `paint_classes`."""
    return _opaque(class_tints(len(order))[_places(order)[classes], 0], classes)


def darken_edges(rgba: Bytes, plane: "PlanePartition", window: Window) -> Bytes:
    """The picture with lines one pixel wide between cells, fainter beside small cells, none beside the smallest."""
    ids = cell_image(plane, window)
    width, height = window.pixel
    size = np.sqrt(np.append(plane.areas, 0) / (width * height))
    strength = ((size - 6) / 60).clip(0, 1)[ids]
    line = np.zeros(ids.shape)
    for a, b in ((np.s_[:-1], np.s_[1:]), (np.s_[:, :-1], np.s_[:, 1:])):
        beside = np.minimum(strength[a], strength[b]) * (ids[a] != ids[b])
        line[a] = np.maximum(line[a], beside)
    shade = 1 - np.where(line > 0, 0.15 + 0.5 * line, 0)
    dark = (rgba[..., :3] * shade[..., None]).round().astype(np.uint8)
    return np.concatenate([dark, rgba[..., 3:]], axis=2)


def class_image(plane: "PlanePartition", window: Window) -> Ints:
    """(rows, columns): the largest output at the centre of each pixel; of one output, 1 where it is above 0.

    Pixels outside of the partition get class 0.
    """
    ids, points = cell_image(plane, window).ravel(), window.centres()
    A, b = maps(plane)
    best, leading = leading_outputs(plane)
    found = best[ids]
    several = np.flatnonzero((leading != leading[:, :1]).any(1)[ids] & (ids >= 0))
    for part in np.array_split(several, -(-len(several) * leading.shape[1] // CHUNK) or 1):
        cell, outputs = ids[part, None], leading[ids[part]]
        values = (A[cell, outputs] @ points[part, :, None])[..., 0] + b[cell, outputs]
        found[part] = outputs[np.arange(len(part)), values.argmax(1)]
    found[ids < 0] = 0
    return found.reshape(window.rows, window.columns)


def class_order(classes: Ints) -> Ints:
    """The classes that occur, the one with most pixels first."""
    names, counts = np.unique(classes, return_counts=True)
    return names[(-counts).argsort(kind="stable")]


def name_places(classes: Ints, window: Window, points: Floats | None = None) -> dict[int, tuple[float, float]]:
    """For every class with room for a name the (s, t) of the point deepest inside it, and not beside ``points``."""
    stride = max(1, max(classes.shape) // COARSE)
    coarse = classes[stride // 2 :: stride, stride // 2 :: stride].copy()
    size = max(coarse.shape)
    for s, t in np.zeros((0, 2)) if points is None else points:
        row, column = (t - window.bottom) / window.pixel[1] / stride, (s - window.left) / window.pixel[0] / stride
        y, x = np.ogrid[: coarse.shape[0], : coarse.shape[1]]
        coarse[(y - row) ** 2 + (x - column) ** 2 < (POINT * size) ** 2] = -1
    places = {}
    for name in class_order(classes).tolist():
        depth = _depth(coarse == name)
        row, column = np.unravel_index(depth.argmax(), depth.shape)
        if depth[row, column] > INSET * size:
            at = (np.array([column, row]) * stride + stride // 2 + 0.5) * window.pixel
            places[name] = (window.left + float(at[0]), window.bottom + float(at[1]))
    return places


def halve(rgba: Bytes) -> Bytes:
    """Average 2 x 2 pixels, weighted by their opacity: edges of the partition come out smooth."""
    rows, columns = rgba.shape[0] // 2, rgba.shape[1] // 2
    blocks = rgba[: 2 * rows, : 2 * columns].reshape(rows, 2, columns, 2, 4).astype(np.float64)
    weight = blocks[..., 3:]
    colour = (blocks[..., :3] * weight).sum((1, 3)) / np.maximum(weight.sum((1, 3)), 1)
    return np.concatenate([colour, weight.mean((1, 3))], axis=2).round().astype(np.uint8)


def line_weights(areas: Floats, neighbours: Ints, window: Window) -> Floats:
    """(E,) how strongly to draw each edge, 0 to 1: 0 beside a cell so small that lines would drown it."""
    width, height = window.pixel
    size = np.sqrt(np.append(areas, np.inf) / (width * height))  # -1, outside, reads the last entry
    return ((size[neighbours].min(1) - 3) / 14).clip(0, 1)


def _places(order: Ints) -> Ints:
    """The place of each class in the order."""
    place = np.zeros(order.max(initial=0) + 1, np.int64)
    place[order] = np.arange(len(order))
    return place


def _opaque(colours: Bytes, ids: Ints) -> Bytes:
    alpha = np.where(ids < 0, 0, 255).astype(np.uint8)
    return np.concatenate([colours, alpha[..., None]], axis=2)


def _depth(inside: NDArray[np.bool_]) -> Floats:
    """How far (in pixels, along rows, columns and diagonals) each pixel is from the outside."""
    layer = np.pad(inside, 1)
    depth = np.zeros(inside.shape)
    while layer.any():
        depth += layer[1:-1, 1:-1]
        wide = layer[1:-1, :] & layer[:-2, :] & layer[2:, :]
        layer = np.pad(wide[:, 1:-1] & wide[:, :-2] & wide[:, 2:], 1)
    return depth
