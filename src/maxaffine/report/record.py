"""The record: one report as a value, with the numbers derived from it, and as JSON."""

import math
from dataclasses import asdict, dataclass

import numpy as np

from maxaffine.data import Dataset
from maxaffine.report.feed import Feed, describe
from maxaffine.report.findings import Example, Findings, Outputs, Slice, classifies
from maxaffine.report.pictures import Layout

FORMAT = 1


@dataclass(frozen=True)
class Report:
    """What a page shows: the network's name, the data, how it was fed, and everything that was measured."""

    name: str
    data: Dataset
    feed: Feed
    layout: Layout | None
    findings: Findings
    classes: tuple[str, ...]
    precision: str  # dtype and device
    command: str
    version: str
    until: str | None = None
    select: str | None = None
    over: str | None = None

    @property
    def grey(self) -> tuple[float, float]:
        """Stored values that pictures show as black and as white."""
        rows = self.data.inputs
        return (0.0, 255.0) if rows.dtype == np.uint8 and rows.max() > 16 else (float(rows.min()), float(rows.max()))

    def class_name(self, output: int) -> str:
        """Return the name of an output: its class if it has one, else its number."""
        return self.classes[output] if output < len(self.classes) else str(output)


def accuracy(found: Outputs) -> float | None:
    """Return the share of inputs whose largest output is their label; None without class labels."""
    if not classifies(found):
        return None
    return float((found.outputs.argmax(1) == found.labels).mean())


def template_accuracy(found: Outputs) -> float | None:
    """Return the accuracy of the template scores A[x] x alone, without the biases b[x]."""
    if not classifies(found):
        return None
    return float(((found.outputs - found.biases).argmax(1) == found.labels).mean())


def rms_error(found: Outputs) -> float | None:
    """Return the root-mean-square error against real-valued targets; None where there are none."""
    if found.labels is None or found.labels.dtype.kind != "f" or found.outputs.shape[1] != 1:
        return None
    return float(np.sqrt(np.mean((found.outputs[:, 0] - found.labels) ** 2)))


def scores(found: Outputs) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the template scores <A[x]_c, x> of the correct and of all other classes, or None."""
    if not classifies(found):
        return None
    inner = found.outputs - found.biases
    correct = np.zeros(inner.shape, dtype=bool)
    correct[np.arange(len(inner)), found.labels] = True
    return inner[correct], inner[~correct]


def completeness(examples: tuple[Example, ...]) -> float:
    """Return the largest |score - (<template, x> + bias)| over all shown templates."""
    return max((abs(t.score - t.inner - t.bias) for e in examples for t in e.terms), default=0.0)


def exactness_line(report: Report) -> str:
    """Return the one line that says how exact the affine maps were found to be."""
    exact = report.findings.exactness
    where = f"over {exact.points:,} other points x' of those regions"
    return f"{where} max |f(x') - (A[x]x' + b[x])| = {exact.worst:.1g}"


def as_json(report: Report) -> object:
    """Return the report's numbers as JSON values; an infinite or undefined number becomes null."""
    found, measured = report.findings.outputs, report.findings
    split = scores(found)
    return _plain(
        {
            "format": FORMAT,
            "maxaffine": report.version,
            "model": report.name,
            "until": report.until,
            "select": report.select,
            "over": report.over,
            "command": report.command,
            "precision": report.precision,
            "data": {
                "source": report.data.source,
                "rows": len(report.data),
                "row_shape": report.data.row_shape,
                "feed": describe(report.feed, report.data.row_shape),
                "measured_rows": len(found.outputs),
            },
            "composition": [asdict(layer) for layer in found.layers],
            "regions_visited": found.regions,
            "accuracy": accuracy(found),
            "template_accuracy": template_accuracy(found),
            "rms_error": rms_error(found),
            "exactness": {**asdict(measured.exactness), "line": exactness_line(report)},
            "completeness": completeness(measured.examples),
            "scores": None if split is None else dict(zip(("correct", "other"), map(_summary, split), strict=True)),
            "margins": {
                **_summary(measured.margins.distances),
                "values": measured.margins.distances,
                "moved": measured.margins.moved,
            },
            "nearest_wall_of": measured.margins.operators,
            "examples": [_example(report, e) for e in measured.examples],
            "neighbours": [asdict(n) for n in measured.neighbours],
            "slice": _slice(measured.slice),
        }
    )


def _slice(found: Slice | None) -> dict | None:
    if found is None:
        return None
    plane = found.partition
    sizes = () if plane is None else (len(plane), len(plane.vertices), len(plane.edges))
    return {
        "rows": found.rows,
        **dict(zip(("cells", "vertices", "edges"), sizes, strict=False)),
        "width": found.share,
        "exactness": None if found.exactness is None else asdict(found.exactness),
        "note": found.note,
    }


def _example(report: Report, shown: Example) -> dict:
    terms = [
        {
            "class": report.class_name(t.output),
            "output": t.output,
            "score": t.score,
            "inner": t.inner,
            "bias": t.bias,
        }
        for t in shown.terms
    ]
    return {"row": shown.row, "label": shown.label, "terms": terms}


def _summary(values: np.ndarray) -> dict:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return {"count": 0}
    low, middle, high = np.quantile(finite, [0, 0.5, 1])
    return {"count": len(finite), "mean": finite.mean(), "min": low, "median": middle, "max": high}


def _plain(value: object) -> object:
    """Return nested containers with numpy values as plain Python ones."""
    match value:
        case dict():
            return {key: _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case np.ndarray():
            return _plain(value.tolist())
        case float() | np.floating():
            return float(value) if math.isfinite(value) else None
        case np.integer():
            return int(value)
    return value
