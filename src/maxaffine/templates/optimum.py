"""The templates that would be best under a norm budget: copies of the input itself (memorization), Proposition 5.5.

Minimise the cross-entropy of scores <A_c, x> over all A with sum_c |A_c|^2 <= alpha. Only the components along x act,
so A_c = k_c x/|x|, scores k_c |x|, and the budget is sum_c k_c^2 <= alpha. The loss is convex and symmetric in the
wrong classes, hence their k are equal; the softmax does not see a common shift, so the k sum to 0, which costs least:

    k_y = sqrt((C-1) alpha / C),   k_c = -sqrt(alpha / (C (C-1))),   gap = |x| (k_y - k_c) = |x| sqrt(alpha C / (C-1))

Source: Balestriero & Baraniuk 2018, arXiv 1805.06576, section 5, Proposition 5.5 (there |x| = 1).
"""

from collections.abc import Sequence
from math import isfinite

import torch
from torch import Tensor

from maxaffine.arguments import is_number, require, told, values
from maxaffine.errors import InputError
from maxaffine.templates.bank import Templates, checked_labels


def optimal_scores(classes: int, alpha: float | Tensor = 1.0, norm: float | Tensor = 1.0) -> tuple[Tensor, Tensor]:
    """Scores (correct, wrong) of the optimal templates of C classes for an input of length norm and the budget alpha.

    Tensors alpha and norm broadcast; numbers give float64. Raises InputError for fewer than 2 classes, alpha <= 0 or
    norm <= 0.

    >>> [round(score.item(), 6) for score in optimal_scores(10)]
    [0.948683, -0.105409]
    """
    if not isinstance(classes, int) or classes < 2:
        raise InputError(f"classes={told(classes)}; optimal templates need at least 2")
    budget, length = _positive(alpha, "alpha"), _positive(norm, "norm")
    right = ((classes - 1) / classes * budget).sqrt() * length
    return right, -(budget / (classes * (classes - 1))).sqrt() * length


def optimal_gap(classes: int, alpha: float | Tensor = 1.0, norm: float | Tensor = 1.0) -> Tensor:
    """Correct minus wrong score of the optimal templates: norm sqrt(alpha C / (C - 1)). See `optimal_scores`.

    >>> round(optimal_gap(10).item(), 6)
    1.054093
    """
    right, other = optimal_scores(classes, alpha, norm)
    return right - other


def optimal_loss(classes: int, alpha: float | Tensor = 1.0, norm: float | Tensor = 1.0) -> Tensor:
    """The least cross-entropy that templates under the budget alpha reach: log(1 + (C - 1) exp(-gap)).

    >>> round(optimal_loss(10).exp().reciprocal().item(), 4)  # the probability of the correct class
    0.2417
    """
    return torch.log1p((classes - 1) * (-optimal_gap(classes, alpha, norm)).exp())


def optimal_templates(x: Tensor, labels: Tensor | Sequence[int], classes: int, alpha: float | Tensor = 1.0) -> Tensor:
    """The optimal templates (N, C, *in) of signals x (N, *in): +x/|x| for the label, -x/|x| for all others, scaled.

    alpha: the budget sum_c |A_c|^2, a number or (N,). Raises InputError for a zero signal, or see `optimal_scores`.

    >>> optimal_templates(torch.tensor([[3.0, 4.0]]), [0], classes=2, alpha=2.0)
    tensor([[[ 0.6000,  0.8000],
             [-0.6000, -0.8000]]])
    """
    if values(x, "x", "signals (N, *in)").dim() < 2 or not x.is_floating_point():
        raise InputError(f"x is {told(x)}; give floating-point signals (N, *in)")
    if isinstance(alpha, Tensor) and alpha.shape not in ((), (len(x),)):
        raise InputError(f"alpha has shape {tuple(alpha.shape)}; give a number or one for each of {len(x)} signals")
    y = checked_labels(labels, len(x), classes).to(x.device)
    lengths = torch.linalg.vector_norm(x.flatten(1), dim=1)
    if not bool(lengths.isfinite().all()):
        raise InputError("x holds NaN or infinity; give signals of finite numbers")
    if not bool((lengths > 0).all()):
        raise InputError(f"row {int(lengths.argmin())} of x is zero: it has no direction for a template")
    right, other = (score.to(x) for score in optimal_scores(classes, alpha))
    right, other = (score.reshape(-1, 1).expand(len(x), classes) for score in (right, other))
    factors = torch.where(torch.arange(classes, device=x.device) == y.unsqueeze(1), right, other)
    return (factors / lengths.unsqueeze(1)).reshape(len(x), classes, *[1] * (x.dim() - 1)) * x.unsqueeze(1)


def distance_to_optimal(
    bank: Templates, labels: Tensor | Sequence[int], alpha: float | None = None, centred: bool = False
) -> Tensor:
    """How far the templates of N signals are from the optimal ones A*: (N,), differentiable.

        alpha given:  |A - A*(alpha)|_F                    absolute, in units of a template
        alpha None:   |A - A*(|A|_F^2)|_F / |A|_F = sqrt(2 - 2 cos(A, A*))      scale-free: 0 at the optimum, sqrt(2)
                      where A and A* are orthogonal, 2 at the opposite

    centred: take the mean over the classes away first; the softmax does not see it, the budget does.
    Raises InputError for zero templates or signals and for labels that do not fit.
    """
    require(bank, Templates, "bank", "templates(f, x)")
    A = bank.A - bank.A.mean(1, keepdim=True) if centred else bank.A
    classes, energy = A.shape[1], A.flatten(1).square().sum(1)
    if alpha is not None:
        return (A - optimal_templates(bank.x, labels, classes, alpha)).flatten(1).norm(dim=1)
    if not bool((energy > 0).all()):
        raise InputError(f"the templates of row {int(energy.argmin())} are zero: they have no scale; give alpha")
    return (A - optimal_templates(bank.x, labels, classes, energy)).flatten(1).norm(dim=1) / energy.sqrt()


def _positive(value: float | Tensor, name: str) -> Tensor:
    if not isinstance(value, Tensor) and not is_number(value):
        raise InputError(f"{name}={told(value)}; a positive finite number is needed")
    number = value if isinstance(value, Tensor) else torch.tensor(float(value), dtype=torch.float64)
    if number.numel() and not (float(number.min()) > 0 and isfinite(float(number.max()))):
        raise InputError(f"{name}={value}; a positive finite number is needed")
    return number
