"""``maxaffine slice``: the exact partition of a plane through the input space, as a picture, a page and arrays."""

import io
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maxaffine.cli.networks import FACTORY, Cut, captured, loaded
from maxaffine.cli.options import (
    InputShape,
    Labels,
    Mean,
    Memory,
    Model,
    Over,
    Permute,
    Scale,
    Select,
    Std,
    Trusted,
    Until,
)
from maxaffine.cli.words import clean_exit, numbers, out_console, progress, size, tracker, whole
from maxaffine.errors import InputError

if TYPE_CHECKING:
    import torch

    from maxaffine.geometry.plane import PlanePartition
    from maxaffine.report.findings import Exactness
    from maxaffine.slice import Plane
    from maxaffine.spline import Spline

POINT = "number of a row of --data, or a .npy file with one network input"
LIMIT = 1_000_000
FORMAT = 1

Out = Annotated[Path, typer.Option(help="folder for slice.png, slice.html (up to 50,000 cells) and slice.npz")]
Through = Annotated[tuple[str, str, str] | None, typer.Option(metavar="A B C", help=f"three points; each a {POINT}")]
Origin = Annotated[str | None, typer.Option(help="centre of the square origin + s u + t v, -1 <= s, t <= 1: a point")]
U = Annotated[str | None, typer.Option("--u", help="direction of s, given like a point")]
V = Annotated[str | None, typer.Option("--v", help="direction of t, given like a point")]
Rows = Annotated[Path | None, typer.Option("--data", help="rows: .npz (x, y), .npy, IDX, or a folder of images")]
Cells = Annotated[int, typer.Option("--limit", min=1, help="stop when there are more cells than this")]
Workers = Annotated[int, typer.Option(min=1, help="threads")]


def slice_plane(
    model: Model,
    out: Out,
    through: Through = None,
    origin: Origin = None,
    u: U = None,
    v: V = None,
    data: Rows = None,
    labels: Labels = None,
    scale: Scale = None,
    mean: Mean = "0",
    std: Std = "1",
    permute: Permute = None,
    shape: InputShape = None,
    limit: Cells = LIMIT,
    workers: Workers = 1,
    memory: Memory = None,
    until: Until = None,
    select: Select = None,
    over: Over = None,
    trusted: Trusted = False,
) -> None:
    """Cut a plane into the regions of a network, exactly: through three points, or origin + s u + t v."""
    with clean_exit("slice"):
        words = _words(through, (origin, u, v))
        budget = None if memory is None else size(memory, "memory")
        import torch

        from maxaffine import data as files
        from maxaffine.cli.points import Source
        from maxaffine.geometry import partition
        from maxaffine.report import Scaling, staged

        scaling = Scaling(
            None if scale is None else numbers(scale, "scale", 1)[0],
            numbers(mean, "mean"),
            numbers(std, "std"),
            None if permute is None else whole(permute, "permute"),
        )
        rows = None if data is None else files.read(data, labels)
        source = Source(rows, scaling, None if shape is None else whole(shape, "shape"))
        if FACTORY.fullmatch(model):
            spline = captured(model, torch.stack([source.point(words[0])] * 2), Cut(until, select, over))
        else:
            spline = loaded(model, trusted, Cut(until, select, over))
        source = Source(rows, scaling, spline.in_shape)
        points = torch.stack([source.point(word) for word in words])
        plane = _plane(points, through is not None)
        with staged(out, "a slice") as contents:
            start = time.perf_counter()
            with progress() as bar:
                found = partition(spline, plane, workers=workers, memory=budget, limit=limit, track=tracker(bar))
            seconds = time.perf_counter() - start
            marked = words if through is not None else words[:1]
            names = [source.name(word) for word in marked]
            contents |= _contents(found, points[: len(marked)], names, Path(model).name)
            lines = _lines(found, _checked(spline, found), seconds)
        _tell(out, list(contents), lines)


def _words(through: tuple[str, str, str] | None, others: tuple[str | None, ...]) -> list[str]:
    """The three words that say the plane."""
    given = [word for word in others if word is not None]
    if (through is None) == (len(given) < 3) or (through is not None and given):
        raise InputError("say the plane: --through A B C, or --origin X --u U --v V")
    return given if through is None else list(through)


def _plane(points: "torch.Tensor", through: bool) -> "Plane":
    from maxaffine.slice import Plane

    return (Plane.through if through else Plane.square)(points[0], points[1], points[2])


def _contents(found: "PlanePartition", points: "torch.Tensor", names: list[str], title: str) -> dict[str, bytes]:
    """The files: the picture, the page where the cells are few enough for it, the arrays."""
    from maxaffine.view import CELLS, view_page

    contents = {"slice.png": _picture(found, points, names, title), "slice.npz": _arrays(found)}
    if len(found) <= CELLS:
        page = view_page(found, title=f"A slice through {title}", points=points, labels=names)
        contents["slice.html"] = page.encode()
    return contents


def _picture(found: "PlanePartition", points: "torch.Tensor", names: list[str], title: str) -> bytes:
    """The cells with the decision boundary, or where a single output is 0, and the points."""
    from maxaffine.plot import figure, partition

    drawn = figure((7.4, 7.2))
    axis = drawn.subplots()
    partition(found, "class", boundary=True, points=points, labels=names, ax=axis)
    axis.set_title(f"{title}: {len(found):,} cells", fontsize=10)
    file = io.BytesIO()
    drawn.savefig(file, format="png", dpi=200)
    return file.getvalue()


def _arrays(found: "PlanePartition") -> bytes:
    """The arrays of the partition; f = b + A (s, t) on each cell, x = origin + s u + t v."""
    import numpy as np

    from maxaffine import __version__

    units = found.edge_units
    file = io.BytesIO()
    np.savez(
        file,
        format=FORMAT,
        maxaffine=__version__,
        origin=found.plane.origin.numpy(),
        u=found.plane.u.numpy(),
        v=found.plane.v.numpy(),
        corners=found.plane.corners,
        vertices=found.vertices,
        offsets=found.cells[0],
        indices=found.cells[1],
        edges=found.edges,
        neighbours=found.neighbours,
        operators=np.array(units.names),
        edge_offsets=units.offsets,
        edge_operators=units.operators,
        edge_units=units.units,
        areas=found.areas,
        centres=found.centres,
        A=found.A,
        b=found.b,
    )
    return file.getvalue()


def _checked(spline: "Spline", found: "PlanePartition") -> "Exactness":
    import torch

    from maxaffine.report.slicing import check_cells

    return check_cells(spline.to("cpu").to(torch.float64), found)


def _lines(found: "PlanePartition", exact: "Exactness", seconds: float) -> list[str]:
    """What is said about a partition."""
    return [
        f"{len(found):,} cells, {len(found.vertices):,} vertices, {len(found.edges):,} edges in {seconds:.2f} s",
        f"at the centres of {exact.points:,} cells max |f(x) - (b + A (s, t))| = {exact.worst:.1g}, "
        f"the codes of {exact.same:,} of them are the network's",
    ]


def _tell(out: Path, names: list[str], lines: list[str]) -> None:
    from maxaffine.view import CELLS

    for name in ("slice.html", "slice.png", "slice.npz"):
        if name in names:
            out_console.print(str((out / name).resolve()), soft_wrap=True, highlight=False)
    if "slice.html" not in names:
        (out / "slice.html").unlink(missing_ok=True)  # of a partition before this one
        lines = [*lines, f"no slice.html: it holds up to {CELLS:,} cells"]
    for line in lines:
        out_console.print(line, soft_wrap=True, highlight=False, markup=False)
