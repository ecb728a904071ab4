"""Training with non-negative weights, so that a network stays convex in its input (input-convex networks).

Theorem 2: weights >= 0 from the second layer on, convex non-decreasing activations, max or average pooling.
Nothing here is a proof: after training, `is_convex` certifies the network that came out.
"""

from collections.abc import Collection, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize

from maxaffine.errors import InputError

RANGES: dict[type[nn.Module], tuple[float, float | None]] = {
    nn.Linear: (0.0, None),
    _ConvNd: (0.0, None),
    _BatchNorm: (0.0, None),
    nn.PReLU: (0.0, 1.0),  # convex and non-decreasing
}
"""Kind of module -> the interval that its `weight` must stay in."""


def constrained(
    model: nn.Module, skip: Collection[str] | None = None
) -> Iterator[tuple[str, nn.Module, Tensor, float | None]]:
    """(path, module, weight, upper limit) of the modules whose weight must be >= 0: all but the skipped ones.

    skip: paths of the modules that see the input directly and may have any sign; by default the first linear
    or convolutional module.
    """
    kinds = [
        (path, module, kind) for path, module in model.named_modules() for kind in RANGES if isinstance(module, kind)
    ]
    paths = [path for path, _, kind in kinds if kind in (nn.Linear, _ConvNd)]
    skipped = paths[:1] if skip is None else list(skip)
    if unknown := [path for path in skipped if path not in {path for path, _, _ in kinds}]:
        raise InputError(f"skip: {unknown[0]!r} has no weight to constrain: there are {[p for p, _, _ in kinds]}")
    for path, module, kind in kinds:
        if path not in skipped and isinstance(module.weight, Tensor):
            yield path, module, module.weight, RANGES[kind][1]


@torch.no_grad()
def project_nonnegative(model: nn.Module, *, skip: Collection[str] | None = None) -> tuple[str, ...]:
    """Clamp, in place, every weight that Theorem 2 wants non-negative; call it after each optimiser step.

    W <- max(W, 0) for linear, convolutional and batch norm modules outside `skip`; PReLU: [0, 1].

    Returns:
        The paths of the constrained modules.

    Raises:
        InputError: a path in skip that does not exist, or a weight that is parametrized (it would not stay).

    >>> net = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1))
    >>> project_nonnegative(net), bool((net[2].weight >= 0).all())
    (('2',), True)

    Source: Amos, Xu and Kolter, Input convex neural networks, 2017, arXiv 1609.07152.
    """
    paths = []
    for path, module, weight, top in constrained(model, skip):
        if parametrize.is_parametrized(module, "weight"):
            raise InputError(f"project_nonnegative: {path}.weight is parametrized: a projection would be lost")
        weight.clamp_(min=0.0, max=top)
        paths.append(path)
    return tuple(paths)


class Softplus(nn.Module):
    """weight = log(1 + exp(v)) > 0; assigning a weight w makes it |w| (at least 1e-6)."""

    def forward(self, v: Tensor) -> Tensor:
        """The positive weight of the free parameter v."""
        return nn.functional.softplus(v)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The v of |weight|: w + log(1 - exp(-w))."""
        w = weight.abs().clamp(min=1e-6)
        return w + torch.log(-torch.expm1(-w))


def parametrize_nonnegative(model: nn.Module, *, skip: Collection[str] | None = None) -> tuple[str, ...]:
    """Make each weight that Theorem 2 wants non-negative the softplus of a parameter (torch's parametrize).

    The new weights start as the absolute values of the old ones. PReLU slopes, which have an upper limit too,
    are left to `project_nonnegative`. torch.nn.utils.parametrize.remove_parametrizations undoes it.

    Returns:
        The paths of the constrained modules.

    Raises:
        InputError: a path in skip that does not exist.

    >>> net = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1))
    >>> parametrize_nonnegative(net), bool((net[2].weight > 0).all())
    (('2',), True)

    Source: Balestriero and Baraniuk, 2018, arXiv 1805.06576 (softplus weights in the authors' code).
    """
    paths = []
    for path, module, _, top in list(constrained(model, skip)):
        if top is None:
            parametrize.register_parametrization(module, "weight", Softplus())
            paths.append(path)
    return tuple(paths)
