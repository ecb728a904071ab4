"""The mosaics of the page: which inputs an operator's code calls alike, at several depths."""

import numpy as np

from maxaffine.report.findings import Neighbours
from maxaffine.report.pictures import photograph
from maxaffine.report.record import Report, classifies
from maxaffine.report.text import breakable, count, escape, number, percent, several


def neighbours(report: Report) -> str:
    """Show the nearest other inputs of a few queries by the code distance of several operators."""
    found = report.findings.neighbours
    if not found:
        return ""
    blocks = "".join(_query(report, found, k) for k in range(len(found[0].queries)))
    legend = ""
    if classifies(report.findings.outputs):
        legend = """<p class="legend"><span style="--key:var(--first)">same class as the query (single line)</span>
<span style="--key:var(--second)">another class (double line)</span></p>"""
    return f"""<section id="neighbours"><h2>What each depth takes for similar</h2>
<p>The distance of two inputs at an operator is the share of its units whose pieces differ. Here are the nearest of
{several(report.findings.pool, "input")} by that distance, from the first operator to the last. Early on, alike means
alike in shape and brightness; further up it should mean the same class.{_agreement(report)}</p>{legend}{blocks}</section>"""


def _agreement(report: Report) -> str:
    first, last = report.findings.neighbours[0], report.findings.neighbours[-1]
    if first.agreement is None or last.agreement is None or first.operator == last.operator:
        return ""
    return f""" The nearest neighbour has the input's own class for {percent(first.agreement)} of
{several(first.compared, "input")} at <span class="mono">{breakable(first.operator)}</span> and for
{percent(last.agreement)} at <span class="mono">{breakable(last.operator)}</span>."""


def _query(report: Report, found: tuple[Neighbours, ...], k: int) -> str:
    row = int(found[0].queries[k])
    name = _name(report, row)
    caption = f"{name}<br>" if name else ""
    depths = "".join(_depth(report, depth, k) for depth in found)
    return f"""<div class="query panel"><div>{_picture(report, row, "query, ")}<p class="soft">{caption}row {count(row)}</p>
</div><ul class="depths">{depths}</ul></div>"""


def _depth(report: Report, depth: Neighbours, k: int) -> str:
    near, far = float(depth.distances[k, 0]), float(depth.distances[k, -1])
    query = int(depth.queries[k])
    thumbs = "".join(_thumb(report, query, int(row), float(d)) for row, d in zip(depth.rows[k], depth.distances[k]))
    agreement = "" if depth.agreement is None else f"<br>same class: {percent(depth.agreement)}"
    return f"""<li><div><span class="mono">{breakable(depth.operator)}</span><br><span class="soft">distance
{number(near, 2)} to {number(far, 2)}{agreement if k < 0 else ""}</span></div><div class="thumbs">{thumbs}</div></li>"""


def _thumb(report: Report, query: int, row: int, distance: float) -> str:
    labels = report.findings.outputs.labels if classifies(report.findings.outputs) else None
    kind = "" if labels is None else " same" if labels[row] == labels[query] else " other"
    name = _name(report, row)
    title = f"row {row}{', ' + name if name else ''}, distance {distance:.3f}"
    content = _picture(report, row, f"distance {distance:.3f}, ") or f"<span>{name or row}</span>"
    return f'<div class="thumb{kind}" title="{title}">{content}</div>'


def _name(report: Report, row: int) -> str:
    if not classifies(report.findings.outputs) or report.findings.outputs.labels is None:
        return ""
    return escape(report.class_name(int(report.findings.outputs.labels[row])))


def _picture(report: Report, row: int, said: str) -> str:
    if report.layout is None:
        return ""
    stored = report.data.inputs
    low, high = (0, 255) if stored.dtype == np.uint8 else (float(stored.min()), float(stored.max()))
    return photograph(report.layout.pixels(stored[row]), low, high, f"{said}row {row} {_name(report, row)}".strip(), "photo")
