"""Statistics of templates over a data set, in one pass and bounded memory; those of parts merge to those of all."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from math import prod

import torch
from torch import Tensor

from maxaffine import arguments
from maxaffine.errors import InputError, MemoryBudgetError
from maxaffine.spline import Spline
from maxaffine.templates.bank import checked_labels, correct, wrong
from maxaffine.templates.distributions import Distribution, distribution, merge_distributions

CHUNK = 32 * 2**20  # bytes of one chunk unless said otherwise: larger ones are no faster


@dataclass(frozen=True, eq=False)
class Angles:
    """What needs whole templates: |A_c| of all; cos(A_y, A_c) with c wrong; cos(A_y, x), cos(A_c, x) with c wrong.

    A zero template or input has no direction: its cosines are left out, and the counts tell how many.
    """

    norms: Distribution
    between: Distribution
    correct: Distribution
    wrong: Distribution


@dataclass(frozen=True, eq=False)
class TemplateStatistics:
    """What `template_statistics` found over N labelled inputs (y the label, c every other class).

    correct: <A_y, x>; incorrect: <A_c, x>; margins: <A_y - A_c, x>; biases: b_y - b_c. hits: inputs that A x + b
    classifies correctly, hits_alone: that A x alone does, agreements: where A x + b and the network say the same.
    completeness: max |A x + b - f(x)|, with b the frozen network at 0. angles: None when they were not asked for.
    """

    inputs: int
    classes: int
    correct: Distribution
    incorrect: Distribution
    margins: Distribution
    biases: Distribution
    hits: int
    hits_alone: int
    agreements: int
    completeness: float
    angles: Angles | None

    @property
    def accuracy(self) -> float:
        """Share of inputs whose largest <A_c, x> + b_c is that of the label."""
        return self.hits / self.inputs

    @property
    def accuracy_alone(self) -> float:
        """Share of inputs whose largest <A_c, x>, without the biases, is that of the label."""
        return self.hits_alone / self.inputs

    def __str__(self) -> str:
        lines = [
            f"{self.inputs:,} inputs, {self.classes} classes",
            f"accuracy   A x + b: {self.accuracy:.4f}   A x alone: {self.accuracy_alone:.4f}",
            f"<A_y, x>         {self.correct}",
            f"<A_c, x>         {self.incorrect}",
            f"<A_y - A_c, x>   {self.margins}",
            f"b_y - b_c        {self.biases}",
        ]
        a = self.angles
        if a is not None:
            lines += [f"cos(A_y, A_c)    {a.between}", f"cos(A_y, x)      {a.correct}"]
            lines += [f"cos(A_c, x)      {a.wrong}", f"|A_c|            {a.norms}"]
        return "\n".join(lines)


def template_statistics(
    spline: Spline,
    inputs: Tensor,
    labels: Tensor | Sequence[int],
    *,
    angles: bool = True,
    bins: int = 512,
    memory: int = CHUNK,
) -> TemplateStatistics:
    """Statistics of the templates of a classifier over labelled inputs (N, *in), in one pass.

    Without angles (norms and cosines) no template is built: A x is one forward pass of the frozen network, so that it
    costs four passes of the network instead of C + 3. memory: bytes that one chunk may take. A data set that does not
    fit in memory is read in parts, on any machine: `merge_statistics` of the parts is what one pass over all gives.
    Raises InputError for labels that do not fit, MemoryBudgetError when not even one input fits.
    Source: Balestriero & Baraniuk 2018, arXiv 1805.06576, section 5.

    >>> import torch, maxaffine as ma
    >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    >>> x, y = torch.randn(50, 4), torch.randint(3, (50,))
    >>> found = template_statistics(ma.Spline(net, x), x, y)
    >>> found.hits == int((net(x).argmax(1) == y).sum()), found.incorrect.count
    (True, 100)
    """
    arguments.require(spline, Spline, "spline", "a maxaffine.Spline of the network")
    arguments.values(inputs, "inputs", "a tensor (N, *in)")
    memory = arguments.budget(memory, CHUNK)
    classes = prod(spline.out_shape)
    if classes < 2:
        raise InputError("the network has 1 output; statistics of correct and wrong templates need at least 2 classes")
    if inputs.dim() == 0 or len(inputs) == 0:
        raise InputError(f"inputs have shape {tuple(inputs.shape)}; give at least one row")
    y = checked_labels(labels, len(inputs), classes)
    rows = _rows_that_fit(spline, classes if angles else 1, memory)
    parts = zip(inputs.detach().split(rows), y.to(inputs.device).split(rows), strict=True)
    return reduce(merge_statistics, (_of_chunk(spline, x, of, angles, bins) for x, of in parts))


def merge_statistics(p: TemplateStatistics, q: TemplateStatistics) -> TemplateStatistics:
    """The statistics of both sets of inputs. Raises InputError unless classes, bins and angles are alike."""
    for each in (p, q):
        arguments.require(each, TemplateStatistics, "one of both", "two TemplateStatistics")
    if p.classes != q.classes or (p.angles is None) != (q.angles is None):
        raise InputError(
            f"statistics of {p.classes} and {q.classes} classes, angles {p.angles is not None} and "
            f"{q.angles is not None}, cannot be merged"
        )
    merge = merge_distributions
    return TemplateStatistics(
        p.inputs + q.inputs,
        p.classes,
        merge(p.correct, q.correct),
        merge(p.incorrect, q.incorrect),
        merge(p.margins, q.margins),
        merge(p.biases, q.biases),
        p.hits + q.hits,
        p.hits_alone + q.hits_alone,
        p.agreements + q.agreements,
        max(p.completeness, q.completeness),
        _merge_angles(p.angles, q.angles) if p.angles and q.angles else None,
    )


def _merge_angles(p: Angles, q: Angles) -> Angles:
    merge = merge_distributions
    return Angles(
        merge(p.norms, q.norms),
        merge(p.between, q.between),
        merge(p.correct, q.correct),
        merge(p.wrong, q.wrong),
    )


def _rows_that_fit(spline: Spline, templates: int, memory: int) -> int:
    """How many inputs one chunk takes: their templates, and the value and frozen slope of every unit."""
    units = sum(operator.units for operator in spline.operators)
    size = ((templates + 1) * prod(spline.in_shape) + 2 * units) * spline.dtype.itemsize
    if size > memory:
        raise MemoryBudgetError(
            f"the {templates} templates and the units of one input take {arguments.sized(size)}, the budget is "
            f"{arguments.sized(memory)}; give memory={size}" + (" or angles=False" if templates > 1 else "")
        )
    return memory // size


def _of_chunk(spline: Spline, x: Tensor, y: Tensor, angles: bool, bins: int) -> TemplateStatistics:
    f = spline.at(x)
    outputs, b = spline(x).flatten(1), f.b.flatten(1)
    if angles:
        A, signals = f.A.reshape(len(x), b.shape[1], -1), x.flatten(1)
        inner = _products(A, signals)
        found = _angles(A, signals, inner, y, bins)
    else:
        inner, found = f.mv(x).flatten(1), None
    scores = inner + b
    if not bool((scores - outputs).isfinite().all()):
        raise InputError("the network overflows on these inputs (NaN or infinite values); use spline.to(torch.float64)")
    return TemplateStatistics(
        len(x),
        b.shape[1],
        distribution(correct(inner, y), bins),
        distribution(wrong(inner, y), bins),
        distribution(wrong(correct(inner, y).unsqueeze(1) - inner, y), bins),
        distribution(wrong(correct(b, y).unsqueeze(1) - b, y), bins),
        _equal(scores.argmax(1), y),
        _equal(inner.argmax(1), y),
        _equal(scores.argmax(1), outputs.argmax(1)),
        float((scores - outputs).abs().max()),
        found,
    )


def _angles(A: Tensor, x: Tensor, inner: Tensor, y: Tensor, bins: int) -> Angles:
    """Of A (N, C, D) only the row of the label meets all others: C products a signal, not the C^2 of a Gram matrix."""
    norms = torch.linalg.vector_norm(A, dim=2)
    products = _products(A, correct(A, y))
    between = products / (norms * correct(norms, y).unsqueeze(1))
    aligned = inner / (norms * torch.linalg.vector_norm(x, dim=1, keepdim=True))
    return Angles(
        distribution(norms, bins),
        distribution(wrong(between.clamp(-1, 1), y), bins, reach=1.0),
        distribution(correct(aligned.clamp(-1, 1), y), bins, reach=1.0),
        distribution(wrong(aligned.clamp(-1, 1), y), bins, reach=1.0),
    )


def _products(A: Tensor, v: Tensor) -> Tensor:
    """(N, C, D), (N, D) -> (N, C)."""
    return (A @ v.unsqueeze(2)).squeeze(2)


def _equal(a: Tensor, b: Tensor) -> int:
    return int((a == b).sum())
