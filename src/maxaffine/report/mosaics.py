"""The mosaics of the page: which inputs an operator's code calls alike, at several depths."""

from maxaffine.report.findings import Neighbours, classifies
from maxaffine.report.pictures import photograph
from maxaffine.report.record import Report
from maxaffine.report.text import breakable, count, escape, number, percent, several


def neighbours(report: Report) -> str:
    """Show the nearest other inputs of a few queries by the code distance of several operators."""
    found = report.findings.neighbours
    if not found:
        return ""
    blocks = "".join(_query(report, found, k) for k in range(len(found[0].queries)))
    legend = hope = ""
    if classifies(report.findings.outputs):
        hope = " Deeper down it may come to mean: of the same class; the table says whether it does."
        legend = """<p class="legend"><span style="--key:var(--first)">same class as the query (single line)</span>
<span style="--key:var(--second)">another class (double line)</span></p>"""
    shown = "" if report.layout else " The numbers are classes, or else rows of the data."
    return f"""<section id="neighbours"><h2>What each depth takes for similar</h2>
<p>The distance of two inputs at an operator is the share of its units whose pieces differ. Here are the
nearest of {several(report.findings.pool, "input")} by that distance, from the first operator to the last; of
equal distances the earlier row comes first. Near the input, alike tends to mean alike in shape and
brightness.{hope}{shown}</p>
{_agreement(found)}{legend}{blocks}</section>"""


def _agreement(found: tuple[Neighbours, ...]) -> str:
    """Show by how many inputs the nearest neighbour is of their own class, at each depth."""
    rows = "".join(
        f'<tr><th scope="row" class="mono">{breakable(depth.operator)}</th>'
        f'<td class="n">{percent(depth.agreement)}</td><td class="meter"><span class="bar">'
        f'<b style="width:{100 * depth.agreement:.1f}%"></b></span></td></tr>'
        for depth in found
        if depth.agreement is not None
    )
    if not rows:
        return ""
    head = f"the nearest neighbour has the same class, of {several(found[0].compared, 'input')}"
    return f"""<div class="scroll" tabindex="0"><table><thead><tr><th>code of</th>
<th colspan="2" class="long">{head}</th></tr></thead><tbody>{rows}</tbody></table></div>"""


def _query(report: Report, found: tuple[Neighbours, ...], k: int) -> str:
    row = int(found[0].queries[k])
    name = _name(report, row)
    caption = f"<b>{name}</b><br>" if name else ""
    depths = "".join(_depth(report, depth, k) for depth in found)
    return f"""<div class="query panel"><div>{_picture(report, row, "query")}
<p class="soft">{caption}row {count(row)}</p></div><ul class="depths">{depths}</ul></div>"""


def _depth(report: Report, depth: Neighbours, k: int) -> str:
    near, far = float(depth.distances[k, 0]), float(depth.distances[k, -1])
    query = int(depth.queries[k])
    pairs = zip(depth.rows[k], depth.distances[k], strict=True)
    thumbs = "".join(_thumb(report, query, int(row), float(distance)) for row, distance in pairs)
    return f"""<li><div><span class="mono">{breakable(depth.operator)}</span><br>
<span class="soft">distance {number(near, 2)}–{number(far, 2)}</span></div>
<div class="thumbs">{thumbs}</div></li>"""


def _thumb(report: Report, query: int, row: int, distance: float) -> str:
    labels = report.findings.outputs.labels
    kind = ""
    if labels is not None and classifies(report.findings.outputs):
        kind = " same" if labels[row] == labels[query] else " other"
    content = _picture(report, row, f"distance {distance:.3f}") or f"<span>{_name(report, row) or row}</span>"
    return f'<div class="thumb{kind}" title="row {row}, distance {distance:.3f}">{content}</div>'


def _name(report: Report, row: int) -> str:
    labels = report.findings.outputs.labels
    if labels is None or not classifies(report.findings.outputs):
        return ""
    return escape(report.class_name(int(labels[row])))


def _picture(report: Report, row: int, said: str) -> str:
    if report.layout is None:
        return ""
    name = _name(report, row)
    alt = f"{said}, row {row}" + (f", class {name}" if name else "")
    return photograph(report.layout.pixels(report.data.inputs[row]), *report.grey, alt, "photo")
