"""The interactive view: one HTML file with the cells of a plane partition to pan, zoom and ask.

It holds everything it shows and asks the network for nothing; see `write_view`.
"""

import html
import json
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from numpy.typing import ArrayLike
from torch import Tensor

from maxaffine.errors import InputError
from maxaffine.view.content import content

if TYPE_CHECKING:
    from maxaffine.geometry.plane import PlanePartition

__all__ = ["CELLS", "view_page", "write_view"]

PARTS = ("view.html", "view.css", "partition.js", "view.js")
CELLS = 50_000  # more than these a browser does not draw while one waits
# The browser itself refuses whatever is not written into the file.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def write_view(
    plane: "PlanePartition",
    path: str | Path,
    *,
    title: str = "A slice of the input space",
    points: Tensor | None = None,
    labels: Sequence[str] = (),
) -> Path:
    """Write an HTML page with up to 50,000 cells: hover over one to read its code, A, b and its neighbours.

    points: inputs (n, *in), shown at their nearest points of the plane, with ``labels`` beside them. Returns the path.

    Raises:
        InputError: more cells than that, or another number of labels than of points.
    """
    path = Path(path)
    path.write_text(view_page(plane, title=title, points=points, labels=labels))
    return path


def view_page(
    plane: "PlanePartition",
    *,
    title: str = "A slice of the input space",
    points: Tensor | ArrayLike | None = None,
    labels: Sequence[str] = (),
) -> str:
    """The page of `write_view` as text."""
    if len(plane) > CELLS:
        raise InputError(
            f"an interactive view holds up to {CELLS:,} cells, this partition has {len(plane):,}: "
            "take a smaller part of the plane, or draw it with maxaffine.plot.partition"
        )
    parts = {name: files("maxaffine.view").joinpath(name).read_text() for name in PARTS}
    filled = {
        "TITLE": html.escape(title),
        "POLICY": POLICY,
        "STYLE": parts["view.css"],
        "SCRIPT": parts["partition.js"] + parts["view.js"],
        "DATA": json.dumps(content(plane, points, labels)).replace("<", "\\u003c"),
    }
    return re.sub("%([A-Z]+)%", lambda found: filled[found[1]], parts["view.html"])
