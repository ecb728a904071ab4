"""What the page holds: the arrays of a partition as base64, to be read as typed arrays."""

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from maxaffine.errors import InputError
from maxaffine.tiling.boundary import decision_boundary
from maxaffine.tiling.colours import colour_cells
from maxaffine.tiling.palette import class_tints, ramp, tints

if TYPE_CHECKING:
    from maxaffine.geometry.plane import PlanePartition

OUTPUTS = 20  # maps of more outputs than these are not held
CODE_BYTES = 2**26  # codes are built for so many bytes of cells at a time
STEPS = 32  # of the colour scale


def content(plane: "PlanePartition", points: Tensor | ArrayLike | None, labels: Sequence[str]) -> dict:
    """The data of the page as JSON values.

    Raises:
        InputError: another number of labels than of points.
    """
    outputs, total = _outputs(plane)
    A, b = plane.A.reshape(len(plane), -1, 2)[:, outputs], plane.b.reshape(len(plane), -1)[:, outputs]
    lists = plane.edge_units
    arrays = {
        "vertices": plane.vertices.astype(np.float64),
        "offsets": plane.cells[0].astype(np.int32),
        "corners": plane.cells[1].astype(np.int32),
        "edges": plane.edges.astype(np.int32),
        "neighbours": plane.neighbours.astype(np.int32),
        "switches": lists.offsets.astype(np.int32),
        "operator": lists.operators.astype(np.int32),
        "unit": lists.units.astype(np.int32),
        "centres": plane.centres.astype(np.float64),
        "areas": plane.areas.astype(np.float64),
        "A": A.astype(np.float32),
        "b": b.astype(np.float32),
        "colours": colour_cells(plane.neighbours, len(plane)).astype(np.uint8),
        "codes": _short_codes(plane),
        "boundary": decision_boundary(plane).astype(np.float64),
    }
    palette = {
        mode: {"tints": tints(dark).tolist(), "classes": class_tints(min(max(total, 2), 10), dark).tolist()}
        for mode, dark in (("light", False), ("dark", True))
    }
    return {
        "arrays": {name: _base64(array) for name, array in arrays.items()},
        "outputs": outputs.tolist(),
        "total": total,
        "operators": lists.names,
        "corners": plane.plane.corners.tolist(),
        "aspect": float(plane.plane.v.norm() / plane.plane.u.norm()),
        "points": _points(plane, points, labels),
        "palette": palette,
        "ramp": ramp(STEPS).tolist(),
    }


def _base64(array: NDArray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes()).decode()


def _outputs(plane: "PlanePartition") -> tuple[NDArray[np.int64], int]:
    """The flat outputs that are held: all, or those that are the largest in most cells; and how many there are."""
    A, b = plane.A.reshape(len(plane), -1, 2), plane.b.reshape(len(plane), -1)
    total = b.shape[1]
    if total <= OUTPUTS:
        return np.arange(total), total
    best = ((A @ plane.centres[..., None])[..., 0] + b).argmax(1)
    often = np.bincount(best, minlength=total)
    return np.sort((-often).argsort(kind="stable")[:OUTPUTS]), total


def _short_codes(plane: "PlanePartition") -> NDArray[np.uint8]:
    """The first four bytes of the id of each cell's code (F, 4)."""
    units = max(1, sum(value[0].numel() for value in plane.codes[0:1].values))
    step = max(1, CODE_BYTES // units)
    heads = [i[:4] for first in range(0, len(plane), step) for i in plane.codes[first : first + step].ids()]
    return np.frombuffer(b"".join(heads), np.uint8)


def _points(plane: "PlanePartition", points: Tensor | ArrayLike | None, labels: Sequence[str]) -> list[dict]:
    places = np.zeros((0, 2)) if points is None else plane.plane.coordinates(torch.as_tensor(points))
    if len(labels) not in (0, len(places)):
        raise InputError(f"{len(places)} points need as many labels, got {len(labels)}")
    texts = labels or [""] * len(places)
    return [{"at": place.tolist(), "text": str(text)} for place, text in zip(places, texts, strict=True)]
