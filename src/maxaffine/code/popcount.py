"""How many units differ, for all pairs of codes at once: exclusive or and population count of packed bits.

A unit with R pieces lies in ceil(log2 R) bit planes; it differs where any of its bits does. The codes of the second
side lie with their rows innermost, so that one instruction counts eight pairs.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from maxaffine.code.packing import bits_of

Words = NDArray[np.uint64]
ROWS, COLUMNS = 256, 512  # pairs at a time: the words of 512 codes and the counts of 256 stay in the cache


@intrinsic
def _popcount(typing: Any, value: Any) -> Any:  # noqa: ARG001  (numba's protocol)
    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), build


def planes(values: Sequence[NDArray[Any]], pieces: Sequence[int]) -> tuple[Words, NDArray[np.int64]]:
    """The (N, K) pieces of some operators as (N, W) words, and of how many bit planes each group of words is.

    Each group of `width` words holds 64 units, one bit plane a word.
    """
    found, widths = [], []
    for value, count in zip(values, pieces, strict=True):
        width = bits_of(count)
        bits = [value if width == 1 else (value >> p) & 1 for p in range(width)]
        packed = [np.packbits(b.astype(np.uint8, copy=False), axis=1) for b in bits]
        packed = [np.pad(p, ((0, 0), (0, -p.shape[1] % 8))).view(np.uint64) for p in packed]
        words = packed[0].shape[1]
        found.append(np.stack(packed, 2).reshape(len(value), words * width))
        widths += [width] * words
    return np.concatenate(found, 1), np.array(widths, np.int64)


@njit(cache=True, nogil=True)
def differing(a: Words, b: Words, widths: NDArray[np.int64], total: NDArray[np.uint64]) -> None:
    """total[i, j] = number of units in which a[i] and b[:, j] differ; a is (N, W), b (W, M), rows innermost."""
    count = b.shape[1]
    bits = np.empty(count, np.uint64)
    for i in range(len(a)):
        sums = total[i]
        sums[:] = np.uint64(0)
        word = 0
        for width in widths:
            own, row = a[i, word], b[word]
            if width == 1:
                for j in range(count):
                    sums[j] += _popcount(own ^ row[j])  # pyright: ignore[reportCallIssue]
            else:
                bits[:] = np.uint64(0)
                for plane in range(word, word + width):
                    own, row = a[i, plane], b[plane]
                    for j in range(count):
                        bits[j] |= own ^ row[j]
                for j in range(count):
                    sums[j] += _popcount(bits[j])  # pyright: ignore[reportCallIssue]
            word += width


def all_pairs(a: Words, b: Words, widths: NDArray[np.int64], scale: float, out: NDArray[np.float64]) -> None:
    """out[i, j] += differing units of rows i and j over scale, by as many threads as torch uses."""
    blocks = [np.ascontiguousarray(b[start : start + COLUMNS].T) for start in range(0, len(b), COLUMNS)]

    def some(rows: slice) -> None:
        for k, block in enumerate(blocks):
            total = np.empty((len(a[rows]), block.shape[1]), np.uint64)
            differing(a[rows], block, widths, total)
            out[rows, k * COLUMNS : k * COLUMNS + block.shape[1]] += total / scale

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(some, [slice(start, start + ROWS) for start in range(0, len(a), ROWS)]))
