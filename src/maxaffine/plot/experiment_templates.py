"""Pictures of templates through the runs of a grid: bimodality, cosines, the distance to the optimal templates."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from maxaffine.errors import InputError
from maxaffine.experiment.records import Histogram, Result
from maxaffine.plot.experiments import PANEL, colours
from maxaffine.plot.library import INK, figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CORRECT, WRONG = "#2b8a3e", "#c92a2a"  # the paper's green and red
BARS = 60  # across a panel; the bins of the histograms are finer


def bimodality(results: Sequence[Result], part: str = "train") -> "Figure":
    """Inner products <A_c, x> at the end, correct class green, other classes red; a panel a variant, all its runs."""
    return _histograms(
        results, part, ("inner_correct", "inner_incorrect"), "⟨A_c, x⟩", ("correct class", "other classes")
    )


def cosines(results: Sequence[Result], part: str = "train") -> "Figure":
    """Cosines of the correct template with each other one; the optimum of Proposition 5.5 has all of them at -1."""
    return _histograms(results, part, ("cosine_between",), "cos(A_y, A_c), c ≠ y", ("",))


def alignments(results: Sequence[Result], part: str = "train") -> "Figure":
    """Cosines of templates with their input; the optimum of Proposition 5.5 has +1 (correct) and -1 (others)."""
    names = ("correct class", "other classes")
    return _histograms(results, part, ("cosine_correct", "cosine_wrong"), "cos(A_c, x)", names)


def _histograms(
    results: Sequence[Result], part: str, quantities: Sequence[str], label: str, names: Sequence[str]
) -> "Figure":
    kept = {name: runs for name, runs in _variants(results).items() if any(run.histograms for run in runs)}
    if not kept:
        raise InputError("no run has histograms of templates; set measure.templates to end or epochs")
    columns = min(3 if len(kept) in (5, 6, 9) else 4, len(kept))  # full rows where there are some
    rows = -(-len(kept) // columns)
    drawn = figure((3.1 * columns, 2.5 * rows + 0.4))
    axes = list(drawn.subplots(rows, columns, squeeze=False).flat)
    for spare in axes[len(kept) :]:
        spare.set_visible(False)
    for axis, (name, runs) in zip(axes, kept.items(), strict=False):
        _bars(axis, [[_last(run, part, quantity) for run in runs] for quantity in quantities], names)
        axis.set_title(name, fontsize=9)
        axis.set_yticks([])
        axis.locator_params(axis="x", nbins=5)  # so that the numbers of two panels do not meet
        axis.set_ylim(0)
        axis.axvline(0, color=INK, linewidth=0.6, linestyle=":")
        axis.spines[["top", "right", "left"]].set_visible(False)
    for axis in axes[len(kept) - columns : len(kept)]:
        axis.set_xlabel(label)
    if len(names) > 1:
        drawn.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
    return drawn


def _bars(axis: "Axes", groups: Sequence[Sequence[Histogram]], names: Sequence[str]) -> None:
    """All runs' numbers of each group, scaled to its highest bar; fine bins are joined to at most about BARS bars."""
    edges = max((h.edges for group in groups for h in group), key=lambda edges: edges[-1])
    counts = [sum((_onto(h, edges) for h in group), np.zeros(len(edges) - 1)) for group in groups]
    used = np.flatnonzero(np.sum(counts, axis=0))
    low, high = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, len(edges) - 1)
    joined = -(-(high - low) // BARS)
    starts = np.arange(low, high, joined)
    ends = edges[np.append(starts[1:], min(starts[-1] + joined, len(edges) - 1))]
    for own, colour, name in zip(counts, (CORRECT, WRONG), names, strict=False):
        heights = np.add.reduceat(own[: high + joined], starts)
        axis.stairs(
            heights / max(heights.max(), 1), [edges[low], *ends], fill=True, color=colour, alpha=0.6, label=name
        )


def _onto(h: Histogram, edges: np.ndarray) -> np.ndarray:
    """Counts of a histogram in coarser bins, whose edges are among its own."""
    places = np.searchsorted(edges, h.edges[:-1], side="right") - 1
    return np.bincount(places, weights=h.counts, minlength=len(edges) - 1)


def _last(run: Result, part: str, quantity: str) -> Histogram:
    return [h for h in run.histograms if (h.part, h.quantity) == (part, quantity)][-1]


def towards_optimal(results: Sequence[Result]) -> "Figure":
    """Through training: relative distance of the templates to the optimal ones, and their cosines, mean over runs."""
    kept = {name: runs for name, runs in _variants(results).items() if all(_every(run) for run in runs)}
    if not kept:
        raise InputError('no run has templates of every epoch; set measure.templates = "epochs"')
    drawn = figure((2 * PANEL[0] + 1.2, PANEL[1] + 0.3))
    left, right = drawn.subplots(1, 2)
    for (name, runs), colour in zip(kept.items(), colours(len(kept)), strict=True):
        for axis, quantity in ((left, "train_to_optimal_centred"), (right, "train_cosine_between")):
            mean = np.mean([run.epochs[quantity] for run in runs], axis=0)
            axis.plot(np.arange(len(mean)), mean, color=colour, linewidth=1.5, label=name)
    left.axhline(2**0.5, color=INK, linewidth=0.8, linestyle=":")
    left.annotate("√2: orthogonal to it", (0, 2**0.5), xytext=(2, 3), textcoords="offset points", fontsize="small")
    left.set_ylim(0, 1.6)
    left.set_ylabel("distance to the optimal templates")
    right.axhline(-1, color=INK, linewidth=0.8, linestyle=":")
    right.set_ylabel("mean cos(A_y, A_c); the optimum has −1")
    for axis in (left, right):
        axis.set_xlabel("epoch (0: before training)")
        axis.spines[["top", "right"]].set_visible(False)
    drawn.legend(*left.get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize="small")
    return drawn


def _every(run: Result) -> bool:
    values = run.epochs.get("train_to_optimal_centred")
    return values is not None and bool(np.isfinite(values).all())


def _variants(results: Sequence[Result]) -> dict[str, list[Result]]:
    """The runs of each variant; gamma is said where a variant has several."""
    found: dict[str, list[Result]] = {}
    several = len({result.gamma for result in results}) > 1
    for result in results:
        parts = [result.variant] * bool(result.variant) + [f"γ = {result.gamma:g}"] * several
        found.setdefault(", ".join(parts), []).append(result)
    return found
