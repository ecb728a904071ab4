"""Pictures of a grid of trained networks: accuracy against gamma as in the paper, curves, energies, Gram matrices.

Each takes the results of `maxaffine.experiment.records` and gives a figure that no window shows.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from maxaffine.errors import InputError
from maxaffine.experiment.records import Result
from maxaffine.experiment.summary import Cell, Difference, cells, differences, final, grouped
from maxaffine.plot.library import INK, figure
from maxaffine.tiling.palette import CLASS_HUES, oklch

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GREY, BLUE = "#b9b7b2", "#1c6dd0"
PANEL = (4.3, 3.3)
Key = tuple[str, float]  # variant, learning rate


def accuracy(results: Sequence[Result]) -> "Figure":
    """Test accuracy against gamma, one panel a variant and learning rate: mean black, std grey, maximum blue."""
    found = cells(results)
    drawn, axes = _panels(_keys(results))
    for key, axis in axes.items():
        own = [c for c in found if (c.variant, c.rate) == key]
        at = _gammas(axis, [c.gamma for c in own])
        mean, std = 100 * np.array([c.test_accuracy for c in own]), 100 * np.array([c.std for c in own])
        runs = own[0].seeds
        last = results[0].last
        axis.fill_between(at, mean - std, mean + std, color=GREY, alpha=0.55, linewidth=0, label="± std over runs")
        axis.plot(at, mean, "o-", color="black", markersize=5, linewidth=1.3, label=f"mean of the last {last} epochs")
        best = [100 * c.best for c in own]
        axis.plot(at, best, "o", color=BLUE, markersize=5, label="maximum over runs and epochs")
        axis.set_title(_title(key, results) + f"{runs} run{'s' * (runs > 1)} each", fontsize=9)
    first = next(iter(axes.values()))
    first.set_ylabel("test accuracy, %")
    handles = first.get_legend_handles_labels()
    drawn.legend(*handles, loc="outside upper center", ncols=min(len(axes), 3), frameon=False, fontsize="small")
    return drawn


def curves(results: Sequence[Result]) -> "Figure":
    """Through training: cross-entropy on the training rows and test accuracy, gamma = 0 against the best gamma."""
    keys = [key for key in _keys(results) if best_gamma(results, key) is not None] or _keys(results)
    drawn = figure((PANEL[0] * len(keys), 2 * PANEL[1] * 0.85))
    grid = drawn.subplots(2, len(keys), squeeze=False, sharex="col")
    for column, key in zip(grid.T, keys, strict=True):
        best = best_gamma(results, key)
        for gamma, colour in ((0.0, BLUE), *(((best, "black"),) if best is not None else ())):
            runs = grouped(results).get((*key, gamma), [])
            name = f"γ = {gamma:g}" + (" (highest test accuracy)" if gamma else "")
            _band(column[0], runs, "train_cross_entropy", 1, colour, name)
            _band(column[1], runs, "test_accuracy", 100, colour, name)
        _log(column[0])
        column[0].set_title(_title(key, results) + "mean ± std over runs", fontsize=9)
        column[1].set_xlabel("epoch")
        column[1].legend(frameon=False, fontsize="small")
    grid[0, 0].set_ylabel("training cross-entropy")
    grid[1, 0].set_ylabel("test accuracy, %")
    _plain(list(grid.flat))
    return drawn


def _band(axis: "Axes", runs: Sequence[Result], quantity: str, factor: float, colour: str, name: str) -> None:
    """Mean and deviation over runs of a quantity, from epoch 1."""
    if not runs:
        return
    values = factor * np.stack([run.epochs[quantity][1:] for run in runs])
    mean, std = values.mean(0), values.std(0, ddof=1) if len(runs) > 1 else 0 * values[0]
    epochs = np.arange(1, values.shape[1] + 1)
    low = np.maximum(mean - std, values.min(0))  # stays positive on a logarithmic axis
    axis.fill_between(epochs, low, mean + std, color=colour, alpha=0.15, linewidth=0)
    axis.plot(epochs, mean, color=colour, linewidth=1.2 if runs[0].gamma else 2.6, label=name)


def energies(results: Sequence[Result]) -> "Figure":
    """Off-diagonal energy of the last layer against gamma: the mean over c1 != c2 of their squared inner product."""
    drawn = figure((PANEL[0] + 1, PANEL[1]))
    axis = drawn.subplots()
    _lines(axis, results, "mean of ⟨w_c, w_c'⟩² over c ≠ c'", lambda cell: cell.off_diagonal_energy)
    _log(axis)
    return drawn


def gaps(results: Sequence[Result]) -> "Figure":
    """Overfitting against gamma: train minus test accuracy, and test cross-entropy; bars are ± std over runs."""
    drawn = figure((2 * PANEL[0], PANEL[1]))
    left, right = drawn.subplots(1, 2)
    _lines(left, results, "train − test accuracy, points", lambda cell: 100 * cell.gap)
    _bars(left, results, lambda run: 100 * (final(run, "train_accuracy") - final(run, "test_accuracy")))
    _lines(right, results, "test cross-entropy", lambda cell: cell.test_cross_entropy)
    _bars(right, results, lambda run: final(run, "test_cross_entropy"))
    drawn.suptitle("mean ± std over runs", fontsize=9)
    return drawn


def _bars(axis: "Axes", results: Sequence[Result], of: Callable[[Result], float]) -> None:
    """The standard deviation over runs at every mark of `_lines`."""
    gammas = sorted({run.gamma for run in results})
    for line, key in zip(list(axis.lines), _keys(results), strict=True):
        for at, mean in zip(np.asarray(line.get_xdata()), np.asarray(line.get_ydata()), strict=True):
            values = [of(run) for run in grouped(results)[(*key, gammas[int(at)])]]
            std = np.std(values, ddof=1) if len(values) > 1 else 0.0
            axis.errorbar(at, mean, std, color=line.get_color(), linewidth=1, capsize=3)


def _lines(axis: "Axes", results: Sequence[Result], label: str, of: Callable[[Cell], float]) -> None:
    """A quantity of the cells against gamma, one line a variant and learning rate."""
    found, keys = cells(results), _keys(results)
    gammas = sorted({c.gamma for c in found})
    _gammas(axis, gammas)
    for key, colour in zip(keys, colours(len(keys)), strict=True):
        own = [c for c in found if (c.variant, c.rate) == key]
        at = [gammas.index(c.gamma) for c in own]
        axis.plot(at, [of(c) for c in own], "o-", color=colour, markersize=4, linewidth=1.4, label=_name(key, results))
    axis.set_ylabel(label)
    if len(keys) > 1:
        axis.legend(frameon=False, fontsize="small")


def grams(results: Sequence[Result]) -> "Figure":
    """W W^T of the last layer at the end, mean over the runs: gamma = 0 beside the best gamma, on one colour scale.

    The scale is that of the entries off the diagonal; the diagonal, the squared norms, is beyond it.
    """
    keys = [key for key in _keys(results) if best_gamma(results, key) is not None]
    if not keys:
        raise InputError("Gram matrices are compared between gamma = 0 and another; give both")
    drawn = figure((6.6, 3.0 * len(keys) + 0.3))
    grid = drawn.subplots(len(keys), 2, squeeze=False)
    for axes, key in zip(grid, keys, strict=True):
        pair = {g: grouped(results)[(*key, g)] for g in (0.0, best_gamma(results, key) or 0.0)}
        means = {gamma: np.mean([run.gram for run in runs], axis=0) for gamma, runs in pair.items()}
        reach = max(abs(mean - np.diag(np.diag(mean))).max() for mean in means.values())
        for axis, (gamma, mean) in zip(axes, means.items(), strict=True):
            image = axis.imshow(mean, cmap="RdBu_r", vmin=-reach, vmax=reach)
            axis.set_title(_title(key, results) + f"W Wᵀ, γ = {gamma:g}", fontsize=9)
            axis.set_xlabel("class")
        axes[0].set_ylabel("class")
        drawn.colorbar(image, ax=list(axes), shrink=0.85, extend="both", label="the diagonal is beyond the scale")
    return drawn


def effects(results: Sequence[Result]) -> "Figure":
    """The change of test accuracy against gamma = 0 for each cell, with both 95 % intervals."""
    found = differences(results)
    if not found:
        raise InputError("differences are taken against gamma = 0 with the same seed; there is no such pair")
    drawn = figure((6.6, 0.5 * len(found) + 1.5))
    axis = drawn.subplots()
    for place, one in enumerate(found):
        value = 100 * one.test_accuracy.value
        for interval, shift, colour in ((one.test_accuracy, -0.12, "black"), (one.over_images, 0.12, BLUE)):
            axis.plot([100 * interval.low, 100 * interval.high], [place + shift] * 2, color=colour, linewidth=2)
            axis.plot(value, place + shift, "o", color=colour, markersize=5)
    axis.plot([], [], "o-", color="black", label="95 % over seeds")
    axis.plot([], [], "o-", color=BLUE, label="95 % over test images")
    axis.axvline(0, color=INK, linewidth=0.8, linestyle=":")
    axis.set_yticks(range(len(found)), [_row(one, results) for one in found])
    axis.set_ylim(len(found) - 0.5, -0.5)
    axis.set_xlabel("change of test accuracy against γ = 0, points")
    axis.legend(frameon=False, fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    _plain([axis])
    return drawn


def _row(one: Difference, results: Sequence[Result]) -> str:
    name = _name((one.variant, one.rate), results)
    return f"{name}, γ = {one.gamma:g}" if name else f"γ = {one.gamma:g}"


def best_gamma(results: Sequence[Result], key: Key) -> float | None:
    """The gamma > 0 with the highest mean test accuracy; None where there is none, or no gamma = 0 beside it.

    It is chosen on the test rows: its accuracy is an optimistic estimate, its difference to gamma = 0 as well.
    """
    own = {c.gamma: c.test_accuracy for c in cells(results) if (c.variant, c.rate) == key}
    positive = [gamma for gamma in own if gamma > 0]
    return max(positive, key=lambda gamma: own[gamma]) if positive and 0.0 in own else None


def colours(count: int) -> list[np.ndarray]:
    """Colours of lines that are told apart."""
    return [oklch(0.6, 0.14, CLASS_HUES[k % len(CLASS_HUES)])[0] / 255 for k in range(count)]


def _keys(results: Sequence[Result]) -> list[Key]:
    if not results:
        raise InputError("there is no finished run to draw")
    return list(dict.fromkeys((result.variant, result.rate) for result in results))


def _panels(keys: Sequence[Key], columns: int = 3) -> "tuple[Figure, dict[Key, Axes]]":
    """A figure with a panel a key."""
    columns = min(columns, len(keys))
    rows = -(-len(keys) // columns)
    wide = PANEL[0] + (1 if len(keys) == 1 else 0)
    drawn = figure((wide * columns, PANEL[1] * rows))
    axes = list(drawn.subplots(rows, columns, squeeze=False, sharey=True).flat)
    for spare in axes[len(keys) :]:
        spare.set_visible(False)
    return drawn, dict(zip(keys, axes, strict=False))


def _gammas(axis: "Axes", gammas: Sequence[float]) -> np.ndarray:
    """Gammas at equal distances, as they may span decades and hold 0."""
    at = np.arange(len(gammas))
    axis.set_xticks(at, [f"{gamma:g}" for gamma in gammas])
    axis.set_xlabel("γ")
    _plain([axis])
    return at


def _log(axis: "Axes") -> None:
    """A logarithmic axis; over less than a decade its ticks are plain numbers."""
    axis.set_yscale("log")
    low, high = axis.get_ylim()
    if high < 10 * low:
        for said in (axis.yaxis.set_major_formatter, axis.yaxis.set_minor_formatter):
            said(lambda value, _: f"{value:g}")


def _plain(axes: "Sequence[Axes]") -> None:
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)


def _name(key: Key, results: Sequence[Result]) -> str:
    """The variant and the rate, each where there is more than one."""
    keys = _keys(results)
    several = [len({k[place] for k in keys}) > 1 for place in (0, 1)]
    parts = [key[0]] * (several[0] or bool(key[0])) + [f"rate {key[1]:g}"] * several[1]
    return ", ".join(parts)


def _title(key: Key, results: Sequence[Result]) -> str:
    name = _name(key, results)
    return f"{name}: " if name else ""
