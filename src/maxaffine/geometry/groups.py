# pyright: reportGeneralTypeIssues=false
"""Compiled: groups of cells: room for them, halves of them, and the units that cannot switch in them left out.

A group's cells share what they inherit: `mother` names the row of M that holds the maps of the units on which all
children of a mother agree, koff / kidx / kz list the units that cut the mother; which of those are on in a child is in
its bits.
"""

import numpy as np

from maxaffine.geometry.culling import OFF, ON, OPEN, bounded, folded, relevel
from maxaffine.geometry.kernels import absent, blank, hashed, kernel, picked


@kernel
def is_on(bits, c, unit):
    """Whether a unit is on in cell c."""
    return (bits[c, unit >> 6] >> np.uint64(unit & 63)) & np.uint64(1)


@kernel
def box_of(x, y):
    """(s0, s1, t0, t1) around points."""
    s0, s1, t0, t1 = x[0], x[0], y[0], y[0]
    for v in range(len(x)):
        s0, s1, t0, t1 = min(s0, x[v]), max(s1, x[v]), min(t0, y[v]), max(t1, y[v])
    return s0, s1, t0, t1


@kernel
def halved(x, y, off, box):
    """Numbers of cells, those in the lower half of the box (along its longer side) first, and how many they are."""
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
def gather(store, members):
    """The store of some of its cells."""
    x, y, e, off, bits, h, mother, M, koff, kidx, kz = store
    corners = 0
    for c in members:
        corners += off[c + 1] - off[c]
    cells = blank(len(members), corners, bits.shape[1])
    nx, ny, ne, noff, nbits, nh, nmother = cells
    at, mothers, place = 0, 0, absent(len(M))
    for i in range(len(members)):
        c = members[i]
        for v in range(off[c], off[c + 1]):
            nx[at], ny[at], ne[at] = x[v], y[v], e[v]
            at += 1
        noff[i + 1], nh[i] = at, h[c]
        for w in range(bits.shape[1]):
            nbits[i, w] = bits[c, w]
        if place[mother[c]] < 0:
            place[mother[c]] = mothers
            mothers += 1
        nmother[i] = place[mother[c]]
    kept = np.empty(mothers, np.int64)
    for p in range(len(M)):
        if place[p] >= 0:
            kept[place[p]] = p
    return *cells, *inherited(M, koff, kidx, kz, kept)


@kernel
def inherited(M, koff, kidx, kz, kept):
    """What the children of some mothers inherit."""
    nM, noff, at = np.empty((len(kept), 3, M.shape[2])), np.zeros(len(kept) + 1, np.int64), 0
    for i in range(len(kept)):
        p = kept[i]
        at += koff[p + 1] - koff[p]
        noff[i + 1] = at
        for t in range(3):
            for k in range(M.shape[2]):
                nM[i, t, k] = M[p, t, k]
    nidx, nz = np.empty(at, np.int64), np.empty((at, 3))
    for i in range(len(kept)):
        start = koff[kept[i]] - noff[i]
        for j in range(noff[i], noff[i + 1]):
            nidx[j], nz[j, 0], nz[j, 1], nz[j, 2] = (
                kidx[start + j],
                kz[start + j, 0],
                kz[start + j, 1],
                kz[start + j, 2],
            )
    return nM, noff, nidx, nz


@kernel
def known(store, ids, state):
    """State of the units so far: off in all cells of the group, on in all, or open."""
    _, _, _, _, bits, _, mother, M, koff, kidx, _ = store
    n = M.shape[2]
    on, cut = np.zeros(n, np.int64), np.zeros(n, np.int64)  # mothers in all of whose children they are on; they cut
    above, below = np.zeros(n, np.uint8), np.zeros(n, np.uint8)  # on, off in some child of a mother that they cut
    for p in range(len(M)):
        for k in range(n):
            on[k] += (M[p, 0, k] != 0.0) | (M[p, 1, k] != 0.0) | (M[p, 2, k] != 0.0)
        for j in range(koff[p], koff[p + 1]):
            cut[kidx[j]] += 1
    for c in range(len(mother)):
        for j in range(koff[mother[c]], koff[mother[c] + 1]):
            k = kidx[j]
            up = is_on(bits, c, ids[k])
            above[k], below[k] = above[k] | up, below[k] | (up ^ 1)
    for k in range(n):
        some, all_ = on[k] > 0 or above[k], on[k] + cut[k] == len(M) and not below[k]
        state[k] = ON if all_ else (OPEN if some else OFF)


@kernel
def cull(net, level, store, box, eps):
    """The net and the store with the units left out that do not switch in the group."""
    P, levels, ids = net
    x, y, e, off, bits, h, mother, M, koff, kidx, kz = store
    n = len(ids)
    state = np.empty(n, np.uint8)
    known(store, ids, state)
    bounded(P, n, levels[level], picked(eps, ids), box, state)
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
    starts = relevel(levels, kept)
    slim = slimmed(M, koff, kidx, kz, kept[: starts[level]])
    return (Q, starts, picked(ids, kept)), (x, y, e, off, bits, h, mother, *slim)


@kernel
def slimmed(M, koff, kidx, kz, kept):
    """What is inherited of the kept units."""
    place = absent(M.shape[2])
    slim, count = np.empty((len(M), 3, len(kept))), np.uint64(len(kept))
    for k in range(len(kept)):
        place[kept[k]] = k
    noff, nidx, nz, at = np.zeros(len(koff), np.int64), np.empty(len(kidx), np.int64), np.empty((len(kidx), 3)), 0
    for p in range(len(M)):
        for k in range(count):
            old = np.uint64(kept[k])
            slim[p, 0, k], slim[p, 1, k], slim[p, 2, k] = M[p, 0, old], M[p, 1, old], M[p, 2, old]
        for j in range(koff[p], koff[p + 1]):
            if place[kidx[j]] >= 0:
                nidx[at], nz[at, 0], nz[at, 1], nz[at, 2] = place[kidx[j]], kz[j, 0], kz[j, 1], kz[j, 2]
                at += 1
        noff[p + 1] = at
    return slim, noff, nidx[:at], nz[:at]
