"""Reports: one page that shows what a network does to data, as the spline that it is.

``write(spline, data, feed, out)`` measures the network (`measure`), keeps what it found as plain values
(`findings`, `record`) and writes them as ``index.html`` (`page`, with its `panels`, `mosaics` and
`pictures`) and ``report.json``. The page holds everything it shows and loads nothing.

    data = maxaffine.data.read("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz")
    feed = fit(data, (784,), Scaling(factor=1 / 255))
    write(maxaffine.load("net.onnx").to(torch.float64), data, feed, "out")
"""

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from maxaffine import __version__
from maxaffine.data import Dataset
from maxaffine.errors import InputError
from maxaffine.report.feed import Feed, Scaling, fit
from maxaffine.report.files import staged
from maxaffine.report.measure import Subject, Track, budget, measure
from maxaffine.report.page import page
from maxaffine.report.pictures import layout_of
from maxaffine.report.record import Report, as_json, exactness_line
from maxaffine.spline import Spline
from maxaffine.types import Shape

__all__ = ["Feed", "Report", "Scaling", "exactness_line", "fit", "staged", "write"]


def write(
    spline: Spline,
    data: Dataset,
    feed: Feed,
    out: str | Path,
    *,
    name: str = "network",
    classes: Sequence[str] = (),
    picture: Shape | None = None,
    margins: int | None = None,
    until: str | None = None,
    select: str | None = None,
    over: str | None = None,
    command: str = "",
    track: Track | None = None,
) -> Report:
    """Measure ``spline`` on ``data`` and write ``index.html`` and ``report.json`` into the folder ``out``.

    Everything is computed in the spline's dtype, on its device. ``classes`` names the outputs, ``picture``
    is the height and width of rows that are flattened pictures, ``margins`` the number of inputs whose
    walls are searched, ``track`` shows progress. ``until``, ``select`` and ``over`` are what the network was cut with:
    the page says so.

    Raises:
        NotPiecewiseAffineError: the network is not piecewise affine up to its output; cut it with
        ``until``.
        InputError: data, labels or the folder do not fit.
    """
    layout = layout_of(data.row_shape, picture)
    named, outputs = tuple(classes) or data.classes, math.prod(spline.out_shape)
    if named and len(named) != outputs:
        raise InputError(f"{len(named)} class names for a network of {outputs} outputs: {', '.join(named)}")
    subject = Subject(spline, data, feed)
    with staged(out) as files:
        findings = measure(subject, budget(spline, len(data), margins), track or _silently)
        report = Report(
            name=name,
            data=data,
            feed=feed,
            layout=layout,
            findings=findings,
            classes=named,
            precision=f"{str(spline.dtype).removeprefix('torch.')} on {spline.device.type}",
            command=command,
            version=__version__,
            until=until,
            select=select,
            over=over,
        )
        files["index.html"] = page(report).encode()
        files["report.json"] = json.dumps(as_json(report), indent=1, allow_nan=False).encode()
    return report


def _silently(steps: Sequence, what: str) -> Iterable:  # noqa: ARG001
    return steps
