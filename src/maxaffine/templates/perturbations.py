"""Steps from a signal along its templates: what the affine map predicts, what the network does, and when they agree."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from maxaffine import arguments
from maxaffine.errors import InputError
from maxaffine.spline import Spline


@dataclass(frozen=True, eq=False)
class Perturbation:
    """N signals, each moved by K steps delta: what was predicted and what happened.

    points: (N, K, *in) x + delta; predicted: (N, K, C) <A_c, delta>; actual: (N, K, C) f(x + delta) - f(x); stayed:
    (N, K) bool, whether the point lies in the region of x. There the two changes are equal, up to rounding.
    """

    points: Tensor
    predicted: Tensor
    actual: Tensor
    stayed: Tensor


def perturbation(spline: Spline, x: Tensor, delta: Tensor) -> Perturbation:
    """The change of the outputs for steps delta (N, K, *in) from signals x (N, *in), to first order and truly.

    Raises InputError when the shapes do not fit, MemoryBudgetError when the templates do not.

    >>> import torch, maxaffine as ma
    >>> spline = ma.Spline(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.ReLU()), torch.zeros(1, 1))
    >>> found = perturbation(spline, torch.tensor([[1.0]]), torch.tensor([[[-0.5], [-3.0]]]))
    >>> found.stayed.tolist(), found.predicted.flatten().tolist(), found.actual.flatten().tolist()
    ([[True, False]], [-0.5, -3.0], [-0.5, -1.0])
    """
    arguments.require(spline, Spline, "spline", "a maxaffine.Spline of the network")
    arguments.values(x, "x", "signals (N, *in)")
    arguments.values(delta, "delta", "steps (N, K, *in)")
    if delta.dim() != x.dim() + 1 or delta.shape[:1] != x.shape[:1] or delta.shape[2:] != x.shape[1:]:
        raise InputError(f"steps of shape {tuple(delta.shape)} for x {tuple(x.shape)}; give (N, K, *in)")
    count, steps = delta.shape[:2]
    A, points = spline.at(x).A.reshape(count, -1, x[0].numel()), x.unsqueeze(1) + delta
    moved, code = points.flatten(0, 1), spline.code(x)
    repeated = code[torch.arange(count).repeat_interleave(steps)]
    actual = spline(moved).reshape(count, steps, -1) - spline(x).reshape(count, 1, -1)
    # <A, delta> of the step that was really taken: x + delta is rounded
    predicted = (points - x.unsqueeze(1)).flatten(2) @ A.mT
    return Perturbation(points, predicted, actual, (spline.code(moved) == repeated).reshape(count, steps))


def sign_perturbation(
    spline: Spline, x: Tensor, epsilon: float, classes: Sequence[int] | Tensor | None = None
) -> Perturbation:
    """Steps epsilon sign(A_c) from each signal, one a class (default: all C, the K steps in their order).

    Of all steps with |delta|_inf <= epsilon this one raises score c most inside the region: by epsilon |A_c|_1; a
    negative epsilon lowers it. Where a template is 0 the input is not moved.
    Raises InputError for an epsilon that is 0, NaN or infinite, and see `perturbation`.
    Source: Goodfellow et al. 2014, arXiv 1412.6572; per template in Balestriero & Baraniuk's experiments.

    >>> import torch, maxaffine as ma
    >>> net = torch.nn.Sequential(torch.nn.Linear(3, 2))
    >>> found = sign_perturbation(ma.Spline(net, torch.zeros(1, 3)), torch.zeros(1, 3), 0.1)
    >>> bool((found.predicted[0, 0, 0] - 0.1 * net[0].weight[0].abs().sum()).abs() < 1e-6)
    True
    """
    if not arguments.is_number(epsilon) or epsilon == 0:
        raise InputError(f"epsilon={arguments.told(epsilon)}; a finite step that is not 0 is needed")
    f = spline.at(x)
    rows = f.A.reshape(len(x), -1, *f.in_shape) if classes is None else f.rows(classes)
    return perturbation(spline, x, epsilon * rows.sign())
