"""Compiled kernels of the plane partition: cut convex cells by ReLU units, cull the units that cannot switch.

A net is (P, levels, ids): P (3 + n, n + O) holds the coefficients of 1, s, t (rows 0..2) and of relu(z_k) (row 3 + k)
in every unit and output (columns); ids are the units' numbers in the ReluNet. A store holds C cells that are cut by
all units before some level: x, y (corners, counter-clockwise), e (label of the side that leaves each corner: a unit,
a bundle of units >= U, or -1 - i for side i of the domain), off (C + 1), M (C, n', 3) the maps relu(z_k) of the units
so far, bits (C, W) of the units that are on, and h (C,) the exclusive or of the hashes of the units that are on.
"""

from typing import Any

import numpy as np
from numba import njit

# Kernels that only kernels call need no wrappers, which halves their compilation.
INNER: Any = {"nogil": True, "cache": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
kernel: Any = njit(**INNER)
kernel_fast: Any = njit(**INNER, fastmath={"nsz", "contract", "reassoc", "arcp"})  # values are finite, sums may reorder
BUNDLE = 1 << 28  # labels from here on are rows of the table of bundles
MAX_SIDES = 500  # of one cell
LANES = 32  # loops over units run to a multiple of it, all in vector registers: P has that many columns to spare
LEAF = 48  # cells that are cut in one go
CULLED = 16  # fewer cells are not worth new bounds
SHRUNK = 2.5  # nor is a box that shrank less


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
    new[: len(array)] = array
    return new


@kernel
def padded(m):
    """M rounded up to whole vectors."""
    return (m + LANES - 1) // LANES * LANES


@kernel_fast
def assemble(P, s, m, maps, one, u, v):
    """One + u s + v t: the pre-activations of columns s .. s + m where the units before have the given maps."""
    for q in range(m):
        one[q] = P[0, s + q]
        u[q] = P[1, s + q]
        v[q] = P[2, s + q]
    for k in range(maps.shape[0]):
        a, b, c = maps[k, 0], maps[k, 1], maps[k, 2]
        if a != 0.0 or b != 0.0 or c != 0.0:
            row = P[3 + k, s : s + m]
            for q in range(m):
                one[q] += a * row[q]
                u[q] += b * row[q]
                v[q] += c * row[q]


@kernel_fast
def extremes(one, u, v, m, x, y, first, last, low, high):
    """Smallest and largest value of each of m affine functions at the corners first .. last."""
    for q in range(m):
        low[q] = high[q] = one[q] + u[q] * x[first] + v[q] * y[first]
    for i in range(first + 1, last):
        X, Y = x[i], y[i]
        for q in range(m):
            value = one[q] + u[q] * X + v[q] * Y
            low[q] = min(low[q], value)
            high[q] = max(high[q], value)


@kernel
def classify(low, high, eps, m, listed, on):
    """Fill `listed` with the units that change or touch zero on a cell, `on` with those that are positive on it."""
    count = 0
    for q in range(m):
        above, below = high[q] > eps[q], low[q] < -eps[q]
        on[q] = above and not below
        if (above or below) and low[q] <= eps[q] and high[q] >= -eps[q]:
            listed[count] = q
            count += 1
    return count


@kernel
def halve(X, Y, E, a, p, g, n, value, label):
    """Cut the convex polygon in rows a .. a + n where `value` changes sign; the parts go to rows p .. and g ... .

    A corner with value zero belongs to both parts. The new side carries `label` in both. Returns the parts' sizes.
    """
    i, j = p, g
    for v in range(n):
        w = v + 1 if v + 1 < n else 0
        s, s2, e = value[v], value[w], E[a + v]
        if s >= 0:
            X[i], Y[i], E[i] = X[a + v], Y[a + v], label if s == 0 and s2 < 0 else e
            i += 1
        if s <= 0:
            X[j], Y[j], E[j] = X[a + v], Y[a + v], label if s == 0 and s2 > 0 else e
            j += 1
        if s * s2 < 0:
            t = s / (s - s2)
            x, y = X[a + v] + t * (X[a + w] - X[a + v]), Y[a + v] + t * (Y[a + w] - Y[a + v])
            X[i], Y[i], E[i] = x, y, label if s > 0 else e
            X[j], Y[j], E[j] = x, y, e if s > 0 else label
            i, j = i + 1, j + 1
    return i - p, j - g


@kernel
def bundle(E, a, n, value, unit, bundles, count):
    """Note on every side along which `value` vanishes that `unit` may change there too."""
    for v in range(n):
        w = v + 1 if v + 1 < n else 0
        if value[v] == 0.0 and value[w] == 0.0 and E[a + v] >= 0:
            if count == len(bundles):
                bundles = grown(bundles, 2 * count + 16)
            bundles[count, 0], bundles[count, 1] = E[a + v], unit
            E[a + v] = BUNDLE + count
            count += 1
    return bundles, count


@kernel
def evaluate(one, s, t, X, Y, a, n, eps, value):
    """Values of one unit at n corners, those within rounding set to zero: 1 if some are positive, + 2 if negative."""
    found = 0
    for v in range(n):
        z = one + s * X[a + v] + t * Y[a + v]
        if z > eps:
            found |= 1
        elif z < -eps:
            found |= 2
        else:
            z = 0.0
        value[v] = z
    return found


@kernel
def scratch(k):
    """Work space for cutting one cell by k units: polygons, and on the stack of them slot, size, next unit, signs."""
    room = (k + 3) * MAX_SIDES
    slot, size, at = np.arange(k + 3), np.empty(k + 3, np.int64), np.empty(k + 3, np.int64)
    return np.empty(room), np.empty(room), np.empty(room, np.int32), slot, size, at, np.empty((k + 3, k + 1), np.uint8)


@kernel
def cut(z, listed, k, eps, ids, work, value, found, bundles, nb):
    """Cut the polygon in the work space's first slot by the k listed units, depth first.

    Returns (found, number of pieces or -1 for too many sides, bundles, nb).
    """
    X, Y, E, slot, size, at, sign = work
    x, y, e, off, signs = found
    total = depth = 0
    at[0] = 0
    while depth >= 0:
        j, n, a = at[depth], size[depth], slot[depth] * MAX_SIDES
        if j == k:
            start = off[total]
            if start + n > len(x):
                x, y, e = grown(x, 2 * (start + n)), grown(y, 2 * (start + n)), grown(e, 2 * (start + n))
            if total + 2 > len(off):
                off, signs = grown(off, 2 * total + 64), grown(signs, 2 * total + 64)
            for v in range(n):
                x[start + v], y[start + v], e[start + v] = X[a + v], Y[a + v], E[a + v]
            for i in range(k):
                signs[total, i] = sign[depth, i]
            off[total + 1] = start + n
            total, depth = total + 1, depth - 1
            continue
        q = listed[j]
        side = evaluate(z[0, q], z[1, q], z[2, q], X, Y, a, n, eps[q], value)
        at[depth] = j + 1
        sign[depth, j] = side == 1
        if side == 3:
            if n + 1 >= MAX_SIDES:
                return (x, y, e, off, signs), -1, bundles, nb
            top, spare = depth + 1, k + 2
            p, g = slot[top] * MAX_SIDES, slot[spare] * MAX_SIDES
            size[top], size[depth] = halve(X, Y, E, a, p, g, n, value, ids[q])
            slot[depth], slot[spare] = slot[spare], slot[depth]
            for i in range(j):
                sign[top, i] = sign[depth, i]
            sign[top, j], at[top] = 1, j + 1
            depth = top
        elif side:
            bundles, nb = bundle(E, a, n, value, ids[q], bundles, nb)
    return (x, y, e, off, signs), total, bundles, nb
