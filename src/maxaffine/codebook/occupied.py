"""Which inputs share a cell, and how many cells a data set occupies."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maxaffine import arguments
from maxaffine.code import Code, Signature, index_of
from maxaffine.errors import InputError
from maxaffine.types import Names

Integers = NDArray[np.int64]
STEPS = 60  # points of a curve unless they are named
CODES = "the codes of spline.code(x)"
WHOLE = "network"
"""The name of the depth at which all operators count."""


def part(code: Code, operators: Names) -> Code:
    """The code of some operators alone. Raises InputError for a name that is not there, or none at all.

    >>> import torch, maxaffine as ma
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 4), torch.nn.ReLU())
    >>> code = ma.Spline(net, torch.zeros(1, 2)).code(torch.zeros(5, 2))
    >>> part(code, "3").packed().shape, len(part(code, ["1", "3"]).signature)
    (torch.Size([5, 1]), 2)
    """
    names = arguments.names(operators, "operators")
    if not names:
        raise InputError("operators is empty; give the name of a spline operator")
    places = [index_of(code, name) for name in names]
    signature = Signature(tuple(code.signature[i] for i in places), code.signature.in_shape)
    return Code(signature, tuple(code.values[i] for i in places), len(code), code.made_by)


def depths_of(code: Code, operators: Names | None) -> list[str]:
    """The operators asked for by name, one a depth; all of them unless said otherwise."""
    every = [units.name for units in code.signature]
    names = every if operators is None else arguments.names(operators, "operators")
    if not names:
        raise InputError("the code has no spline operator to look at; a network that is affine has one cell")
    for name in names:
        index_of(code, name)
    return names


def cells(code: Code, operators: Names | None = None) -> Integers:
    """The number of each input's cell, (N,): equal for equal codes of these operators (all of them unless named).

    Cells are numbered in the order in which they first appear, so that max + 1 is their number. Inputs of one number
    are the clusters that the quantiser makes: the same affine map up to there, exactly.

    >>> import torch, maxaffine as ma
    >>> spline = ma.Spline(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.ReLU()), torch.zeros(1, 1))
    >>> cells(spline.code(torch.tensor([[1.0], [-1], [2], [-3]]))).tolist()
    [0, 1, 0, 1]
    """
    arguments.require(code, Code, "code", CODES)
    if not len(code.signature) and operators is None:
        return np.zeros(len(code), np.int64)
    return _numbers((code if operators is None else part(code, operators)).ids(), {})


def _numbers(ids: Sequence[bytes], seen: dict[bytes, int]) -> Integers:
    """Each name's number; new names are added to those seen."""
    return np.array([seen.setdefault(name, len(seen)) for name in ids], np.int64)


class Vocabulary:
    """The codewords met so far at each depth, for data that come in batches; 16 bytes a word are kept.

    >>> import torch, maxaffine as ma
    >>> spline = ma.Spline(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.ReLU()), torch.zeros(1, 1))
    >>> words = Vocabulary()
    >>> for batch in torch.tensor([[[1.0], [2]], [[-1], [3]]]):
    ...     _ = words.add(spline.code(batch))
    >>> words.total
    {'1': 2, 'network': 2}
    """

    def __init__(self) -> None:
        self._seen: dict[str, dict[bytes, int]] = {}

    def add(self, code: Code) -> dict[str, Integers]:
        """Take in a batch; the numbers of its cells by operator and for the network, going on over the batches."""
        names = {units.name: part(code, units.name).ids() for units in code.signature}
        names[WHOLE] = code.ids() if names else [b""] * len(code)
        return {depth: _numbers(ids, self._seen.setdefault(depth, {})) for depth, ids in names.items()}

    @property
    def total(self) -> dict[str, int]:
        """The number of words by depth."""
        return {depth: len(seen) for depth, seen in self._seen.items()}


@dataclass(frozen=True, eq=False)
class Occupancy:
    """How many different cells the first n inputs lie in, at each depth.

    depths: names of operators, the last one "network", all operators together. inputs: (P,) the n, increasing; cells:
    (depths, P). A row that stays equal to `inputs` has a cell for every input; one that flattens is running out.

    >>> import torch, maxaffine as ma
    >>> spline = ma.Spline(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.ReLU()), torch.zeros(1, 1))
    >>> found = occupancy(spline.code(torch.tensor([[1.0], [2], [-1], [3]])), inputs=[2, 4])
    >>> found.depths, found.cells.tolist(), found.total
    (('1', 'network'), [[1, 2], [1, 2]], {'1': 2, 'network': 2})
    """

    depths: tuple[str, ...]
    inputs: Integers
    cells: Integers

    @property
    def total(self) -> dict[str, int]:
        """Cells that all inputs together lie in, by depth."""
        return dict(zip(self.depths, self.cells[:, -1].tolist(), strict=True))


def occupancy(code: Code, operators: Names | None = None, inputs: Sequence[int] | None = None) -> Occupancy:
    """The number of occupied cells against the number of inputs, for each operator and for the whole network.

    inputs: the numbers of inputs counted after (default: some sixty, evenly spaced). Compare the curves before and
    after training on the same inputs in the same order. Raises InputError for a number outside 1 .. N.
    """
    if not len(arguments.require(code, Code, "code", CODES)):
        raise InputError("no codes are given; occupancy needs at least one")
    points = np.unique(np.linspace(1, len(code), min(STEPS, len(code))).round().astype(np.int64))
    if inputs is not None:
        points = np.array(arguments.wholes(inputs, "inputs", 1, len(code)), np.int64)
    names = depths_of(code, operators)
    numbers = [*(cells(code, name) for name in names), cells(code)]
    highest = [np.maximum.accumulate(number)[points - 1] + 1 for number in numbers]
    return Occupancy((*names, WHOLE), points, np.stack(highest))
