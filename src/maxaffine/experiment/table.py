"""The summary of a grid as Markdown tables."""

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from maxaffine.experiment.records import Result
from maxaffine.experiment.summary import Interval, cells, differences, grouped

TEMPLATES = {
    "train ⟨A_y, x⟩": "train_inner_correct",
    "train ⟨A_c, x⟩": "train_inner_incorrect",
    "cos(A_y, A_c)": "train_cosine_between",
    "cos(A_y, x)": "train_cosine_correct",
    "cos(A_c, x)": "train_cosine_wrong",
    "distance to optimal": "train_to_optimal",
    "centred": "train_to_optimal_centred",
}
SCORES = {
    "train, A x + b": "train_affine_accuracy",
    "train, A x alone": "train_affine_accuracy_alone",
    "test, A x + b": "test_affine_accuracy",
    "test, A x alone": "test_affine_accuracy_alone",
}


def markdown(results: Sequence[Result]) -> str:
    """All tables that the results have numbers for."""
    parts = [accuracy_table(results), difference_table(results), template_table(results), score_table(results)]
    return "\n".join(part for part in (*parts, layer_table(results)) if part)


def accuracy_table(results: Sequence[Result]) -> str:
    """Each cell of the grid: the paper's statistics, the gap, the cross-entropy, the energy off the diagonal."""
    head = [
        "test accuracy, %",
        "std",
        "max",
        "train - test, points",
        "test cross-entropy",
        "off-diagonal energy",
        "runs",
    ]
    rows = [
        [
            *_cell(c.variant, c.rate, c.gamma),
            *("" if math.isnan(v) else f"{100 * v:.2f}" for v in (c.test_accuracy, c.std, c.best, c.gap)),
            f"{c.test_cross_entropy:.3f}",
            f"{c.off_diagonal_energy:.2g}",
            str(c.seeds),
        ]
        for c in cells(results)
    ]
    return _table(results, head, rows)


def difference_table(results: Sequence[Result]) -> str:
    """Each gamma > 0 minus gamma = 0, with 95 % intervals; empty without a pair."""
    head = ["accuracy, points [over seeds]", "[over images]", "train - test, points", "test cross-entropy", "pairs"]
    rows = [
        [
            *_cell(d.variant, d.rate, d.gamma),
            _interval(d.test_accuracy, 100),
            _interval(d.over_images, 100, alone=True),
            _interval(d.gap, 100),
            _interval(d.test_cross_entropy, digits=3),
            str(d.seeds),
        ]
        for d in differences(results)
    ]
    return _table(results, head, rows)


def template_table(results: Sequence[Result]) -> str:
    """Templates over the training rows at the end, mean over the seeds; empty when they were not measured."""
    return _numbers(results, TEMPLATES, "{:.3f}".format)


def score_table(results: Sequence[Result]) -> str:
    """Accuracy with the scores A x + b and with A x alone; empty when templates were not measured."""
    return _numbers(results, SCORES, lambda v: f"{100 * v:.1f} %")


def layer_table(results: Sequence[Result]) -> str:
    """Codes of each spline operator at the end, mean over the seeds; empty when they were not measured."""
    head = ["operator", "units", "distinct codes", "neighbours agree, trained labels", "true labels"]
    rows = []
    for key, runs in grouped(results).items():
        kept = [layer for run in runs for layer in run.layers if layer.epoch == len(run.epochs["epoch"]) - 1]
        for name in dict.fromkeys(layer.operator for layer in kept):
            own = [layer for layer in kept if layer.operator == name]
            codes, *shares = (
                np.mean([getattr(layer, what) for layer in own])
                for what in ("codes", "agreement_trained", "agreement_true")
            )
            rows.append(
                [*_cell(*key), f"`{name}`", f"{own[0].units:,}", f"{codes:.0f}", *(f"{100 * s:.1f} %" for s in shares)]
            )
    return _table(results, head, rows)


def _numbers(results: Sequence[Result], columns: dict[str, str], say: Callable[[float], str]) -> str:
    rows = [
        [*_cell(*key), *(say(float(np.mean([run.epochs[name][-1] for run in runs]))) for name in columns.values())]
        for key, runs in grouped(results).items()
        if all(name in run.epochs for run in runs for name in columns.values())
    ]
    return _table(results, list(columns), rows)


def _cell(variant: str, rate: float, gamma: float) -> list[str]:
    return [variant, f"{rate:g}", f"{gamma:g}"]


def _interval(found: Interval, factor: float = 1, digits: int = 2, alone: bool = False) -> str:
    """A difference with its sign, and its interval; alone: the interval without the number."""
    value, low, high = (f"{factor * v:+.{digits}f}" for v in found)
    between = "" if math.isnan(found.low) else f"[{low}, {high}]"
    return between if alone else f"{value} {between}".strip()


def _table(results: Sequence[Result], head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the columns variant, rate and gamma are left out where all results have the same."""
    rows = list(rows)
    if not rows:
        return ""
    hidden = [len({getattr(result, name) for result in results}) == 1 for name in ("variant", "rate", "gamma")]
    kept = [k for k in range(len(head) + 3) if k >= 3 or not hidden[k]]
    lines = [["variant", "rate", "γ", *head], ["---", *["---:"] * (len(head) + 2)], *rows]
    return "\n".join("| " + " | ".join(line[k] for k in kept) + " |" for line in lines) + "\n"
