"""White Gaussian noise on the input: what the theory of matched filters predicts, and what happens.

Inside the region of x the noise n ~ N(0, sigma^2 I) moves score_y - score_c by <A_y - A_c, n>, which is normal with
standard deviation sigma |A_y - A_c|. So class c overtakes y with probability Q((s_y - s_c) / (sigma |A_y - A_c|)).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from maxaffine import arguments
from maxaffine.errors import InputError
from maxaffine.spline import Spline
from maxaffine.templates.bank import Templates, checked_labels, correct, templates

DRAWN_BYTES = 16 * 2**20  # of noisy inputs at a time


def pairwise_error(bank: Templates, sigma: float, labels: Tensor | Sequence[int] | None = None) -> Tensor:
    """(N, C): the probability that white noise of that deviation lifts class c over y, with the map A, b frozen.

        Q((s_y - s_c) / (sigma |A_y - A_c|)),      Q(z) = P(N(0, 1) > z)

    y: the labels, or the winning classes; its own entry is 0. Equal templates: 0 or 1 by the sign of the gap, 1/2 for a
    tie. The sum over c bounds the probability of any error from above. Raises InputError unless 0 < sigma < inf.
    Source: Van Trees 1968, "Detection, Estimation, and Modulation Theory" I, section 2.6.

    >>> A, b = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]]), torch.zeros(1, 2)
    >>> pairwise_error(Templates(A, b, torch.tensor([[1.0, 0.0]]), torch.arange(2)), sigma=1.0)
    tensor([[0.0000, 0.1587]])
    """
    _check_sigma(sigma)
    arguments.require(bank, Templates, "bank", "what maxaffine.templates.templates returns")
    y = bank.scores.argmax(1) if labels is None else checked_labels(labels, *bank.b.shape).to(bank.b.device)
    gap = correct(bank.scores, y).unsqueeze(1) - bank.scores
    lengths = torch.linalg.vector_norm((correct(bank.A, y).unsqueeze(1) - bank.A).flatten(2), dim=2)
    z = torch.where((gap == 0) & (lengths == 0), 0, gap / (sigma * lengths))
    own = torch.arange(bank.b.shape[1], device=y.device) == y.unsqueeze(1)
    return torch.special.ndtr(-z).masked_fill(own, 0)


@dataclass(frozen=True, eq=False)
class NoisyErrors:
    """Shares of noise draws in which class c overtakes y, (C,) each; error bars are sqrt(p (1 - p) / draws).

    predicted: by `pairwise_error`; frozen: of draws, with the map of x frozen; network: of the same draws, by the
    network itself; stayed: the share of draws that stayed in the region of x, where the last two agree. A tie counts
    half, as in the prediction: two classes of a dead network are always equal.
    """

    label: int
    predicted: Tensor
    frozen: Tensor
    network: Tensor
    stayed: float
    draws: int


def noisy_errors(
    spline: Spline,
    x: Tensor,
    sigma: float,
    draws: int = 10_000,
    label: int | None = None,
    generator: torch.Generator | None = None,
) -> NoisyErrors:
    """The prediction of `pairwise_error` against Monte Carlo, for one signal x (*in).

    label: the class y (default: the one the network chooses). Raises InputError for a shape, sigma, label or number of
    draws that does not fit.

    >>> import torch, maxaffine as ma
    >>> spline = ma.Spline(torch.nn.Sequential(torch.nn.Linear(2, 2)), torch.zeros(1, 2))  # one region
    >>> found = noisy_errors(spline, torch.ones(2), sigma=1.0, draws=4000)
    >>> found.stayed, bool((found.predicted - found.network).abs().max() < 0.05)
    (1.0, True)
    """
    _check_sigma(sigma)
    arguments.require(spline, Spline, "spline", "a maxaffine.Spline of the network")
    if generator is not None:
        arguments.require(generator, torch.Generator, "generator", "a torch.Generator or None")
    draws = arguments.whole(draws, "draws")
    if tuple(arguments.values(x, "x", f"one point of shape {spline.in_shape}").shape) != spline.in_shape:
        raise InputError(f"one point of shape {spline.in_shape} is needed; got {tuple(x.shape)}")
    point = x.detach().unsqueeze(0)
    bank, code = templates(spline.at(point), point), spline.code(point)
    y = int(bank.scores[0].argmax()) if label is None else int(checked_labels([label], *bank.b.shape)[0])
    frozen, network, stayed = torch.zeros_like(bank.b[0]), torch.zeros_like(bank.b[0]), 0
    for count in _portions(draws, max(1, DRAWN_BYTES // (x.numel() * x.element_size()))):
        noise = torch.randn(count, *x.shape, generator=generator, dtype=x.dtype, device=x.device)
        noisy = point + sigma * noise
        frozen += _overtaken(spline.replay(code, noisy).flatten(1), y)
        network += _overtaken(spline(noisy).flatten(1), y)
        stayed += int((spline.code(noisy) == code).sum())
    predicted = pairwise_error(bank, sigma, [y])[0]
    return NoisyErrors(y, predicted, frozen / draws, network / draws, stayed / draws, draws)


def _portions(total: int, most: int) -> list[int]:
    return [min(most, total - start) for start in range(0, total, most)]


def _overtaken(scores: Tensor, y: int) -> Tensor:
    """(C,): in how many rows each class is above y; where the two are equal, in half a row."""
    own = scores[:, y : y + 1]
    found = (scores > own).sum(0) + (scores == own).sum(0) / 2
    found[y] = 0
    return found


def _check_sigma(sigma: float) -> None:
    if not (arguments.is_number(sigma) and sigma > 0):
        raise InputError(f"sigma={arguments.told(sigma)}; a positive finite standard deviation is needed")
