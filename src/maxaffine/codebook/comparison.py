"""Two networks, two epochs or two depths compared by how they quantise the same inputs."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maxaffine import arguments
from maxaffine.code import Code
from maxaffine.codebook.grouping import clusters as cut
from maxaffine.codebook.library import library
from maxaffine.codebook.occupied import CODES, cells, depths_of
from maxaffine.codebook.pairs import PAIRS, between, pairs_of, rank_correlation
from maxaffine.errors import InputError
from maxaffine.types import Names

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Comparison:
    """How alike the partitions of two networks are on the same inputs, for every pair of depths.

    first (P,) and second (Q,): names of operators. rand (P, Q): adjusted Rand index of the groups of inputs, 1 for the
    same groups, 0 for chance. information (P, Q): their normalised mutual information, 0 to 1, not corrected for
    chance. correlation (P, Q): rank correlation of the two code distances over pairs of inputs. groups: the number of
    groups at each depth, (P,) and (Q,).

    With as many groups as inputs, every cell holding one of them, rand and information say nothing (1 by convention
    for two such partitions): then compare clusters, or the correlation.
    """

    first: tuple[str, ...]
    second: tuple[str, ...]
    rand: Floats
    information: Floats
    correlation: Floats
    groups: tuple[NDArray[np.int64], NDArray[np.int64]]


def compare(
    p: Code,
    q: Code,
    operators: tuple[Names | None, Names | None] = (None, None),
    *,
    clusters: int | None = None,
    pairs: int = PAIRS,
    seed: int = 0,
) -> Comparison:
    """Compare the codes p and q that two networks give to the same inputs in the same order, depth against depth.

    operators: the names of either side (default: all). Groups are the cells; with clusters=c the c clusters of average
    linkage, which still say something where each input has a cell of its own. Permuting units or scaling them by
    positive factors changes nothing. pairs: how many pairs of inputs the correlation uses, drawn at random.

    Raises InputError for different numbers of inputs, MissingExtraError without scikit-learn.

    >>> import torch, maxaffine as ma
    >>> relu = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.ReLU())
    >>> x = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    >>> code, mirrored = (ma.Spline(relu, x).code(s * x) for s in (1, -1))
    >>> found = compare(code, mirrored)
    >>> found.rand.tolist(), found.groups[0].tolist()
    ([[1.0]], [4])
    """
    for name, code in (("p", p), ("q", q)):
        arguments.require(code, Code, name, CODES)
    if len(p) != len(q) or len(p) < 3:
        raise InputError(f"the codes are of {len(p)} and {len(q)} inputs; give those of the same inputs, at least 3")
    if not isinstance(operators, tuple) or len(operators) != 2:
        raise InputError(f"operators is {arguments.told(operators)}; give a pair, the names of p and those of q")
    scores = library("sklearn.metrics", "the comparison of partitions")
    names = tuple(tuple(depths_of(code, chosen)) for code, chosen in zip((p, q), operators, strict=True))
    groups = [
        [cells(code, name) if clusters is None else cut(code, clusters, name) for name in side]
        for code, side in zip((p, q), names, strict=True)
    ]
    chosen = pairs_of(len(p), arguments.whole(pairs, "pairs", 2), arguments.whole(seed, "seed", 0))
    apart = [between(code, chosen, list(side)) for code, side in zip((p, q), names, strict=True)]
    tables = [
        np.array([[score(a, b) for b in groups[1]] for a in groups[0]])
        for score in (
            scores.adjusted_rand_score,
            scores.normalized_mutual_info_score,
        )
    ]
    correlation = np.array([[rank_correlation(a, b) for b in apart[1]] for a in apart[0]])
    counts = tuple(np.array([group.max() + 1 for group in side]) for side in groups)
    return Comparison(names[0], names[1], tables[0], tables[1], correlation, (counts[0], counts[1]))
