"""Measure a captured network on data: the numbers of a report, each within a stated amount of work."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from maxaffine.code import concatenate
from maxaffine.codebook import WHOLE, Vocabulary, class_agreement, nearest
from maxaffine.data import Dataset
from maxaffine.errors import InputError
from maxaffine.margins import margin
from maxaffine.report.feed import Feed
from maxaffine.report.findings import (
    Exactness,
    Example,
    Findings,
    Layer,
    Margins,
    Neighbours,
    Outputs,
    Slice,
    Term,
    classifies,
)
from maxaffine.report.slicing import slice_through
from maxaffine.spline import Spline
from maxaffine.table import composition_rows
from maxaffine.types import flat

Track = Callable[[Sequence, str], Iterable]  # (steps, what is done) -> the steps, with a progress bar
SEED = 0
COMPARED = 200  # inputs whose nearest neighbour is looked up
OUTPUTS = 20  # matrix rows compared where a network has more outputs
NUDGE = 1e-3  # of its length: the step by which an input leaves the wall it lies on
INSIDE = 0.9  # of the way to the nearest wall: surely another point, surely of the same region


@dataclass(frozen=True)
class Budget:
    """How many inputs each part of the report looks at."""

    rows: int
    margins: int
    pool: int
    points: int = 1000
    examples: int = 6
    queries: int = 4
    neighbours: int = 8
    depths: int = 5


@dataclass(frozen=True)
class Subject:
    """The network under report and the data it is fed with."""

    spline: Spline
    data: Dataset
    feed: Feed

    def inputs(self, rows: np.ndarray | slice) -> torch.Tensor:
        """Return the network inputs (n, *in) of some rows."""
        return self.feed(self.data.inputs[rows]).to(self.spline.device, self.spline.dtype)

    @property
    def chunk(self) -> int:
        """Rows at a time so that one chunk's hidden values stay near 64 MiB."""
        return max(1, min(512, 2**26 // (8 * max(1, units(self.spline)))))


def units(spline: Spline) -> int:
    """Return the number of spline units of the whole network."""
    return sum(operator.units for operator in spline.operators)


def budget(spline: Spline, rows: int, margins: int | None = None) -> Budget:
    """Choose how much to measure: less with many units, because a margin costs a Jacobian of all of them.

    Raises:
        InputError: ``margins``, the number of inputs whose walls are searched, is below 1.
    """
    if margins is not None and margins < 1:
        raise InputError(f"margins {margins}: ask for the walls of at least 1 input")
    n = max(1, units(spline))
    affordable = min(200, max(4, 400_000 // n)) if margins is None else margins
    pool = min(rows, 1000, max(16, 2**27 // n))
    return Budget(rows=min(rows, 10_000), margins=min(rows, affordable), pool=pool)


def measure(subject: Subject, plan: Budget, track: Track) -> Findings:
    """Measure everything a report shows.

    Raises:
        NotPiecewiseAffineError: the network is not piecewise affine up to its output.
        InputError: labels that are no outputs of the network, or outputs that are not finite.
    """
    _check_classes(subject.data.labels, math.prod(subject.spline.out_shape))
    found = outputs(subject, plan, track)
    walls = margins(subject, plan.margins, track)
    exact = exactness(subject, walls, plan.points, track)
    shown = chosen(found, plan.examples)
    examples = tuple(example(subject, row, found) for row in track(shown, "templates"))
    near = neighbours(subject, plan, found, track)
    return Findings(found, exact, walls, examples, near, plan.pool, sliced(subject, shown, track))


def sliced(subject: Subject, shown: list[int], track: Track) -> Slice | None:
    """Partition the plane through the first three inputs shown; None where there are not so many."""
    rows = shown[:3]
    for _ in track([rows] if len(rows) == 3 else [], "a slice through three inputs"):
        return slice_through(subject.spline, subject.inputs(np.array(rows)), rows)
    return None


def outputs(subject: Subject, plan: Budget, track: Track) -> Outputs:
    """Run the network: outputs, frozen biases b[x] = replay of the code of x at 0, distinct codes."""
    spline, labels = subject.spline, subject.data.labels
    values: list[torch.Tensor] = []
    biases: list[torch.Tensor] = []
    seen = Vocabulary()
    for rows in track(_chunks(plan.rows, subject.chunk), "outputs and codes"):
        x = subject.inputs(rows)
        code = spline.code(x)
        values.append(flat(spline(x)))
        biases.append(flat(spline.replay(code, torch.zeros_like(x))))
        seen.add(code)
    f, b = _numpy(torch.cat(values)), _numpy(torch.cat(biases))
    if not np.isfinite(f).all():
        raise InputError(f"the network's output is NaN or infinite at row {int((~np.isfinite(f)).any(1).argmax())}")
    before = {row[0]: row[-1] for row in composition_rows(spline.captured, spline.operators, spline.out_shape)}
    layers = tuple(
        Layer(op.name, op.op, op.pieces, op.units, op.shape, before[op.name], seen.total[op.name])
        for op in spline.operators
    )
    return Outputs(f, b, None if labels is None else labels[: plan.rows], layers, seen.total[WHOLE])


def margins(subject: Subject, count: int, track: Track) -> Margins:
    """Return how far the first inputs are from the nearest wall of their region, and whose wall it is.

    An input on a wall (equal pixels that tie in a maximum) has distance 0; there the distance from a point a
    thousandth of its length away, in a random direction, is measured as well.
    """
    distances, names, norms, moved = [], [], [], []
    for rows in track(_chunks(count, 8), "distances to the walls"):
        x = subject.inputs(rows)
        walls = margin(subject.spline, x)
        distances.append(_numpy(walls.values))
        names.extend(walls.operators)
        norms.append(_numpy(flat(x).norm(dim=1)))
        tied = [row for row, d in enumerate(walls.values.tolist(), rows.start) if d == 0]
        moved.extend(float(margin(subject.spline, _off_wall(subject, row)).values) for row in tied)
    return Margins(np.concatenate(distances), tuple(names), np.concatenate(norms), np.array(moved))


def _off_wall(subject: Subject, row: int) -> torch.Tensor:
    """Return (1, *in) a point a thousandth of its length away from one input, always the same one."""
    x = subject.inputs(slice(row, row + 1))
    generator = torch.Generator().manual_seed(SEED + row)
    return x + _directions(x, 1, NUDGE * (float(x.norm()) or 1.0), generator)


def exactness(subject: Subject, walls: Margins, points: int, track: Track) -> Exactness:
    """Compare f with the affine map of x at x' = x + 0.9 margin(x) u, u uniform on the unit sphere.

    At x itself the comparison would prove nothing: b[x] could be f(x) - A[x] x of any matrix A. The matrix is
    multiplied out (of a network with many outputs: its rows of the leading ones), not replayed. For an
    input on a wall, x is the point a thousandth of its length away.
    """
    spline, generator = subject.spline, torch.Generator().manual_seed(SEED)
    tied = walls.distances == 0
    reach = walls.distances.copy()
    reach[tied] = walls.moved
    reach = np.where(np.isfinite(reach), INSIDE * reach, 1.0 + walls.norms)
    counts = np.bincount(np.resize(np.arange(len(reach)), points), minlength=len(reach))
    worst, scale, same = 0.0, 0.0, 0
    for row in track(np.flatnonzero(counts).tolist(), "exactness at other points"):
        x = _off_wall(subject, row) if tied[row] else subject.inputs(slice(row, row + 1))
        other = x + _directions(x, int(counts[row]), float(reach[row]), generator)
        difference, size = _against_matrix(spline, x, other)
        worst, scale = max(worst, difference), max(scale, size)
        same += int((spline.code(other) == spline.code(x)).sum())
    return Exactness(points, int((counts > 0).sum()), same, worst, scale)


def _directions(x: torch.Tensor, count: int, length: float, generator: torch.Generator) -> torch.Tensor:
    """Return ``count`` random vectors of one length, shaped like the rows of ``x``."""
    direction = torch.randn((count, *x.shape[1:]), generator=generator, dtype=torch.float64)
    norms = flat(direction).norm(dim=1).reshape(-1, *[1] * (x.ndim - 1))
    return (length / norms * direction).to(x)


def _against_matrix(spline: Spline, x: torch.Tensor, other: torch.Tensor) -> tuple[float, float]:
    """Return max |f(x') - (A[x] x' + b[x])| and max |f(x')| over the points x' ``other`` for one x."""
    leading = spline(x).flatten().argsort(descending=True)[:OUTPUTS].tolist()
    local = spline.at(x)
    matrix = local.rows(leading).reshape(len(leading), -1)
    affine = flat(other) @ matrix.T + local.b.flatten()[leading]
    values = flat(spline(other))[:, leading]
    return float((values - affine).abs().max()), float(values.abs().max())


def chosen(found: Outputs, count: int) -> list[int]:
    """Choose inputs to show: with classes, right ones, each of another class, and two mistakes."""
    f, labels = found.outputs, found.labels
    if labels is None or not classifies(found):
        return list(range(min(count, len(f))))
    right = f.argmax(1) == labels
    wrong = [int(row) for row in np.flatnonzero(~right)[:2]]
    _, firsts = np.unique(labels[right], return_index=True)
    typical = sorted(int(row) for row in np.flatnonzero(right)[firsts])[: count - len(wrong)]
    return typical + wrong


def example(subject: Subject, row: int, found: Outputs) -> Example:
    """Return one input with the templates A[x]_c of its leading outputs (and of its label)."""
    x = subject.inputs(np.array([row]))
    label = int(found.labels[row]) if found.labels is not None and classifies(found) else None
    shown = _leading(found.outputs[row], label)
    local = subject.spline.at(x)
    templates = local.rows(shown).reshape(len(shown), *x.shape[1:])
    inner = flat(templates * x).sum(dim=1)
    bias = local.b.flatten()[shown]
    terms = tuple(
        Term(c, float(found.outputs[row, c]), float(inner[i]), float(bias[i]), _numpy(templates[i]))
        for i, c in enumerate(shown)
    )
    return Example(row, _numpy(x[0]), label, terms)


def neighbours(subject: Subject, plan: Budget, found: Outputs, track: Track) -> tuple[Neighbours, ...]:
    """Find the nearest other inputs of some queries by the codes of operators of increasing depth."""
    count, compared = min(plan.neighbours, plan.pool - 1), min(COMPARED, plan.pool)
    if not count or not subject.spline.operators:
        return ()
    codes = [subject.spline.code(subject.inputs(rows)) for rows in _chunks(plan.pool, subject.chunk)]
    pool = concatenate(codes)
    classes = found.labels[: plan.pool] if found.labels is not None and classifies(found) else None
    queries = _queries(min(plan.queries, plan.pool), classes)
    asked = subject.spline.code(subject.inputs(queries))
    result = []
    for name in track(_depths(subject.spline, plan.depths), "neighbours by code"):
        near = nearest(asked, pool, count, name, own=queries)
        agreement = None
        if classes is not None:
            agreement = float(class_agreement(pool, classes, (1,), name, queries=range(compared)).shares[0, 0])
        result.append(Neighbours(name, queries, near.rows, near.distances, agreement, compared))
    return tuple(result)


def _depths(spline: Spline, count: int) -> list[str]:
    """Return the names of up to ``count`` operators from the first to the last."""
    names = [operator.name for operator in spline.operators]
    places = np.linspace(0, len(names) - 1, count).round().astype(int)
    return list(dict.fromkeys(names[k] for k in places))


def _queries(count: int, classes: np.ndarray | None) -> np.ndarray:
    """Return the first rows of different classes, or simply the first rows."""
    if classes is None:
        return np.arange(count)
    return np.sort(np.unique(classes[:COMPARED], return_index=True)[1])[:count]


def _leading(scores: np.ndarray, label: int | None, count: int = 3) -> list[int]:
    order = [int(c) for c in (-scores).argsort(kind="stable")]
    leading = order[:count]
    return leading if label is None or label in leading else [*leading[:-1], label]


def _check_classes(labels: np.ndarray | None, outputs: int) -> None:
    if labels is None or labels.dtype.kind != "i" or outputs == 1:
        return
    if labels.min() < 0 or labels.max() >= outputs:
        raise InputError(f"labels from {labels.min()} to {labels.max()} for a network of {outputs} outputs")


def _chunks(rows: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]


def _numpy(values: torch.Tensor) -> np.ndarray:
    return values.detach().cpu().to(torch.float64).numpy()
