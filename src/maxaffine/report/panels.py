"""The panels of the page about templates, scores, regions and margins, each a piece of HTML."""

import numpy as np

from maxaffine.plot import bins, histogram, signed_bars
from maxaffine.report.findings import Example, Layer, Margins, Term, classifies
from maxaffine.report.pictures import photograph, signed
from maxaffine.report.record import Report, completeness, scores, template_accuracy
from maxaffine.report.text import breakable, count, escape, number, percent, several

SATURATION = 0.998  # values beyond this quantile share a colour: one bright pixel must not pale all others
BARS = 16  # of a template that is no picture: the values that matter most
OWNERS = 5  # operators listed as owners of the nearest wall
INNER = '<span class="whole">⟨<i>A</i>[<i>x</i>]<sub>c</sub>, <i>x</i>⟩</span>'


def templates(report: Report) -> str:
    """Show some inputs, the templates of their leading outputs, and score = <template, x> + bias."""
    examples = report.findings.examples
    cards = "".join(_card(report, example) for example in examples)
    gap = number(completeness(examples), 2)
    colours = ", its colour channels added up" if report.layout and report.layout.channels == 3 else ""
    return f"""<section id="templates"><h2>What the network compares an input with</h2>
<p>Inside the region of <i>x</i> every output is one inner product and a constant: <i>score</i><sub>c</sub> =
{INNER} + <i>b</i>[<i>x</i>]<sub>c</sub>. The row <i>A</i>[<i>x</i>]<sub>c</sub> is the <b>template</b> of
output <i>c</i> at this very input{colours}. Where it is orange, a larger value raises the score; where it
is blue, a larger value lowers it. Nothing is left out: every sum shown here equals the network’s own output
up to {gap}.</p>
<div class="cards">{cards}</div></section>"""


def bimodality(report: Report) -> str:
    """Show the distribution of the template scores of the correct and of the other classes."""
    found = report.findings.outputs
    split = scores(found)
    if split is None:
        return ""
    correct, other = split
    edges = bins(np.concatenate(split), 70)
    heights = [np.histogram(part, edges)[0].tolist() for part in split]
    series = {"correct class": heights[0], "other classes": heights[1]}
    chart = histogram(edges.tolist(), series, "template score", title="Template scores of the classes")
    alone = percent(template_accuracy(found) or 0.0)
    return f"""<section id="scores"><div class="two"><div><h2>The right class and the others</h2>
<p>The template score {INNER} of the correct class, and of all other classes, over
{several(len(found.outputs), "input")}. The further apart the two humps, the easier the network finds its
task.</p>
<p>On average the correct class scores {number(float(correct.mean()))} and another class
{number(float(other.mean()))}. Templates alone, without the constants <i>b</i>[<i>x</i>], pick the right
class for {alone} of the inputs.</p></div>
<figure class="panel">{chart.markup}<figcaption>Each histogram is scaled to its own
peak.</figcaption></figure>
</div></section>"""


def composition(report: Report) -> str:
    """Show the table of spline operators with the number of distinct codes on the measured inputs."""
    found = report.findings.outputs
    rows = len(found.outputs)
    if not found.layers:
        return """<section id="composition"><h2>The composition</h2>
<p>There is no spline operator: this network is one affine map everywhere.</p></section>"""
    body = "".join(_layer(layer, k + 1, rows) for k, layer in enumerate(found.layers))
    total = count(sum(layer.units for layer in found.layers))
    return f"""<section id="composition"><h2>The composition</h2>
<p>The network is this sequence of <b>spline operators</b>, with affine maps (dense, convolution,
normalisation, average) between them. Each unit picks one of its <i>R</i> affine pieces; the picks of all
units are the <b>code</b> of an input. Inputs of one code share one region and one affine map. The last
column counts the different codes that {several(rows, "input")} take at each operator; where there are few,
the operator sees many inputs as alike.</p>
<div class="scroll" tabindex="0"><table><thead><tr><th class="n">#</th><th>operator</th><th>kind</th>
<th class="n">parameters before</th><th class="n"><i>R</i></th><th class="n">units</th>
<th>distinct codes</th></tr></thead><tbody>{body}</tbody><tfoot><tr><td></td><td colspan="4">whole
network</td>
<td class="n">{total}</td><td>{several(found.regions, "region")}
visited</td></tr></tfoot></table></div></section>"""


def regions(report: Report) -> str:
    """Show how far inputs are from the nearest wall of their region, and whose wall it is."""
    walls = report.findings.margins
    if not np.isfinite(walls.distances).any():
        return ""
    return f"""<section id="regions"><div class="two"><div><h2>How much room an input has</h2>
<p>The exact Euclidean distance from an input to the nearest wall of its region, in the units of the network’s
input, for {several(len(walls.distances), "input")}. Up to that distance, in every direction, the network
<em>is</em> the affine map of that input.</p>{_typical(walls)}{_owners(walls)}</div>{_distances(walls)}</div>
</section>"""


def _typical(walls: Margins) -> str:
    """Say the median distance, and how many inputs have none."""
    room = walls.distances > 0
    sentences = []
    if room.any():
        share = float(np.median(walls.distances[room] / np.maximum(walls.norms[room], 1e-300)))
        median = number(float(np.median(walls.distances[room])))
        sentences.append(f"The median is {median}, or {number(100 * share, 2)} % of the length of an input.")
    if not room.all():
        tied = f"{count(int((~room).sum()))} of the {several(len(room), 'input')}"
        cause = "equal values, of a flat background say, tie in a maximum"
        sentences.append(f"{tied} lie exactly on a wall, at distance 0: {cause}.")
        sentences.append("For them the picture shows the distance from a point a thousandth of their length away.")
    return f"<p>{' '.join(sentences)}</p>"


def _distances(walls: Margins) -> str:
    """Draw the histogram of the distances; inputs on a wall by that of the point next to them."""
    parts = {"inputs": walls.distances[walls.distances > 0], "next to an input on a wall": walls.moved}
    finite = {name: part[np.isfinite(part) & (part > 0)] for name, part in parts.items()}
    shown = {name: part for name, part in finite.items() if len(part)}
    if not shown:
        return ""
    edges = bins(np.concatenate(list(shown.values())), 36, log=True)
    heights = {name: np.histogram(part, edges)[0].tolist() for name, part in shown.items()}
    chart = histogram(edges.tolist(), heights, "distance to the nearest wall", log=True)
    return f"""<figure class="panel">{chart.markup}
<figcaption>Logarithmic axis: each mark is ten times the one before it.</figcaption></figure>"""


def _card(report: Report, shown: Example) -> str:
    sizes = np.abs(np.concatenate([term.template.ravel() for term in shown.terms]))
    top = float(np.quantile(sizes, SATURATION)) or float(sizes.max())
    terms = "".join(f"<li>{_term(report, shown, term, top)}</li>" for term in shown.terms)
    kind, scale = " wide", ""
    if report.layout is not None:
        ends = f"≤ −{number(top)}<i></i>≥ +{number(top)}"
        kind, scale = "", f'<p class="scale">{ends}</p>'
    return f"""<article class="card"><header>{_input(report, shown)}<p>{_verdict(report, shown)}<br>
<span class="soft">row {count(shown.row)} of the data</span></p></header>
<ul class="terms{kind}">{terms}</ul>{scale}</article>"""


def _input(report: Report, shown: Example) -> str:
    if report.layout is None:
        return ""
    pixels = report.layout.pixels(report.data.inputs[shown.row])
    return photograph(pixels, *report.grey, f"input in row {shown.row}", "photo")


def _verdict(report: Report, shown: Example) -> str:
    best = max(shown.terms, key=lambda term: term.score).output
    said = escape(report.class_name(best))
    if shown.label is None:
        return f"largest output: <b>{said}</b>" if len(shown.terms) > 1 else "the one output"
    if best == shown.label:
        return f'<span class="right">✓ {said}</span>, as labelled'
    truth = escape(report.class_name(shown.label))
    return f'<span class="wrong">✗ taken for {said}</span>, labelled {truth}'


def _term(report: Report, shown: Example, term: Term, top: float) -> str:
    name = escape(report.class_name(term.output))
    label = "class" if classifies(report.findings.outputs) else "output"
    picture = _template(report, term, top, f"template of {label} {name} at row {shown.row}")
    lines = (
        f"<div><dt>⟨<i>A</i><sub>{term.output}</sub>, <i>x</i>⟩</dt><dd>{number(term.inner)}</dd></div>"
        f"<div><dt><i>b</i><sub>{term.output}</sub></dt><dd>{number(term.bias)}</dd></div>"
        f'<div class="sum"><dt>score</dt><dd>{number(term.score)}</dd></div>'
    )
    title = name if report.classes else f"{label} {name}"
    heading = f'<p class="name">{title}</p>'
    # A picture has its name below it, a chart above.
    top_down = (picture, heading) if report.layout else (heading, picture)
    return f"{''.join(top_down)}<dl>{lines}</dl>"


def _template(report: Report, term: Term, top: float, alt: str) -> str:
    stored = report.feed.stored_order(term.template, report.data.row_shape)
    if report.layout is None:
        order = np.sort(np.abs(stored.ravel()).argsort(kind="stable")[::-1][:BARS])
        return signed_bars([f"value {k}" for k in order], stored.ravel()[order].tolist(), alt).markup
    if not term.template.any():
        alt += ": zero everywhere, this output is constant here"
    return signed(report.layout.pixels(stored).sum(axis=2), top, alt)


def _layer(layer: Layer, position: int, rows: int) -> str:
    share = 100 * layer.codes / max(rows, 1)
    shape = " × ".join(map(str, layer.shape))
    bar = f'<span class="bar"><b style="width:{share:.1f}%"></b></span>'
    name = f'<th scope="row" class="mono">{breakable(layer.name)}</th>'
    units = f'{count(layer.units)}<br><span class="soft">{shape}</span>'
    return f"""<tr><td class="n">{position}</td>{name}<td>{escape(layer.op)}</td>
<td class="n">{count(layer.parameters)}</td><td class="n">{layer.pieces}</td>
<td class="n">{units}</td><td>{count(layer.codes)}{bar}</td></tr>"""


def _owners(walls: Margins) -> str:
    names, counts = np.unique([name for name in walls.operators if name], return_counts=True)
    rows = "".join(
        f'<tr><th scope="row" class="mono">{breakable(str(names[k]))}</th>'
        f'<td class="n">{percent(float(counts[k] / counts.sum()))}</td></tr>'
        for k in counts.argsort(kind="stable")[::-1][:OWNERS]
    )
    head = '<thead><tr><th>the nearest wall belongs to</th><th class="n">inputs</th></tr></thead>'
    return f'<div class="scroll" tabindex="0"><table>{head}<tbody>{rows}</tbody></table></div>'
