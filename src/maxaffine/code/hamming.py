"""Eq. 15: two signals are as far apart as the share of units whose pieces differ."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from maxaffine.code.value import Code, index_of, same_signature
from maxaffine.errors import InputError
from maxaffine.types import Names, flat


def distance(
    p: Code,
    q: Code,
    operators: Names | None = None,
    weights: Mapping[str, float] | Sequence[float] | None = None,
) -> Tensor:
    """Eq. 15: the fraction of units whose piece differs, row by row; (N,), float64, 0 to 1.

        d(p, q) = 1 - (1/D) sum_k 1{p_k = q_k}      over the D units of the operators asked for

    Several operators: all units count alike, or sum_l w_l d_l / sum_l w_l with one weight an operator. A code of
    length 1 is compared with every row. Raises InputError when the structures differ.
    Source: Balestriero & Baraniuk 2018, arXiv 1805.06576, section 5.

    >>> import torch, maxaffine as ma
    >>> spline = ma.Spline(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.ReLU()), torch.zeros(1, 4))
    >>> code = spline.code(torch.tensor([[1.0, 1, 1, 1], [1, 1, 1, -1]]))
    >>> ma.distance(code, code[0]).tolist()
    [0.0, 0.25]
    """
    same_signature(p, q)
    total: Tensor | float = 0.0
    for i, weight in _weighted(p, operators, weights):
        total = total + weight * flat(p.values[i] != q.values[i]).double().mean(1)
    return torch.as_tensor(total)


def pairwise_distance(
    p: Code,
    q: Code,
    operators: Names | None = None,
    weights: Mapping[str, float] | Sequence[float] | None = None,
) -> Tensor:
    """Eq. 15 for every pair of rows: (N, M), float64; see `distance`."""
    same_signature(p, q)
    total = torch.zeros(len(p), len(q), dtype=torch.float64)
    for i, weight in _weighted(p, operators, weights):
        a, b = flat(p.values[i]), flat(q.values[i])
        total += weight * (1 - _agreements(a, b, p.signature[i].pieces).cpu().double() / a.shape[1])
    return total


def _agreements(a: Tensor, b: Tensor, pieces: int) -> Tensor:
    """Number of equal units of every pair, as a sum over pieces of products of indicators (exact: counts < 2^24)."""
    if a.shape[1] >= 2**24:
        raise InputError(f"{a.shape[1]} units are too many for exact counts; take the operators in parts")
    if pieces == 2:
        x, y = a.float() * 2 - 1, b.float() * 2 - 1
        return (x @ y.T + a.shape[1]) / 2
    total = torch.zeros(len(a), len(b), device=a.device)
    for r in range(pieces):
        total += (a == r).float() @ (b == r).float().T
    return total


def _weighted(
    code: Code, operators: Names | None, weights: Mapping[str, float] | Sequence[float] | None
) -> Iterator[tuple[int, float]]:
    names = (
        [u.name for u in code.signature]
        if operators is None
        else [operators]
        if isinstance(operators, str)
        else list(operators)
    )
    places = [index_of(code, name) for name in names]
    if not places:
        raise InputError("a distance needs at least one spline operator")
    units = [max(1, code.values[i][0:1].numel()) if len(code) else 1 for i in places]
    if weights is None:
        values = [float(u) for u in units]
    else:
        values = [float(weights[n]) for n in names] if isinstance(weights, Mapping) else [float(w) for w in weights]
    if len(values) != len(places) or min(values) < 0 or sum(values) <= 0:
        raise InputError(f"{len(places)} operators need as many weights >= 0 with a positive sum, got {values}")
    return iter([(i, w / sum(values)) for i, w in zip(places, values, strict=True)])
