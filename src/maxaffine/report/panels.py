"""The panels of the page about templates, scores, regions and margins, each a piece of HTML."""

import numpy as np

from maxaffine.plot import bins, histogram, signed_bars
from maxaffine.report.findings import Example, Layer, Margins, Term
from maxaffine.report.pictures import photograph, signed
from maxaffine.report.record import Report, classifies, completeness, scores, template_accuracy
from maxaffine.report.text import breakable, count, escape, number, percent, several

BARS = 16  # of a template that is no picture: the values that matter most


def templates(report: Report) -> str:
    """Show some inputs, the templates of their leading outputs, and the sum score = <template, x> + bias."""
    examples = report.findings.examples
    cards = "".join(_card(report, example) for example in examples)
    gap = number(completeness(examples), 2)
    return f"""<section id="templates"><h2>What the network compares an input with</h2>
<p>Inside the region of <i>x</i> every output is one inner product: <i>score<sub>c</sub></i> =
⟨<i>A</i>[<i>x</i>]<sub>c</sub>, <i>x</i>⟩ + <i>b</i>[<i>x</i>]<sub>c</sub>. The row <i>A</i>[<i>x</i>]<sub>c</sub> is
the <b>template</b> of output <i>c</i> at this very input: where it is orange, a larger value raises the score, where it
is blue, it lowers it. The sum is complete: for everything shown here it equals the network's output to {gap}.</p>
<div class="cards">{cards}</div></section>"""


def bimodality(report: Report) -> str:
    """Show the distribution of the template scores of the correct and of the other classes."""
    found = report.findings.outputs
    split = scores(found)
    if split is None:
        return ""
    correct, other = split
    edges = bins(np.concatenate(split), 70)
    series = {"correct class": np.histogram(correct, edges)[0], "other classes": np.histogram(other, edges)[0]}
    chart = histogram(edges.tolist(), series, "template score ⟨A[x]c, x⟩", title="Template scores of both kinds")
    alone = percent(template_accuracy(found) or 0.0)
    return f"""<section id="scores"><div class="two"><div><h2>Right and wrong classes, two humps</h2>
<p>The template score ⟨<i>A</i>[<i>x</i>]<sub>c</sub>, <i>x</i>⟩ of the correct class against those of all other classes,
over {several(len(found.outputs), "input")}. The further apart the humps, the easier the task is for this network.</p>
<p>On average the correct class scores {number(float(correct.mean()))}, another class {number(float(other.mean()))}.
Templates alone, without the biases <i>b</i>[<i>x</i>], pick the right class for {alone} of the inputs.</p></div>
<figure class="panel">{chart.markup}<figcaption>Each histogram is scaled to its own peak.</figcaption></figure>
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
<p>The network is this sequence of <b>spline operators</b>, with affine maps (dense, convolution, normalisation, average)
between them. Each unit picks one of its <i>R</i> affine pieces; the choices of all units are the <b>code</b> of an
input, and inputs of one code share one region and one affine map. The last column counts how many different codes
{several(rows, "input")} produce at each operator: few codes mean that the operator sees many inputs as alike.</p>
<div class="scroll"><table><thead><tr><th class="n">#</th><th>operator</th><th>kind</th><th class="n">pieces <i>R</i></th>
<th class="n">units</th><th>distinct codes</th></tr></thead><tbody>{body}</tbody>
<tfoot><tr><td></td><td>whole network</td><td></td><td></td><td class="n">{total}</td>
<td>{several(found.regions, "region")} visited</td></tr></tfoot></table></div></section>"""


def regions(report: Report) -> str:
    """Show how far inputs are from the nearest wall of their region, and whose wall it is."""
    walls = report.findings.margins
    finite = walls.distances[np.isfinite(walls.distances) & (walls.distances > 0)]
    if not len(finite):
        return ""
    edges = bins(finite, 36, log=True)
    chart = histogram(edges.tolist(), {"all": np.histogram(finite, edges)[0]}, "distance to the nearest wall", log=True)
    median = float(np.median(finite))
    share = float(np.median(walls.distances / np.maximum(walls.norms, 1e-300)))
    return f"""<section id="regions"><div class="two"><div><h2>How much room an input has</h2>
<p>The exact Euclidean distance from an input to the nearest wall of its region, in the units of the network's input, for
{several(len(walls.distances), "input")}. Within that distance in every direction the network is exactly the affine map of
that input.</p>
<p>The median is {number(median)}, that is {number(100 * share, 2)} % of an input's length.
The nearest wall belongs to:</p>{_owners(walls)}</div>
<figure class="panel">{chart.markup}<figcaption>Logarithmic axis: each mark is ten times the one before it.</figcaption>
</figure></div></section>"""


def _card(report: Report, shown: Example) -> str:
    top = max((float(np.abs(t.template).max()) for t in shown.terms), default=0.0)
    wide = "" if report.layout else " wide"
    terms = "".join(f"<li>{_term(report, shown, term, top)}</li>" for term in shown.terms)
    scale = f'<p class="scale" aria-hidden="true">−{number(top)}<i></i>+{number(top)}</p>' if report.layout else ""
    return f"""<article class="card"><header>{_input(report, shown)}<p>{_verdict(report, shown)}<br>
<span class="soft">row {count(shown.row)} of the data</span></p></header><ul class="terms{wide}">{terms}</ul>{scale}
</article>"""


def _input(report: Report, shown: Example) -> str:
    if report.layout is None:
        return ""
    stored = report.data.inputs
    pixels = report.layout.pixels(stored[shown.row])
    low, high = (0, 255) if stored.dtype == np.uint8 else (float(stored.min()), float(stored.max()))
    return photograph(pixels, low, high, f"input in row {shown.row}", "photo")


def _verdict(report: Report, shown: Example) -> str:
    best = max(shown.terms, key=lambda t: t.score).output
    said = escape(report.class_name(best))
    if shown.label is None or not classifies(report.findings.outputs):
        return f"largest output: <b>{said}</b>" if len(shown.terms) > 1 else "one output"
    if best == shown.label:
        return f'<span class="right">✓ {said}</span>, and the network says so'
    return f'<span class="wrong">✗ the network says {said}</span>, it is {escape(report.class_name(shown.label))}'


def _term(report: Report, shown: Example, term: Term, top: float) -> str:
    name = escape(report.class_name(term.output))
    label = "class" if classifies(report.findings.outputs) else "output"
    picture = _template(report, term, top, f"template of {label} {name} at row {shown.row}")
    sums = (("⟨template, x⟩", term.inner, ""), ("bias", term.bias, ""), ("score", term.score, ' class="sum"'))
    lines = "".join(f"<div{style}><dt>{key}</dt><dd>{number(value)}</dd></div>" for key, value, style in sums)
    return f'{picture}<p class="name">{label} {name}</p><dl>{lines}</dl>'


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
    return f"""<tr><td class="n">{position}</td><th scope="row" class="mono">{breakable(layer.name)}</th>
<td>{escape(layer.op)}</td><td class="n">{layer.pieces}</td>
<td class="n">{count(layer.units)}<br><span class="soft">{shape}</span></td><td>{count(layer.codes)}{bar}</td></tr>"""


def _owners(walls: Margins) -> str:
    names, counts = np.unique([name for name in walls.operators if name], return_counts=True)
    rows = "".join(
        f'<tr><th scope="row" class="mono">{breakable(str(names[k]))}</th><td class="n">{percent(counts[k] / counts.sum())}</td></tr>'
        for k in counts.argsort(kind="stable")[::-1][:5]
    )
    return f'<div class="scroll"><table><tbody>{rows}</tbody></table></div>'
