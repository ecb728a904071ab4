"""How many cells there can be, how many walls lie between two inputs, and code distance against Euclidean distance."""

from dataclasses import dataclass
from math import comb
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maxaffine import arguments
from maxaffine.code import Code, distance
from maxaffine.codebook.library import library
from maxaffine.codebook.occupied import depths_of
from maxaffine.errors import InputError
from maxaffine.geometry import partition
from maxaffine.slice import Segment
from maxaffine.spline import Spline
from maxaffine.types import Names, flat

PAIRS = 10_000  # compared unless said otherwise
Floats = NDArray[np.float64]


def arrangement_bound(units: int, dimension: int) -> int:
    """The most cells that n hyperplanes cut R^d into, sum_{i <= d} C(n, i): what one layer of n ReLUs can do.

    Reached by hyperplanes in general position. More cells than that no data set can occupy; of a deeper network the
    bound of each layer counts within one cell of the layers before it.
    Source: Zaslavsky 1975; Balestriero & Baraniuk 2018, arXiv 1805.06576, section 5.

    >>> arrangement_bound(7, 2), arrangement_bound(3, 10)
    (29, 8)
    """
    n, d = arguments.whole(units, "units", 0), arguments.whole(dimension, "dimension", 0)
    return sum(comb(n, i) for i in range(min(n, d) + 1))


@dataclass(frozen=True, eq=False)
class Crossings:
    """Walls crossed on the straight way between inputs: counts (N, L) by operator, and cells (N,) passed through.

    A unit that goes there and back counts twice, so a count is at least the number of units in which the two codes
    differ (the code distance times the units), and of the same parity where every unit has two pieces.
    """

    operators: tuple[str, ...]
    counts: NDArray[np.int64]
    cells: NDArray[np.int64]


def crossings(spline: Spline, x0: Tensor, x1: Tensor) -> Crossings:
    """How many boundaries of units lie between x0 and x1 (N, *in), exactly, by the partition of the segment.

    Raises DegenerateSliceError for a segment inside a wall, NotPiecewiseAffineError, InputError.
    Source: Black et al. 2022, arXiv 2211.12312 (boundary density between two inputs).

    >>> import torch, maxaffine as ma
    >>> spline = ma.Spline(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.ReLU()), torch.zeros(1, 2))
    >>> found = crossings(spline, torch.tensor([[-1.0, -1]]), torch.tensor([[3.0, 1]]))
    >>> found.counts.tolist(), found.cells.tolist()
    ([[2]], [3])
    """
    arguments.require(spline, Spline, "spline", "maxaffine.Spline(model, example)")
    for name, x in (("x0", x0), ("x1", x1)):
        arguments.rows(x, name, spline.in_shape, spline.dtype, spline.device, "the spline")
    if len(x0) != len(x1):
        raise InputError(f"x0 has {len(x0)} inputs and x1 {len(x1)}; give as many ends as beginnings")
    lines = partition(spline, [Segment(a, b) for a, b in zip(x0, x1, strict=True)])
    names = tuple(operator.name for operator in spline.operators)
    counts = [np.bincount(line.switches.operator, minlength=len(names)) for line in lines]
    return Crossings(names, np.stack(counts), np.array([len(line) for line in lines]))


@dataclass(frozen=True, eq=False)
class AgainstEuclidean:
    """Code distance against Euclidean distance for P pairs of inputs.

    pairs (P, 2) rows; euclidean (P,); codes (depths, P) of Eq. 15; correlations (depths,) of the ranks (Spearman), NaN
    where a depth puts all pairs at one distance.
    """

    depths: tuple[str, ...]
    pairs: NDArray[np.int64]
    euclidean: Floats
    codes: Floats
    correlations: Floats


def against_euclidean(
    code: Code, x: Tensor, operators: Names | None = None, *, pairs: int = PAIRS, seed: int = 0
) -> AgainstEuclidean:
    """Does the code distance rank pairs of inputs like the Euclidean distance of x (N, *in)? One number a depth.

    pairs: how many are drawn at random (all of them if there are not more). Raises InputError, MissingExtraError.
    """
    arguments.floats(x, "x", "the inputs of the codes")
    if len(x) != len(code) or len(x) < 3:
        raise InputError(f"x has {len(x)} inputs and there are {len(code)} codes; give those of the codes, at least 3")
    names, chosen = depths_of(code, operators), pairs_of(len(code), arguments.whole(pairs, "pairs", 2), seed)
    first, second = torch.from_numpy(chosen).unbind(1)
    rows = flat(x.detach().cpu())
    ends = zip(first.split(4096), second.split(4096), strict=True)
    parts = [(rows[i].double() - rows[j].double()).norm(dim=1) for i, j in ends]
    euclidean = torch.cat(parts).numpy()
    codes = between(code, chosen, names)
    return AgainstEuclidean(
        tuple(names), chosen, euclidean, codes, np.array([rank_correlation(row, euclidean) for row in codes])
    )


def pairs_of(count: int, most: int, seed: int) -> NDArray[np.int64]:
    """Different pairs i < j of rows, (P, 2): all, or `most` of them drawn at random."""
    total = count * (count - 1) // 2
    if total <= most:
        return np.stack(np.triu_indices(count, 1), 1)
    number = np.random.default_rng(seed).choice(total, most, replace=False, shuffle=False)
    number.sort()
    ends = np.cumsum(np.arange(count - 1, 0, -1, dtype=np.int64))
    first = np.searchsorted(ends, number, side="right")
    return np.stack([first, number - ends[first] + count], 1)


def between(code: Code, pairs: NDArray[np.int64], operators: list[str]) -> Floats:
    """(depths, P): the code distance of pairs of rows at each operator."""
    found: list[list[Tensor]] = [[] for _ in operators]
    for part in torch.from_numpy(pairs).split(4096):
        p, q = (_rows(code, rows) for rows in part.unbind(1))
        for place, name in enumerate(operators):
            found[place].append(distance(p, q, name))
    return np.stack([torch.cat(row).numpy() for row in found])


def _rows(code: Code, rows: Tensor) -> Any:
    return code[rows]


def rank_correlation(a: Floats, b: Floats) -> float:
    """Spearman's; NaN where one side is constant (SciPy would warn)."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(library("scipy.stats", "a rank correlation").spearmanr(a, b).statistic)
