"""Codes as rows of bits whose Hamming distance is Eq. 15: every unit that differs costs the same number of bits.

A unit with R = 2 pieces is one bit, repeated `cost` times. A unit with more pieces is one of R words that are all
`cost` bits apart: the words of a simplex code (2^m - 1 bits, 2^(m-1) apart; R = 4: 000 101 011 110) or unit vectors
(R bits, 2 apart), repeated. The cost is the same for all units, and the one that makes the rows shortest. Three words
or more cannot be an odd number of bits apart: the sum of three distances is even.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import floor, prod

import numpy as np
from numpy.typing import NDArray

from maxaffine import arguments
from maxaffine.code import Code, Signature, index_of
from maxaffine.errors import InputError
from maxaffine.types import Names, flat

Rows = NDArray[np.uint8]
CHUNK = 2**24  # bits of rows that lie unpacked at a time, a byte each


def words(pieces: int, cost: int) -> NDArray[np.uint8]:
    """(R, n): R words of n bits, any two of which differ in `cost` bits; the shortest of both constructions.

    >>> words(4, 2).tolist()
    [[0, 0, 0], [1, 0, 1], [0, 1, 1], [1, 1, 0]]
    >>> words(2, 2).tolist(), words(9, 2).shape, words(9, 8).shape
    ([[0, 0], [1, 1]], (9, 9), (9, 15))
    """
    if pieces == 1:
        return np.zeros((1, 0), np.uint8)
    apart = _apart(pieces)
    if cost % apart or length(pieces, cost) < (2 * apart - 1) * (cost // apart):
        return np.tile(np.eye(pieces, dtype=np.uint8), cost // 2)
    simplex = np.bitwise_count(np.arange(pieces)[:, None] & np.arange(1, 2 * apart)) & 1
    return np.tile(simplex.astype(np.uint8), cost // apart)


def length(pieces: int, cost: int) -> int:
    """Bits of each of the `words`: of a simplex code where the cost allows one, of unit vectors, the less of both.

    >>> length(4, 2), length(9, 2), length(9, 8)
    (3, 9, 15)
    """
    if pieces == 1:
        return 0
    apart = _apart(pieces)
    simplex = [] if cost % apart else [(2 * apart - 1) * (cost // apart)]
    return min([*simplex, *([] if cost % 2 else [pieces * (cost // 2)])])


def _apart(pieces: int) -> int:
    """How many bits the words of the simplex code are apart, each once."""
    return 1 << ((pieces - 1).bit_length() - 1)


def costs(pieces: Sequence[int]) -> list[int]:
    """The costs worth a try: powers of 2, from the first that all these pieces allow."""
    most = max(pieces, default=2)
    return [1] if most <= 2 else [1 << m for m in range(1, (most - 1).bit_length())]


@dataclass(frozen=True)
class Layout:
    """The rows of bits of some operators of a network.

    >>> from maxaffine.code import Signature, Units
    >>> shapes = Units("relu", "relu", 2, (8,)), Units("pool", "max_pool2d", 4, (2,))
    >>> layout = Layout(Signature(shapes, (4,)), (0, 1))
    >>> layout.units, layout.cost, layout.bits, layout.width  # 8 times 2 bits, 2 times 3 bits, in 8 bytes
    (10, 2, 22, 8)
    """

    signature: Signature
    places: tuple[int, ...]

    @cached_property
    def units(self) -> int:
        """D, the number of units that are compared."""
        return sum(prod(self.signature[i].shape) for i in self.places)

    @cached_property
    def cost(self) -> int:
        """Bits in which two rows differ for each unit that differs."""
        return min(costs([self.signature[i].pieces for i in self.places]), key=self._length)

    @property
    def bits(self) -> int:
        """Bits of a row that carry the code."""
        return self._length(self.cost)

    @property
    def width(self) -> int:
        """Bytes of a row, a multiple of 8: the code and zeros."""
        return max(1, -(-self.bits // 64)) * 8

    def _length(self, cost: int) -> int:
        places = (self.signature[i] for i in self.places)
        return sum(prod(u.shape) * length(u.pieces, cost) for u in places)

    def rows(self, code: Code) -> Rows:
        """(N, width) uint8 of N codes."""
        found = np.empty((len(code), self.width), np.uint8)
        tables = [words(self.signature[i].pieces, self.cost) for i in self.places]
        step = max(1, CHUNK // (8 * self.width))
        for start in range(0, len(code), step):
            parts = []
            for place, table in zip(self.places, tables, strict=True):
                value = flat(code.values[place][start : start + step]).cpu().numpy()
                parts.append(value if table.shape == (2, 1) else table[value].reshape(len(value), -1))
            packed = np.packbits(parts[0] if len(parts) == 1 else np.concatenate(parts, 1), axis=1)
            found[start : start + step, : packed.shape[1]] = packed
            found[start : start + step, packed.shape[1] :] = 0
        return found

    def distances(self, bits: NDArray[np.integer]) -> NDArray[np.float64]:
        """Eq. 15 of Hamming distances of rows, the same numbers that `maxaffine.distance` gives."""
        return (bits // self.cost) / np.float64(self.units)

    def radius(self, distance: float) -> int:
        """The largest Hamming distance of two rows whose Eq. 15 distance is at most that."""
        most = min(self.units, floor(distance * self.units))
        while most < self.units and (most + 1) / self.units <= distance:
            most += 1
        while most > 0 and most / self.units > distance:
            most -= 1
        return most * self.cost


def layout_of(code: Code, operators: Names | None = None) -> Layout:
    """The layout of all operators of a code, or of those that are named. Raises InputError when there are none."""
    every = [units.name for units in code.signature]
    chosen = every if operators is None else arguments.names(operators, "operators")
    places = tuple(index_of(code, name) for name in chosen)
    if not places or len(set(places)) < len(places):
        raise InputError(f"operators is {chosen}; name each operator to be compared once, at least one of {every}")
    return Layout(code.signature, places)
