"""Clusters of inputs by code, and pictures of the distance in the plane: by libraries, on the distance of Eq. 15."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from maxaffine import arguments
from maxaffine.code import Code, pairwise_distance
from maxaffine.codebook.library import library
from maxaffine.errors import InputError, MemoryBudgetError, MissingExtraError
from maxaffine.types import Names

Floats = NDArray[np.float64]
Weights = Mapping[str, float] | Sequence[float] | None
MEMORY = 2**31  # bytes of a whole matrix of distances unless said otherwise
METHODS = ("tsne", "mds", "umap")


def distances(code: Code, operators: Names | None = None, weights: Weights = None, memory: int | None = None) -> Floats:
    """All distances of Eq. 15 of a data set to itself, (N, N). Raises MemoryBudgetError."""
    size, most = 8 * len(code) ** 2, arguments.budget(memory, MEMORY)
    if size > most:
        raise MemoryBudgetError(
            f"the distances of {len(code)} inputs take {size / 2**30:.1f} GiB, the budget is {most / 2**30:.1f} GiB; "
            "take fewer inputs, or give memory=bytes"
        )
    return pairwise_distance(code, code, operators, weights).numpy()


def average_linkage(
    code: Code, operators: Names | None = None, weights: Weights = None, *, memory: int | None = None
) -> Floats:
    """Average linkage of the inputs on their code distance, (N - 1, 4): what scipy.cluster.hierarchy reads.

    Raises InputError for fewer than two inputs, MemoryBudgetError, MissingExtraError without SciPy.
    """
    if len(code) < 2:
        raise InputError(f"{len(code)} codes cannot be clustered; give at least two")
    hierarchy = library("scipy.cluster.hierarchy", "average linkage")
    matrix = distances(code, operators, weights, memory)
    return hierarchy.linkage(matrix[np.triu_indices(len(code), 1)], "average")


def clusters(
    code: Code,
    count: int | None = None,
    operators: Names | None = None,
    weights: Weights = None,
    *,
    height: float | None = None,
    memory: int | None = None,
) -> NDArray[np.int64]:
    """The number of each input's cluster by average linkage, (N,): at most `count` of them, or all below a `height`.

    height: a code distance; 0 gives the inputs of one cell (see `cells`). Raises InputError unless one of both is
    given.

    >>> import torch, maxaffine as ma
    >>> spline = ma.Spline(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.ReLU()), torch.zeros(1, 3))
    >>> code = spline.code(torch.tensor([[1.0, 1, 1], [1, 1, -1], [-1, -1, -1]]))
    >>> clusters(code, 2).tolist()
    [0, 0, 1]
    """
    if (count is None) == (height is None):
        raise InputError("say how many clusters there are (count) or how far apart (height), one of both")
    tree = average_linkage(code, operators, weights, memory=memory)
    cut, at = ("distance", arguments.number(height, "height", 0)) if count is None else ("maxclust", count)
    if count is not None:
        arguments.whole(count, "count", 1, len(code))
    names = library("scipy.cluster.hierarchy", "average linkage").fcluster(tree, at, cut)
    _, first, numbers = np.unique(names, return_index=True, return_inverse=True)
    return first.argsort().argsort()[numbers].astype(np.int64)


def embedding(
    code: Code,
    method: Literal["tsne", "mds", "umap"] = "tsne",
    operators: Names | None = None,
    weights: Weights = None,
    *,
    seed: int = 0,
    memory: int | None = None,
) -> Floats:
    """Places (N, 2) of the inputs in the plane whose distances imitate the code distance: t-SNE, metric MDS or UMAP.

    What is near is near; how far apart groups are in a t-SNE or UMAP means little. The perplexity of t-SNE is 30, less
    for fewer than 91 inputs. Raises InputError for another method, MissingExtraError without scikit-learn (or UMAP).
    """
    if method not in METHODS:
        raise InputError(f"method is {arguments.told(method)}; give one of {', '.join(map(repr, METHODS))}")
    if len(code) < 4:
        raise InputError(f"{len(code)} codes make no picture; give at least four")
    matrix = distances(code, operators, weights, memory)
    return np.asarray(EMBED[method](matrix, arguments.whole(seed, "seed", 0)), np.float64)


def _tsne(matrix: Floats, seed: int) -> Floats:
    manifold = library("sklearn.manifold", "t-SNE")
    perplexity = min(30.0, (len(matrix) - 1) / 3)
    map_ = manifold.TSNE(perplexity=perplexity, metric="precomputed", init="random", random_state=seed)
    return map_.fit_transform(matrix)


def _mds(matrix: Floats, seed: int) -> Floats:
    manifold = library("sklearn.manifold", "MDS")
    map_ = manifold.MDS(
        metric="precomputed", n_init=1, init="classical_mds", random_state=seed, normalized_stress=False
    )
    return map_.fit_transform(matrix)


def _umap(matrix: Floats, seed: int) -> Floats:
    try:
        import umap  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MissingExtraError("method='umap' needs UMAP: pip install umap-learn; 'tsne' and 'mds' do not") from error
    return umap.UMAP(metric="precomputed", random_state=seed).fit_transform(matrix)


EMBED = {"tsne": _tsne, "mds": _mds, "umap": _umap}
