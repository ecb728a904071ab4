"""The panel of the page that shows the regions on the plane through three inputs."""

import numpy as np

from maxaffine.geometry.plane import PlanePartition
from maxaffine.report.findings import Exactness, Overview, Slice, classifies
from maxaffine.report.pictures import photograph, png_address
from maxaffine.report.record import Report
from maxaffine.report.text import count, escape, number, several
from maxaffine.tiling.boundary import decision_boundary
from maxaffine.tiling.paint import (
    class_image,
    class_order,
    darken_edges,
    halve,
    name_places,
    paint_cells,
    paint_classes,
    paint_grid,
)
from maxaffine.tiling.pixels import Window, window_of

LETTERS = "ABC"
SIZE = 560  # pixels of a picture


def slice_panel(report: Report) -> str:
    """Show the regions on the plane through three inputs, the decision boundary and the inputs."""
    found = report.findings.slice
    if found is None:
        return ""
    head = '<section id="slice"><h2>A slice through three inputs</h2>'
    if found.partition is None:
        why = f"There is no picture of the plane through rows {_listed(found)}: {escape(found.note)}."
        return f"{head}<p>{why}</p></section>"
    text, inputs = _text(found, found.partition), _inputs(report, found)
    if found.overview is None:
        whole = _cells(report, found, found.partition, None)
        return f"""{head}<div class="two"><div>{text}{inputs}</div>
<figure class="panel">{whole}</figure></div></section>"""
    return f"""{head}{text}{inputs}<div class="pair"><figure class="panel">{_overview(report, found.overview)}
<figcaption>The whole plane: the largest output at {count(found.overview.classes.size)} points of a
grid.</figcaption></figure><figure class="panel">{_cells(report, found, found.partition, found.overview)}
<figcaption>The marked square, exactly: {several(len(found.partition), "region")}.</figcaption></figure>
</div></section>"""


def _listed(found: Slice) -> str:
    return ", ".join(map(count, found.rows))


def _text(found: Slice, plane: PlanePartition) -> str:
    part = f"""Here they are, {several(len(plane), "region")} around the three inputs."""
    if found.share < 1:
        around = "the point where the line from A to B leaves the largest output of A" if found.turned else "A"
        part = f"""On the whole plane they are too many for one picture. Shown are the {several(len(plane), "region")}
of a square 1/{count(round(1 / found.share))} as wide, around {around}."""
    colours = "The colours only tell neighbouring regions apart."
    if plane.b[0].size > 1:
        colours = """Where the colour changes, so does the largest output: along the dark line, the exact <b>decision
boundary</b>. Shades of one colour only tell neighbouring regions apart."""
    return f"""<p>Three inputs span a plane in the space of inputs. The regions of the network cut it into convex
polygons, and on each of them the network is one affine map. {part} {colours}</p>{_check(found.exactness)}"""


def _check(exact: Exactness | None) -> str:
    if exact is None:
        return ""
    return f"""<p class="soft">At the centres of {several(exact.points, "region")} the network differs from the region’s
affine map by at most {number(exact.worst, 2)}; {count(exact.same)} of {count(exact.points)} have the code that the
partition gives them.</p>"""


def _inputs(report: Report, found: Slice) -> str:
    items = []
    for letter, row in zip(LETTERS, found.rows, strict=True):
        picture = "" if report.layout is None else _photo(report, row, letter)
        labels = report.findings.outputs.labels
        name = ""
        if labels is not None and classifies(report.findings.outputs):
            name = f"{escape(report.class_name(int(labels[row])))}, "
        said = f'<span><b>{letter}</b><br><span class="soft">{name}row {count(row)}</span></span>'
        items.append(f"<li>{picture}{said}</li>")
    return f'<ul class="anchors">{"".join(items)}</ul>'


def _photo(report: Report, row: int, letter: str) -> str:
    assert report.layout is not None
    pixels = report.layout.pixels(report.data.inputs[row])
    return photograph(pixels, *report.grey, f"input {letter}, row {row}", "photo")


def _cells(report: Report, found: Slice, plane: PlanePartition, overview: Overview | None) -> str:
    window = window_of(plane.plane.corners, 2 * SIZE)
    places = np.zeros((0, 2)) if found.places is None else found.places
    if plane.b[0].size == 1:
        rgba = halve(darken_edges(paint_cells(plane, window), plane, window))
        return _plot(rgba, window, "", _letters(places, window), f"{len(plane):,} regions on the plane")
    classes = class_image(plane, window)
    order = class_order(classes)
    if overview is not None:
        seen = class_order(overview.classes)
        order = np.concatenate([seen, order[~np.isin(order, seen)]])
    rgba = halve(darken_edges(paint_classes(plane, window, classes, order), plane, window))
    line = _path(decision_boundary(plane), window)
    rims = f'<path d="{line}" stroke="#fff" stroke-width="4.5"/><path d="{line}" stroke="#1d1c1a" stroke-width="2.2"/>'
    tags = _names(report, name_places(classes, window, places), window) + _letters(places, window)
    return _plot(rgba, window, rims, tags, f"{len(plane):,} regions on the plane and the decision boundary")


def _overview(report: Report, overview: Overview) -> str:
    window = overview.window
    rgba = paint_grid(overview.classes, class_order(overview.classes))
    corners = np.stack([overview.square, np.roll(overview.square, -1, axis=0)], axis=1)
    line = _path(corners, window)
    square = f'<path d="{line}" stroke="#fff" stroke-width="4"/><path d="{line}" stroke="#1d1c1a" stroke-width="2"/>'
    names = name_places(overview.classes, window, overview.places)
    tags = _names(report, names, window) + _letters(overview.places, window)
    return _plot(rgba, window, square, tags, "the largest output on the whole plane")


def _plot(rgba: np.ndarray, window: Window, lines: str, tags: str, alt: str) -> str:
    """A picture with lines and names over it; rows of pixels come from the top."""
    height = SIZE * window.rows / window.columns
    image = f'<image href="{png_address(rgba[::-1])}" width="{SIZE}" height="{height:g}" preserveAspectRatio="none"/>'
    box = f'viewBox="0 0 {SIZE} {height:g}" role="img" aria-label="{escape(alt)}"'
    over = f'<g fill="none" stroke-linecap="round">{lines}</g>'
    return f'<div class="plot"><svg {box}>{image}{over}</svg>{tags}</div>'


def _shares(points: np.ndarray, window: Window) -> np.ndarray:
    """Points (..., 2) as shares of the picture from its left and from its top."""
    low, high = np.array([window.left, window.bottom]), np.array([window.right, window.top])
    across = (points - low) / (high - low)
    return np.stack([across[..., 0], 1 - across[..., 1]], axis=-1)


def _path(segments: np.ndarray, window: Window) -> str:
    at = _shares(segments, window) * [SIZE, SIZE * window.rows / window.columns]
    return "".join(f"M{a[0]:.1f} {a[1]:.1f}L{b[0]:.1f} {b[1]:.1f}" for a, b in at)


def _names(report: Report, places: dict[int, tuple[float, float]], window: Window) -> str:
    return "".join(_tag(report.class_name(name), np.array(at), window, "class") for name, at in places.items())


def _letters(places: np.ndarray, window: Window) -> str:
    shares = _shares(places, window)
    inside = [bool(((place >= 0) & (place <= 1)).all()) for place in shares]
    return "".join(
        _tag(letter, place, window, "input")
        for letter, place, shown in zip(LETTERS, places, inside, strict=False)
        if shown
    )


def _tag(text: str, at: np.ndarray, window: Window, kind: str) -> str:
    x, y = 100 * _shares(at, window)
    return f'<span class="tag {kind}" style="left:{x:.2f}%;top:{y:.2f}%">{escape(text)}</span>'
