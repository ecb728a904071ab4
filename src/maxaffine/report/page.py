"""The page: one HTML file that holds everything it shows and asks the network for nothing."""

from importlib.resources import files

import numpy as np

from maxaffine.report.feed import describe, times
from maxaffine.report.findings import classifies
from maxaffine.report.mosaics import neighbours
from maxaffine.report.panels import bimodality, composition, regions, templates
from maxaffine.report.record import Report, accuracy, rms_error
from maxaffine.report.slice_panel import slice_panel
from maxaffine.report.text import breakable, count, escape, number, percent, several

# The browser itself refuses whatever is not written into the file.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def page(report: Report) -> str:
    """Return the whole page as HTML."""
    style = files("maxaffine.report").joinpath("style.css").read_text()
    panels = (templates, bimodality, slice_panel, neighbours, composition, regions)
    content = "".join(panel(report) for panel in panels)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(report.name)} as
splines</title><link rel="icon" href="data:,"><style>{style}</style></head>
<body>{_header(report)}<main>{_claim(report)}{_facts(report)}{content}</main>{_footer(report)}</body></html>
"""


def _header(report: Report) -> str:
    inputs, outputs = int(np.prod(report.feed.shape)), report.findings.outputs.outputs.shape[1]
    return f"""<header><p class="brand"><b>maxaffine</b> report</p><h1>{breakable(report.name)}</h1>
<p class="lede">This network, from {several(inputs, "number")} to {several(outputs, "number")}, is one
continuous <b>piecewise-affine map</b>. Its units cut the space of inputs into convex regions, and within
the region of an input <i>x</i> the whole network is a single affine map. That map is no approximation, and
this page shows it.</p>
</header>"""


def _claim(report: Report) -> str:
    exact = report.findings.exactness
    difference = "max |<i>f</i>(<i>x</i>′) − (<i>A</i>[<i>x</i>] <i>x</i>′ + <i>b</i>[<i>x</i>])| = "
    return f"""<div class="claim">
<p class="formula"><i>f</i>(<i>x</i>) = <i>A</i>[<i>x</i>] <i>x</i> + <i>b</i>[<i>x</i>]</p>
<p class="line">Over {count(exact.points)} other points <i>x</i>′ of those regions
{difference}<b>{number(exact.worst, 2)}</b></p>
<p class="soft">{_where(report)} {count(exact.same)} of the {count(exact.points)} have exactly the code of their
<i>x</i>. Outputs there reach {number(exact.scale)}. Computed in {escape(report.precision)}.</p></div>"""


def _where(report: Report) -> str:
    """Say how the points x' were chosen."""
    walls, inputs = report.findings.margins, several(report.findings.exactness.rows, "input")
    if not np.isfinite(walls.distances).any():
        return f"There are no walls; each <i>x</i>′ lies in a random direction from one of {inputs} <i>x</i>."
    text = f"""Each <i>x</i>′ lies nine tenths of the way from one of {inputs} <i>x</i> to the nearest wall of its
region, in a random direction."""
    if len(walls.moved):
        text += f""" {several(len(walls.moved), "input lies", "inputs lie")} on a wall; there <i>x</i> is a point a
thousandth of the input’s length away."""
    return text


def _facts(report: Report) -> str:
    found, walls = report.findings.outputs, report.findings.margins
    rows, units = len(found.outputs), sum(layer.units for layer in found.layers)
    right, error = accuracy(found), rms_error(found)
    facts = []
    if right is not None:
        facts.append(("accuracy", percent(right), f"{count(round(right * rows))} of {several(rows, 'input')}"))
    if error is not None:
        facts.append(("root-mean-square error", number(error), f"over {several(rows, 'input')}"))
    facts.append(("spline units", count(units), f"in {several(len(found.layers), 'operator')}"))
    facts.append(("regions visited", count(found.regions), f"by {several(rows, 'input')}"))
    room = walls.distances[np.isfinite(walls.distances) & (walls.distances > 0)]
    if len(room):
        facts.append(("distance to the nearest wall", number(float(np.median(room))), "median, Euclidean"))
    items = "".join(f"<div><dt>{k}</dt><dd>{v}<small>{note}</small></dd></div>" for k, v, note in facts)
    return f'<dl class="facts">{items}</dl>'


def _footer(report: Report) -> str:
    found = report.findings
    words = (("is cut at", report.until), ("gives", report.select), ("is a function of", report.over))
    cut = "".join(f" The network {says} <code>{breakable(name)}</code>." for says, name in words if name)
    kind = "labels are classes" if classifies(found.outputs) else "no class labels"
    command = f'<p class="soft"><code class="command">{escape(report.command)}</code></p>' if report.command else ""
    measured = f"""the first {several(len(found.outputs.outputs), "row")}, walls on the first
{several(len(found.margins.distances), "row")}, neighbours among the first {several(found.pool, "row")}"""
    return f"""<footer><div><h3>How this was made</h3>
<p class="soft">Data: {breakable(report.data.source)}, {several(len(report.data), "row")} of
{times(report.data.row_shape)}, {kind}. Input: {escape(describe(report.feed, report.data.row_shape))}.{cut}
Measured on {measured}. All numbers are in <code>report.json</code> beside this page.</p>
{command}<p class="soft">maxaffine {escape(report.version)}, {escape(report.precision)}. Theory: R.
Balestriero and R. Baraniuk, “Mad Max: Affine Spline Insights into Deep Learning”, 2018, arXiv
1805.06576.</p></div></footer>"""
