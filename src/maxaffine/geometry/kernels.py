"""Compiled kernels of the plane partition: cut convex cells by ReLU units, cull the units that cannot switch.

A net is (P, levels, ids): P (3 + n, n + O) holds the coefficients of 1, s, t (rows 0..2) and of relu(z_k) (row 3 + k)
in every unit and output (columns); ids are the units' numbers in the ReluNet. A store holds C cells that are cut by
all units before some level: x, y (corners, counter-clockwise), e (label of the side that leaves each corner: a unit,
a bundle of units >= U, or -1 - i for side i of the domain), off (C + 1), bits (C, W) of the units that are on, h (C,)
the exclusive or of their hashes, and what they share with those that were cut out of the same mother cell: its number
`mother` (C,), M (mothers, 3, n') the maps relu(z_k) of the units so far, zero for those that cut the mother; these are
listed in koff (mothers + 1), kidx, with their maps z_k in kz (., 3): a child's bits say whether they are on in it.
"""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

FILES = [file.read_bytes() for file in sorted(Path(__file__).parent.glob("*.py"))]
SOURCES = hashlib.sha256(b"".join(f for f in FILES if re.search(rb"^@(entry|inlined|kernel)", f, re.M))).hexdigest()


def compiled(options: dict[str, Any]) -> Callable[[Any], Any]:
    """Compile a function that is kept on disk until any source of kernels changes.

    numba looks at the function's own file only: code that has an edited kernel inside would be kept, and be wrong.
    """

    def decorate(function: Any) -> Any:
        dispatcher: Any = njit(nogil=True, cache=True, **options)(function)
        kept = dispatcher._cache._cache_file
        kept._source_stamp = (kept._source_stamp, SOURCES)
        return dispatcher

    return decorate


# Kernels that only kernels call need no wrappers, which halves their compilation; an entry is called from Python.
# Innermost loops count with unsigned numbers, or every index would be checked for being negative; views and tuples are
# not made in loops over cells, or references to them would be counted. Whole arrays are filled, compared and indexed by
# loops: numba's own functions for that bring in broadcasting, messages and all, which takes seconds to compile.
INNER: Any = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
entry: Any = compiled({})
kernel: Any = compiled(INNER)
inlined: Any = compiled(INNER | {"inline": "always"})
FAST: Any = {"fastmath": {"nsz", "contract", "reassoc", "arcp"}}  # finite; sums may reorder
kernel_fast: Any = compiled(INNER | FAST)
entry_fast: Any = compiled(FAST)
BUNDLE = 1 << 28  # labels from here on are rows of the table of bundles
MAX_SIDES = 500  # of one cell
LANES = 32  # loops over units run to a multiple of it, all in vector registers: P has that many columns to spare
LEAF = 192  # cells that are cut in one go
CULLED = 16  # fewer cells are not worth new bounds
SHRUNK = 2.5  # nor is a box that shrank less
NOTHING, CELLS, BUNDLES, SIDES, CERTAINTY = 0, 1, 2, 3, 4  # what was missing when a cut ended
# Of what counts as zero: where a corner lies on the line of an elementwise unit, rounding is below (seen: 0.01), so
# what lies between may be a small cell. Maxima meet in threes by nature, with rounding of any size.
DOUBT = 0.02
TIED, STRICT, LENIENT = 0, 1, 2  # units of maxima, and others: whether those may vanish on a cell up to rounding


@kernel
def hashed(k):
    """splitmix64 of k: independent bits for every unit (Steele et al., 2014)."""
    z = np.uint64(k + 1) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@kernel
def grown(array, size):
    """A copy with room for `size` entries along the first axis."""
    new = np.empty((size, *array.shape[1:]), array.dtype)
    old, there = array.reshape(-1), new.reshape(-1)
    for i in range(array.size):
        there[i] = old[i]
    return new


@kernel
def counted(n):
    """0, 1, ... n - 1."""
    numbers = np.empty(n, np.int32)
    for i in range(n):
        numbers[i] = i
    return numbers


@kernel
def absent(n):
    """Numbers of things, n times -1: there are none yet."""
    numbers = np.empty(n, np.int32)
    for i in range(n):
        numbers[i] = -1
    return numbers


@kernel
def picked(values, members):
    """The values of some members."""
    found = np.empty(len(members), values.dtype)
    for i in range(len(members)):
        found[i] = values[members[i]]
    return found


@kernel
def blank(cells, corners, words):
    """Room for that many cells and corners: (x, y, e, off, bits, h, mother)."""
    x, y, e, off = np.empty(corners), np.empty(corners), np.empty(corners, np.int32), np.empty(cells + 1, np.int64)
    off[0] = 0
    return x, y, e, off, np.empty((cells, words), np.uint64), np.empty(cells, np.uint64), np.empty(cells, np.int64)


@kernel
def roomy(cells):
    """The growing cells with twice the room."""
    x, y, e, off, bits, h, mother = cells
    corners, count = 2 * len(x) + MAX_SIDES, 2 * len(h) + 1
    x, y, e, off = grown(x, corners), grown(y, corners), grown(e, corners), grown(off, count + 1)
    return x, y, e, off, grown(bits, count), grown(h, count), grown(mother, count)


@kernel
def padded(m):
    """M rounded up to whole vectors."""
    return (m + LANES - 1) // LANES * LANES


@kernel_fast
def assemble(P, s, m, M, p, z):
    """Maps z (3, m) of columns s .. s + m in the children of mother p, without the units that cut her."""
    first, count = np.uint64(s), np.uint64(m)
    for q in range(count):
        z[0, q], z[1, q], z[2, q] = P[0, first + q], P[1, first + q], P[2, first + q]
    for k in range(M.shape[2]):
        a0, a1, a2 = M[p, 0, k], M[p, 1, k], M[p, 2, k]
        if a0 != 0.0 or a1 != 0.0 or a2 != 0.0:
            for q in range(count):
                w = P[3 + k, first + q]
                z[0, q] += a0 * w
                z[1, q] += a1 * w
                z[2, q] += a2 * w


@kernel_fast
def raised(P, s, m, base, kidx, kz, begin, end, on, z):
    """Maps z (3, m) in one child: the base, and the units begin .. end that cut the mother where they are on."""
    first, count = np.uint64(s), np.uint64(m)
    for q in range(count):
        z[0, q], z[1, q], z[2, q] = base[0, q], base[1, q], base[2, q]
    for j in range(begin, end):
        if on[j - begin]:
            a0, a1, a2, k = kz[j, 0], kz[j, 1], kz[j, 2], 3 + kidx[j]
            for q in range(count):
                w = P[k, first + q]
                z[0, q] += a0 * w
                z[1, q] += a1 * w
                z[2, q] += a2 * w


@kernel_fast
def extremes(z, m, x, y, first, last, low, high):
    """Smallest and largest value of each of m affine functions at the corners first .. last."""
    X, Y, count = x[first], y[first], np.uint64(m)
    for q in range(count):
        low[q] = high[q] = z[0, q] + z[1, q] * X + z[2, q] * Y
    for i in range(first + 1, last):
        X, Y = x[i], y[i]
        for q in range(count):
            value = z[0, q] + z[1, q] * X + z[2, q] * Y
            low[q] = min(low[q], value)
            high[q] = max(high[q], value)


@kernel
def classify(low, high, eps, m, listed, mark):
    """Mark the units that are positive on a cell (1) and those that change or touch zero on it (2), list the latter.

    Returns (how many are listed, how many are zero on the whole cell).
    """
    count = flat = 0
    for q in range(m):
        above, below = high[q] > eps[q], low[q] < -eps[q]
        both = (above | below) & (low[q] <= eps[q]) & (high[q] >= -eps[q])
        mark[q] = 2 if both else above
        flat += not (above | below)
    for q in range(m):
        if mark[q] == 2:
            listed[count] = q
            count += 1
    return count, flat


@inlined
def evaluate(one, s, t, X, Y, a, n, eps, doubt, value):
    """Values of one unit at n corners, those within rounding set to zero.

    1 if some are positive, + 2 if negative, + 4 if some are set to zero although they are larger than doubt.
    """
    found = 0
    for v in range(n):
        z = one + s * X[a + v] + t * Y[a + v]
        if z > eps:
            found |= 1
        elif z < -eps:
            found |= 2
        else:
            found |= 4 * (abs(z) > doubt)
            z = 0.0
        value[v] = z
    return found


@inlined
def halve(X, Y, E, a, p, g, n, value, label):
    """Cut the convex polygon in rows a .. a + n where `value` changes sign; the parts go to rows p .. and g ... .

    A corner with value zero belongs to both parts. The new side carries `label` in both. Returns the parts' sizes.
    Corners are written to both parts and stay where the count goes on: without branches that nobody can predict.
    """
    i, j = p, g
    for v in range(n):
        w = v + 1 if v + 1 < n else 0
        s, s2, e, x, y = value[v], value[w], E[a + v], X[a + v], Y[a + v]
        X[i], Y[i], E[i] = x, y, label if (s == 0) & (s2 < 0) else e
        X[j], Y[j], E[j] = x, y, label if (s == 0) & (s2 > 0) else e
        i, j = i + (s >= 0), j + (s <= 0)
        if s * s2 < 0:
            t = s / (s - s2)
            x, y = x + t * (X[a + w] - x), y + t * (Y[a + w] - y)
            X[i], Y[i], E[i] = x, y, label if s > 0 else e
            X[j], Y[j], E[j] = x, y, e if s > 0 else label
            i, j = i + 1, j + 1
    return i - p, j - g


@inlined
def bundle(E, a, n, value, unit, bundles, count):
    """Note on every side along which `value` vanishes that `unit` may change there too."""
    for v in range(n):
        w = v + 1 if v + 1 < n else 0
        if value[v] == 0.0 and value[w] == 0.0 and E[a + v] >= 0:
            bundles[count, 0], bundles[count, 1] = E[a + v], unit
            E[a + v] = BUNDLE + count
            count += 1
    return count


@kernel
def scratch(k):
    """Work space for cutting one cell by k units: polygons, and on the stack of them slot, size, next unit, signs."""
    room = (k + 3) * MAX_SIDES
    slot, size, at = counted(k + 3), np.empty(k + 3, np.int64), np.empty(k + 3, np.int64)
    sign, value = np.empty((k + 3, k + 1), np.uint8), np.empty(MAX_SIDES)
    return np.empty(room), np.empty(room), np.empty(room, np.int32), slot, size, at, sign, value


@inlined
def leave(X, Y, E, a, n, k, sign, depth, unit, first, pbits, ph, c, x, y, e, off, bits, h, count):
    """Write a finished piece of parent c behind the cells: its bits by the signs of the units first .. first + k."""
    start, h[count] = off[count], ph[c]
    for w in range(bits.shape[1]):
        bits[count, w] = pbits[c, w]
    for v in range(n):
        x[start + v], y[start + v], e[start + v] = X[a + v], Y[a + v], E[a + v]
    off[count + 1] = start + n
    for i in range(k):
        if sign[depth, i]:
            u = unit[first + i]
            bits[count, u >> 6] |= np.uint64(1) << np.uint64(u & 63)
            h[count] ^= hashed(u)


@kernel
def cut(c, count, nb, parents, lines, work, cells, bundles):
    """Cut the parents c, c + 1, ..., each by its lines, depth first; the pieces go behind the `count` cells.

    parents: (x, y, e, off, bits, h). lines: (koff, kz, unit, eps, doubt): lines koff[c] .. koff[c + 1] of parent c.
    bundles: the first nb are taken. Returns (c, count, nb, what is missing): the first parent for which there is no
    room any more in CELLS or BUNDLES, or a piece with too many SIDES, or CERTAINTY about a corner.
    """
    px, py, pe, poff, pbits, ph = parents
    koff, kz, unit, eps, doubt = lines
    X, Y, E, slot, size, at, sign, value = work
    x, y, e, off, bits, h, mother = cells
    while c < len(ph):
        first, k, done, depth, noted = koff[c], koff[c + 1] - koff[c], count, 0, nb
        size[0], at[0], a = poff[c + 1] - poff[c], 0, slot[0] * MAX_SIDES
        for v in range(size[0]):
            X[a + v], Y[a + v], E[a + v] = px[poff[c] + v], py[poff[c] + v], pe[poff[c] + v]
        while depth >= 0:
            j, n, a = at[depth], size[depth], slot[depth] * MAX_SIDES
            if done == len(h) or off[done] + n > len(x):
                return c, count, nb, CELLS
            if noted + n > len(bundles):
                return c, count, nb, BUNDLES
            if j == k:
                leave(X, Y, E, a, n, k, sign, depth, unit, first, pbits, ph, c, x, y, e, off, bits, h, done)
                mother[done], done, depth = c, done + 1, depth - 1
                continue
            i = first + j
            side = evaluate(kz[i, 0], kz[i, 1], kz[i, 2], X, Y, a, n, eps[i], doubt[i], value)
            if side >= 4:
                return c, count, nb, CERTAINTY
            at[depth], sign[depth, j] = j + 1, side == 1
            if side == 3:
                if n + 1 >= MAX_SIDES:
                    return c, count, nb, SIDES
                top, spare = depth + 1, k + 2
                size[top], size[depth] = halve(
                    X, Y, E, a, slot[top] * MAX_SIDES, slot[spare] * MAX_SIDES, n, value, unit[i]
                )
                slot[depth], slot[spare] = slot[spare], slot[depth]
                for q in range(j):
                    sign[top, q] = sign[depth, q]
                sign[top, j], at[top] = 1, j + 1
                depth = top
            elif side:
                noted = bundle(E, a, n, value, unit[i], bundles, noted)
        c, count, nb = c + 1, done, noted
    return c, count, nb, NOTHING
