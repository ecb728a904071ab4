"""A line partition as curves: the outputs along a segment, bent at the knots and nowhere else."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from maxaffine.errors import InputError
from maxaffine.plot.library import INK, pyplot
from maxaffine.tiling.palette import CLASS_HUES, oklch

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from maxaffine.geometry.line import LinePartition

MOST = 10  # outputs drawn unless said otherwise


def line(partition: "LinePartition", outputs: Sequence[int] | None = None, *, ax: "Axes | None" = None) -> "Axes":
    """Draw the outputs f(x0 + tau (x1 - x0)) over tau in [0, 1], exactly, with a tick at each knot.

    outputs: numbers of flat outputs (default: all, or of more than ten those that are the largest somewhere).

    Raises:
        InputError: an output that does not exist.
        MissingExtraError: matplotlib is not installed.
    """
    A, b = (np.asarray(m).reshape(len(partition.knots) + 1, -1) for m in (partition.A, partition.b))
    tau = np.concatenate([[0.0], partition.knots, [1.0]])
    piece = np.minimum(np.arange(len(tau)), len(A) - 1)
    values = b[piece] + tau[:, None] * A[piece]
    chosen = _chosen(values) if outputs is None else list(outputs)
    if not chosen or not all(0 <= k < A.shape[1] for k in chosen):
        raise InputError(f"outputs {chosen}: the network has outputs 0 to {A.shape[1] - 1}")
    axis = pyplot().subplots(figsize=(7.2, 3.8), layout="constrained")[1] if ax is None else ax
    for place, k in enumerate(chosen):
        colour = oklch(0.62, 0.14, CLASS_HUES[place % len(CLASS_HUES)])[0] / 255
        axis.plot(tau, values[:, k], color=colour, linewidth=1.6, label=f"output {k}")
    _knots(axis, partition.knots)
    axis.set_xlim(0, 1)
    axis.set_xlabel(f"τ along x0 + τ (x1 - x0): {len(partition.knots):,} knots")
    axis.set_ylabel("output" if len(chosen) > 1 else f"output {chosen[0]}")
    axis.spines[["top", "right"]].set_visible(False)
    if len(chosen) > 1:
        axis.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    return axis


def _chosen(values: np.ndarray) -> list[int]:
    """All outputs, or those that are the largest somewhere."""
    if values.shape[1] <= MOST:
        return list(range(values.shape[1]))
    names, counts = np.unique(values.argmax(1), return_counts=True)
    return sorted(names[(-counts).argsort(kind="stable")][:MOST].tolist())


def _knots(axis: "Axes", knots: np.ndarray) -> None:
    """Ticks along the lower edge, paler where there are many."""
    alpha = float(np.clip(60 / max(len(knots), 1), 0.15, 0.8))
    axis.vlines(knots, 0, 0.045, transform=axis.get_xaxis_transform(), color=INK, linewidth=0.8, alpha=alpha)
