"""Pictures of templates: an input beside its matched filters, and how their answers are distributed over a data set."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from maxaffine.arguments import told
from maxaffine.errors import InputError
from maxaffine.plot.library import INK, pyplot
from maxaffine.templates import Distribution, Templates, TemplateStatistics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

T = TypeVar("T")
RIGHT, WRONG = "#14846a", "#c2410c"  # the paper's green and red, told apart by colour-blind readers too
SHOWN = 3  # templates shown unless they are named: the paper's correct class and two others
FEWEST, MOST = 12, 96  # bars of a histogram
TOP = 0.76  # share of a panel that the bars fill: the legend stands above them

Floats = NDArray[np.float64]


def templates(
    banks: Templates | Mapping[str, Templates],
    row: int = 0,
    *,
    classes: Sequence[int] | None = None,
    label: int | None = None,
    names: Sequence[str] = (),
    image: tuple[int, ...] | None = None,
) -> "Figure":
    """An input and its templates, one network a row: red raises the score where the input is bright, blue lowers it.

    banks: of one network, or of several by name (ReLU against abs, a CNN against a ResNet). row: the signal. classes:
    whose templates (default: the label, then the largest scores of the first network; three in all). names: of the
    classes. image: the shape of an input that is stored flat. The templates of one network share a colour scale that
    is symmetric about 0; above each stand its inner product with the input and its bias, whose sum is the score. Of
    a colour image the template is summed over the channels: how it answers to grey.

    Raises:
        InputError: a row or class that is not there, or an input that is no image.
        MissingExtraError: matplotlib is not installed.
    """
    named = _by_name(banks, Templates, "templates(f, x)")
    if not named:
        raise InputError("no network is given: templates({}) has nothing to show")
    shown = list(classes) if classes is not None else _leading(next(iter(named.values())), row, label)
    columns = len(shown) + 1
    figure, axes = pyplot().subplots(
        len(named), columns, figsize=(2.05 * columns + 0.7, 2.45 * len(named)), layout="constrained", squeeze=False
    )
    for line, (name, bank) in zip(axes, named.items(), strict=True):
        _draw_bank(line, bank, row, shown, image)
        line[0].set_ylabel(name, fontsize=10)
        for axis, one in zip(line[1:], shown, strict=True):
            said = names[one] if names else f"class {one}"
            axis.set_title(f"{said}{' (label)' * (one == label)}\n{axis.get_title()}", fontsize=9)
    return figure


def template_histograms(found: TemplateStatistics | Mapping[str, TemplateStatistics]) -> "Figure":
    """How templates answer over a data set, one network a row: inner products, margins and cosines.

    Green is the correct class, red are the wrong ones. Well separated inner products, and cosines at -1 and 1, are
    what the templates of Proposition 5.5 have. Each histogram has area 1; dashed: its mean.

    Raises:
        InputError: nothing is given.
        MissingExtraError: matplotlib is not installed.
    """
    named = _by_name(found, TemplateStatistics, "template_statistics(...)")
    if not named:
        raise InputError("no statistics are given: template_histograms({}) has nothing to show")
    columns = 4 if any(one.angles for one in named.values()) else 2
    figure, axes = pyplot().subplots(
        len(named), columns, figsize=(2.9 * columns, 2.3 * len(named) + 0.6), layout="constrained", squeeze=False
    )
    for line, (name, one) in zip(axes, named.items(), strict=True):
        _draw_statistics(line, one)
        line[0].set_ylabel(f"{name}\naccuracy {one.accuracy:.1%}\nwithout b {one.accuracy_alone:.1%}", fontsize=8)
    heads = ("⟨A, x⟩", "margin ⟨A_correct - A_wrong, x⟩", "cos(A_correct, A_wrong)", "cos(A, x)")
    for axis, head in zip(axes[0], heads[:columns], strict=True):
        axis.set_title(head, fontsize=10)
    for line in axes:
        for axis in line:
            axis.set_visible(axis.has_data())
            axis.set_ylim(0, axis.dataLim.y1 / TOP if axis.has_data() else 1)
        for axis in line[[0, -1]]:
            if axis.get_visible() and axis.get_legend_handles_labels()[0]:
                axis.legend(frameon=False, fontsize=8, handlelength=1.0, loc="upper left")
    return figure


def _by_name(given: Any, kind: type[T], give: str) -> dict[str, T]:
    named = {"": given} if isinstance(given, kind) else given
    if not isinstance(named, Mapping) or not all(isinstance(one, kind) for one in named.values()):
        raise InputError(f"{told(given)} cannot be shown; give {give}, or several by name")
    return dict(named)


def _leading(bank: Templates, row: int, label: int | None) -> list[int]:
    """The label if there is one, then the classes of the largest scores."""
    order = bank.classes[bank.scores[_checked_row(bank, row)].detach().cpu().argsort(descending=True)].tolist()
    first = [] if label is None else [label]
    return [*first, *(c for c in order if c != label)][:SHOWN]


def _checked_row(bank: Templates, row: int) -> int:
    if not -len(bank) <= row < len(bank):
        raise InputError(f"row {row}: the bank has the templates of {len(bank)} inputs")
    return row


def _draw_bank(axes: "Sequence[Axes]", bank: Templates, row: int, classes: list[int], image: tuple[int, ...] | None):
    """The input, and the templates of one network with a colour scale of their own."""
    row, known = _checked_row(bank, row), bank.classes.tolist()
    if not set(classes) <= set(known):
        raise InputError(f"classes {classes}: the bank has templates of {known}")
    places = [known.index(c) for c in classes]
    shape = _image_shape(tuple(bank.x.shape[1:]), image)
    axes[0].imshow(_picture(bank.x[row], shape), cmap="gray", interpolation="nearest")
    axes[0].set_title("input", fontsize=9)
    fields = [_signed(bank.A[row, place], shape) for place in places]
    reach = max(float(np.abs(field).max()) for field in fields) or 1.0
    for axis, place, field in zip(axes[1:], places, fields, strict=True):
        drawn = axis.imshow(field, cmap="RdBu_r", vmin=-reach, vmax=reach, interpolation="nearest")
        axis.set_title(f"⟨A, x⟩ = {float(bank.inner[row, place]):+.2f},  b = {float(bank.b[row, place]):+.2f}")
    for axis in axes:
        axis.set_xticks([])
        axis.set_yticks([])
    if classes:
        bar = axes[0].figure.colorbar(drawn, ax=axes[-1], shrink=0.8, aspect=14, ticks=[-reach, 0, reach])
        bar.ax.set_yticklabels([f"{-reach:.2g}", "0", f"{reach:.2g}"], fontsize=7)
        bar.outline.set_visible(False)


def _image_shape(stored: tuple[int, ...], wanted: tuple[int, ...] | None) -> tuple[int, ...]:
    """(channels, height, width) of an input. Raises InputError when it is no image."""
    shape = stored if wanted is None else tuple(wanted)
    full = shape if len(shape) == 3 else (1, *shape)
    if len(full) != 3 or full[0] not in (1, 3) or int(np.prod(full)) != int(np.prod(stored)):
        raise InputError(f"an input of shape {stored} is drawn with image=(H, W), (1, H, W) or (3, H, W), not {wanted}")
    return full


def _picture(x: Tensor, shape: tuple[int, ...]) -> Floats:
    """The input from its least to its largest value: (H, W) or (H, W, 3)."""
    values = _numbers(x, shape)
    values = (values - values.min()) / (np.ptp(values) or 1.0)
    return values[0] if shape[0] == 1 else values.transpose(1, 2, 0)


def _signed(template: Tensor, shape: tuple[int, ...]) -> Floats:
    return _numbers(template, shape).sum(0)


def _numbers(values: Tensor, shape: tuple[int, ...]) -> Floats:
    return values.detach().cpu().double().numpy().reshape(shape)


def _draw_statistics(axes: "Sequence[Axes]", one: TemplateStatistics) -> None:
    _bars(axes[0], one.incorrect, WRONG, "wrong classes")
    _bars(axes[0], one.correct, RIGHT, "correct class")
    _bars(axes[1], one.margins, INK)
    if one.angles is None:
        return
    _bars(axes[2], one.angles.between, INK)
    _bars(axes[3], one.angles.wrong, WRONG, "wrong classes")
    _bars(axes[3], one.angles.correct, RIGHT, "correct class")
    for axis in axes[2:]:
        axis.set_xlim(-1, 1)


def _bars(axis: "Axes", values: Distribution, colour: str, label: str = "_") -> None:
    """A histogram of area 1 of the bins that hold something, neighbours joined until there are few enough.

    Few enough is twice the cube root of the count (Rice's rule): what more bars would show is noise.
    """
    counts, edges = values.counts.numpy(), values.edges.numpy()
    if not values.count:
        return
    filled = np.flatnonzero(counts)
    most = min(max(2 * values.count ** (1 / 3), FEWEST), MOST)
    while filled[-1] - filled[0] >= most:
        counts, edges = counts.reshape(-1, 2).sum(1), edges[::2]
        filled = np.flatnonzero(counts)
    first, last = filled[0], filled[-1] + 1
    density = counts[first:last] / values.count / (edges[1] - edges[0])
    axis.stairs(density, edges[first : last + 1], fill=True, color=colour, alpha=0.45, label=label)
    axis.stairs(density, edges[first : last + 1], color=colour, linewidth=0.8)
    axis.axvline(values.mean, 0, TOP, color=colour, linewidth=1.0, linestyle="--")
    axis.axvline(0, 0, TOP, color=INK, linewidth=0.6)
    axis.set_yticks([])
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right", "left"]].set_visible(False)
