"""Eq. 15: two signals are as far apart as the share of units whose pieces differ."""

from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from math import prod

import torch
from torch import Tensor

from maxaffine import arguments
from maxaffine.code.value import Code, index_of, rows_of, same_signature
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
    rows = torch.zeros(rows_of(p, q), dtype=torch.float64, device="cpu")
    for places, weight in _groups(p, operators, weights):
        differ = sum(flat(p.values[i] != q.values[i]).sum(1).cpu() for i in places)
        rows += weight * (torch.as_tensor(differ, device="cpu").double() / _units(p, places))
    return rows


def pairwise_distance(
    p: Code,
    q: Code,
    operators: Names | None = None,
    weights: Mapping[str, float] | Sequence[float] | None = None,
) -> Tensor:
    """Eq. 15 for every pair of rows: (N, M), float64; see `distance`.

    On the CPU by population counts of packed bits, on other devices by products of indicator matrices.
    """
    return torch.cat([part for _, part in distance_chunks(p, q, operators, weights, max(1, len(p)))])


def distance_chunks(
    p: Code,
    q: Code,
    operators: Names | None = None,
    weights: Mapping[str, float] | Sequence[float] | None = None,
    rows: int = 512,
) -> Iterator[tuple[slice, Tensor]]:
    """The rows of `pairwise_distance`, so many at a time: which rows of p, and their distances to all of q.

    The codes of q are prepared once. Raises InputError like `distance`, when the first chunk is asked for.
    """
    same_signature(p, q)
    groups = _groups(p, operators, weights)
    every = p.values[0].device.type == q.values[0].device.type == "cpu"
    add = [(_by_bits if every else _by_products)(p, q, places, _units(p, places) / weight) for places, weight in groups]
    for start in range(0, max(1, len(p)), rows):
        chunk = slice(start, min(start + rows, len(p)))
        total = torch.zeros(chunk.stop - start, len(q), dtype=torch.float64, device="cpu")
        for group in add:
            group(chunk, total)
        yield chunk, total


def _by_bits(p: Code, q: Code, places: Sequence[int], scale: float) -> Callable[[slice, Tensor], None]:
    from maxaffine.code.popcount import all_pairs, planes

    pieces = [p.signature[i].pieces for i in places]
    (a, widths), (b, _) = (planes([flat(c.values[i]).numpy() for i in places], pieces) for c in (p, q))
    return lambda rows, total: all_pairs(a[rows], b, widths, scale, total.numpy())


def _by_products(p: Code, q: Code, places: Sequence[int], scale: float) -> Callable[[slice, Tensor], None]:
    def add(rows: slice, total: Tensor) -> None:
        pairs = ((flat(p.values[i][rows]), flat(q.values[i]), p.signature[i].pieces) for i in places)
        total += (_units(p, places) - sum(_agreements(*pair) for pair in pairs)) / scale

    return add


def _agreements(a: Tensor, b: Tensor, pieces: int) -> Tensor:
    """Number of equal units of every pair, as a sum over pieces of products of indicators (exact: counts < 2^24)."""
    if a.shape[1] >= 2**24:
        raise InputError(f"{a.shape[1]} units are too many for exact counts; take the operators in parts")
    if pieces == 2:
        x, y = a.float() * 2 - 1, b.float() * 2 - 1
        return ((x @ y.T + a.shape[1]) / 2).cpu().double()
    total = torch.zeros(len(a), len(b), device=a.device)
    for r in range(pieces):
        total += (a == r).float() @ (b == r).float().T
    return total.cpu().double()


def _units(code: Code, places: Sequence[int]) -> int:
    return max(1, sum(prod(code.signature[i].shape) for i in places))


def _groups(
    code: Code, operators: Names | None, weights: Mapping[str, float] | Sequence[float] | None
) -> list[tuple[list[int], float]]:
    """Operators whose units count alike, and the weight of each group; the weights sum to 1."""
    every = [units.name for units in code.signature]
    names = every if operators is None else arguments.names(operators, "operators")
    places = [index_of(code, name) for name in names]
    if not places:
        raise InputError("a distance needs at least one spline operator")
    if weights is None:
        return [(places, 1.0)]
    listed = isinstance(weights, Sized) and not isinstance(weights, str) and len(weights) == len(places)
    if not (set(weights) == set(names) if isinstance(weights, Mapping) else listed):
        raise InputError(f"weights are {weights!s:.200}; give one for each of the operators {names}")
    given = [weights[n] for n in names] if isinstance(weights, Mapping) else weights
    values = [arguments.number(w, f"the weight of {n}", 0) for n, w in zip(names, given, strict=True)]
    if not sum(values) > 0:
        raise InputError(f"the weights {values} sum to 0; give at least one that is positive")
    return [([i], w / sum(values)) for i, w in zip(places, values, strict=True) if w > 0]
