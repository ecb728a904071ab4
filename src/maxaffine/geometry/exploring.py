# pyright: reportGeneralTypeIssues=false
"""Compiled: the cells of one convex polygon, depth first in groups of neighbouring cells."""

import numpy as np
from numba import njit

from maxaffine.geometry.culling import ON, bounded, folded, known, relevel
from maxaffine.geometry.kernels import (
    LANES,
    MAX_SIDES,
    assemble,
    classify,
    cut,
    extremes,
    grown,
    hashed,
    kernel,
    padded,
    scratch,
)


@kernel
def gather(store, members, first, last):
    """The store of its cells members[first:last]."""
    x, y, e, off, M, bits, h = store
    corners = 0
    for i in range(first, last):
        corners += off[members[i] + 1] - off[members[i]]
    new = blank(last - first, corners, M.shape[1], bits.shape[1])
    nx, ny, ne, noff, nM, nbits, nh = new
    at = 0
    for i in range(last - first):
        c = members[first + i]
        for v in range(off[c], off[c + 1]):
            nx[at], ny[at], ne[at] = x[v], y[v], e[v]
            at += 1
        noff[i + 1], nh[i] = at, h[c]
        for k in range(M.shape[1]):
            for t in range(3):
                nM[i, k, t] = M[c, k, t]
        for w in range(bits.shape[1]):
            nbits[i, w] = bits[c, w]
    return new


@kernel
def box_of(store):
    """(s0, s1, t0, t1) around a store."""
    x, y = store[0], store[1]
    s0, s1, t0, t1 = x[0], x[0], y[0], y[0]
    for v in range(len(x)):
        s0, s1, t0, t1 = min(s0, x[v]), max(s1, x[v]), min(t0, y[v]), max(t1, y[v])
    return s0, s1, t0, t1


@kernel
def halved(store, box):
    """Its cells, those in the lower half of the box (along its longer side) first, and how many they are."""
    x, y, off = store[0], store[1], store[3]
    along = x if box[1] - box[0] >= box[3] - box[2] else y
    middle = (box[0] + box[1]) / 2 if box[1] - box[0] >= box[3] - box[2] else (box[2] + box[3]) / 2
    cells = len(off) - 1
    order, low, high = np.empty(cells, np.int64), 0, cells
    for c in range(cells):
        centre = 0.0
        for v in range(off[c], off[c + 1]):
            centre += along[v] - middle
        if centre < 0:
            order[low] = c
            low += 1
        else:
            high -= 1
            order[high] = c
    return order, low if 0 < low < cells else cells // 2


@kernel
def cull(net, level, store, box, eps):
    """The net and the store with the units left out that do not switch in the group."""
    P, levels, ids = net
    x, y, e, off, M, bits, h = store
    n = len(ids)
    state = np.empty(n, np.uint8)
    known(M, state)
    bounded(P, n, levels[level], eps[ids], box, state)
    mask, mark = np.zeros(bits.shape[1], np.uint64), np.uint64(0)
    for k in range(levels[level], n):
        if state[k] == ON:
            mask[ids[k] >> 6] |= np.uint64(1) << np.uint64(ids[k] & 63)
            mark ^= hashed(ids[k])
    Q, kept = folded(P, n, state)
    for c in range(len(h)):
        h[c] ^= mark
        for w in range(len(mask)):
            bits[c, w] |= mask[w]
    before = kept[: np.searchsorted(kept, levels[level])]
    slim = np.empty((M.shape[0], len(before), 3))
    for c in range(M.shape[0]):
        for k in range(len(before)):
            slim[c, k] = M[c, before[k]]
    return (Q, relevel(levels, kept), ids[kept]), (x, y, e, off, slim, bits, h)


@kernel
def noisy(z, m, low, high, eps, strict, ids):
    """First strict unit that vanishes identically on a cell, but only up to rounding, or -1."""
    for q in range(m):
        zero = high[q] <= eps[q] and low[q] >= -eps[q] and abs(z[1, q]) + abs(z[2, q]) <= FLAT * eps[q]
        if zero and strict[ids[q]] and (z[0, q] != 0.0 or z[1, q] != 0.0 or z[2, q] != 0.0):
            return q
    return -1


FLAT = 16.0  # slopes below this share of what counts as zero are rounding


@kernel
def blank(cells, corners, units, words):
    """A store with room for that many cells and corners."""
    x, y, e, off = np.empty(corners), np.empty(corners), np.empty(corners, np.int32), np.zeros(cells + 1, np.int64)
    return x, y, e, off, np.empty((cells, units, 3)), np.empty((cells, words), np.uint64), np.empty(cells, np.uint64)


@kernel
def room(new, corners, cells):
    """The growing store with room for that many corners and cells."""
    x, y, e, off, M, bits, h = new
    if corners > len(x):
        x, y, e = grown(x, 2 * corners), grown(y, 2 * corners), grown(e, 2 * corners)
    if cells > len(h):
        off, M, bits, h = grown(off, 2 * cells + 1), grown(M, 2 * cells), grown(bits, 2 * cells), grown(h, 2 * cells)
    return x, y, e, off, M, bits, h


@kernel
def append(new, count, parent, c, z, ids, listed, k, on, found, pieces):
    """Write the children of cell c: their polygons, the maps of the units that cut it, their bits and hashes."""
    x, y, e, off, M, bits, h = new
    px, py, pe, poff, signs = found
    old, old_bits, mark = parent[4], parent[5], parent[6][c]
    before, m = old.shape[1], len(ids)
    for i in range(pieces):
        at, start, first = count + i, off[count + i], poff[i]
        size = poff[i + 1] - first
        for v in range(size):
            x[start + v], y[start + v], e[start + v] = px[first + v], py[first + v], pe[first + v]
        off[at + 1], h[at] = start + size, mark
        for u in range(before):
            M[at, u, 0], M[at, u, 1], M[at, u, 2] = old[c, u, 0], old[c, u, 1], old[c, u, 2]
        for w in range(bits.shape[1]):
            bits[at, w] = old_bits[c, w]
        for j in range(k):
            on[listed[j]] = signs[i, j] != 0
        for q in range(m):
            M[at, before + q, 0] = z[0, q] if on[q] else 0.0
            M[at, before + q, 1] = z[1, q] if on[q] else 0.0
            M[at, before + q, 2] = z[2, q] if on[q] else 0.0
            if on[q]:
                bits[at, ids[q] >> 6] |= np.uint64(1) << np.uint64(ids[q] & 63)
                h[at] ^= hashed(ids[q])


@kernel
def load(work, store, c):
    """Put cell c into the first place of the work space."""
    X, Y, E, slot, size = work[0], work[1], work[2], work[3], work[4]
    x, y, e, off = store[0], store[1], store[2], store[3]
    size[0] = off[c + 1] - off[c]
    for v in range(size[0]):
        at = slot[0] * MAX_SIDES + v
        X[at], Y[at], E[at] = x[off[c] + v], y[off[c] + v], e[off[c] + v]


@njit(nogil=True, cache=True)
def advance(net, level, store, eps, strict, bundles, nb):
    """Cut all cells of a store by one level. Returns (store, bundles, nb, failure): -1, or a unit that is noise."""
    P, levels, all_ids = net
    s, m = levels[level], levels[level + 1] - levels[level]
    ids = all_ids[s : s + m]
    tiny = eps[ids]
    x, y, e, off, M, bits, h = store
    C = len(h)
    new = blank(2 * C, 2 * len(x), s + m, bits.shape[1])
    wide = padded(m)
    z, low, high = np.empty((3, wide)), np.empty(wide), np.empty(wide)
    listed, on = np.empty(m, np.int64), np.empty(m, np.bool_)
    work, value, count = scratch(8), np.empty(MAX_SIDES), 0
    found = (np.empty(256), np.empty(256), np.empty(256, np.int32), np.zeros(65, np.int64), np.empty((64, 8), np.uint8))
    for c in range(C):
        assemble(P, s, wide, M[c], z[0], z[1], z[2])
        extremes(z[0], z[1], z[2], wide, x, y, off[c], off[c + 1], low, high)
        bad = noisy(z, m, low, high, tiny, strict, ids)
        if bad >= 0:
            return new, bundles, nb, ids[bad]
        k = classify(low, high, tiny, m, listed, on)
        if k > found[4].shape[1]:
            work = scratch(2 * k)
            found = (found[0], found[1], found[2], found[3], np.empty((len(found[4]), 2 * k), np.uint8))
        load(work, store, c)
        found, total, bundles, nb = cut(z, listed, k, tiny, ids, work, value, found, bundles, nb)
        if total < 0:
            return new, bundles, nb, -2
        new = room(new, new[3][count] + found[3][total], count + total)
        append(new, count, store, c, z, ids, listed, k, on, found, total)
        count += total
    corners = new[3][count]
    x, y, e, off, M, bits, h = new
    new = x[:corners], y[:corners], e[:corners], off[: count + 1], M[:count], bits[:count], h[:count]
    return new, bundles, nb, -1


@kernel
def emit(out, net, store):
    """Append finished cells and their output maps (O, 3)."""
    x, y, e, off, bits, h, maps, count = out
    P, ids = net[0], net[2]
    n, width = len(ids), P.shape[1] - len(ids) - LANES
    sx, sy, se, soff, M, sbits, sh = store
    start, C = off[count], len(sh)
    if start + len(sx) > len(x):
        size = 2 * (start + len(sx))
        x, y, e = grown(x, size), grown(y, size), grown(e, size)
    if count + C > len(h):
        size = 2 * (count + C)
        off, bits, h, maps = grown(off, size + 1), grown(bits, size), grown(h, size), grown(maps, size)
    for v in range(len(sx)):
        x[start + v], y[start + v], e[start + v] = sx[v], sy[v], se[v]
    for c in range(C):
        off[count + c + 1], h[count + c] = start + soff[c + 1], sh[c]
        for w in range(bits.shape[1]):
            bits[count + c, w] = sbits[c, w]
        for i in range(width):
            one, s, t = P[0, n + i], P[1, n + i], P[2, n + i]
            for k in range(n):
                w = P[3 + k, n + i]
                one, s, t = one + w * M[c, k, 0], s + w * M[c, k, 1], t + w * M[c, k, 2]
            maps[count + c, i, 0], maps[count + c, i, 1], maps[count + c, i, 2] = one, s, t
    return x, y, e, off, bits, h, maps, count + C


@njit(nogil=True, cache=True)
def explore(net, level, store, eps, strict, limit, leaf, culled, shrunk):
    """All cells of a store, cut by all units from `level` on.

    Returns ((x, y, e, off, bits, h, maps), bundles, failure). failure: -1, a unit that is zero up to rounding only, -2
    for a cell with too many sides, -3 for more than `limit` cells.
    """
    width = net[0].shape[1] - len(net[2]) - LANES
    x, y, e, off, maps, bits, h = blank(16, 64, width, store[5].shape[1])
    bundles = np.empty((0, 2), np.int32)
    nb, failure = len(bundles), -1  # a literal 0 would have everything compiled twice
    out = (x, y, e, off, bits, h, maps, nb)
    last = len(net[1]) - 1
    box = box_of(store)
    stack = [(net, level, store, (box[1] - box[0]) * (box[3] - box[2]))]
    while len(stack) > 0:
        net, level, store, area = stack.pop()
        while level < last and net[1][level + 1] == net[1][level]:
            level += 1
        if level == last:
            out = emit(out, net, store)
            if out[7] > limit:
                failure = -3
                break
            continue
        box = box_of(store)
        now = (box[1] - box[0]) * (box[3] - box[2])
        cells = len(store[6])
        if cells >= culled and now * shrunk < area:
            net, store = cull(net, level, store, box, eps)
            stack.append((net, level, store, now))
        elif cells > leaf:
            order, middle = halved(store, box)
            stack.append((net, level, gather(store, order, middle, cells), area))
            stack.append((net, level, gather(store, order, 0, middle), area))
        else:
            new, bundles, nb, failure = advance(net, level, store, eps, strict, bundles, nb)
            if failure != -1:
                break
            stack.append((net, level + 1, new, area))
    x, y, e, off, bits, h, maps, count = out
    corners = off[count]
    found = (x[:corners], y[:corners], e[:corners], off[: count + 1], bits[:count], h[:count], maps[:count])
    return found, bundles[:nb], failure
