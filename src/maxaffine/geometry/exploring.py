# pyright: reportGeneralTypeIssues=false
"""Compiled: the cells of one convex polygon, depth first in groups of neighbouring cells."""

import numpy as np

from maxaffine.geometry.groups import box_of, cull, gather, halved, is_on
from maxaffine.geometry.kernels import (
    BUNDLES,
    CELLS,
    DOUBT,
    LANES,
    MAX_SIDES,
    NOTHING,
    SIDES,
    STRICT,
    TIED,
    assemble,
    blank,
    classify,
    cut,
    entry,
    extremes,
    grown,
    hashed,
    kernel,
    padded,
    picked,
    raised,
    roomy,
    scratch,
)

MILD, ROOM = 1 << 22, 1 << 26  # bytes
FLAT = 16.0  # slopes below this share of what counts as zero are rounding


@kernel
def noisy(z, m, low, high, eps, strict, ids):
    """First strict unit that vanishes identically on a cell, but only up to rounding, or -1."""
    for q in range(m):
        zero = high[q] <= eps[q] and low[q] >= -eps[q] and abs(z[1, q]) + abs(z[2, q]) <= FLAT * eps[q]
        if zero and strict[ids[q]] == STRICT and (z[0, q] != 0.0 or z[1, q] != 0.0 or z[2, q] != 0.0):
            return ids[q]
    return -1


@kernel
def switched(bits, c, ids, kidx, first, last, on):
    """Which of the units first .. last that cut its mother are on in cell c."""
    for j in range(first, last):
        on[j - first] = is_on(bits, c, ids[kidx[j]])


@kernel
def inherit(M, c, old, p, kidx, kz, first, last, on, z, mark, m):
    """Cell c becomes a mother: her maps are those of her own mother p and of the units that are on in all of her."""
    start = old.shape[2]
    for t in range(3):
        for k in range(start):
            M[c, t, k] = old[p, t, k]
        for q in range(m):
            M[c, t, start + q] = z[t, q] if mark[q] == 1 else 0.0
    for j in range(first, last):
        if on[j - first]:
            M[c, 0, kidx[j]], M[c, 1, kidx[j]], M[c, 2, kidx[j]] = kz[j, 0], kz[j, 1], kz[j, 2]


@kernel
def listing(koff, kidx, kz, c, start, listed, k, z):
    """The units that cut cell c, and their maps, at the end of the list."""
    count = koff[c]
    for j in range(k):
        q = listed[j]
        kidx[count + j] = start + q
        kz[count + j, 0], kz[count + j, 1], kz[count + j, 2] = z[0, q], z[1, q], z[2, q]
    koff[c + 1] = count + k


@kernel
def signed(bits, h, c, mark, m, ids):
    """Set the bits, and change the hash, of cell c by the units that are on in all of it."""
    for q in range(m):
        if mark[q] == 1:
            bits[c, ids[q] >> 6] |= np.uint64(1) << np.uint64(ids[q] & 63)
            h[c] ^= hashed(ids[q])


@kernel
def met(net, level, store, eps, strict):
    """What the units of one level are on each cell of a store.

    Returns (M, koff, kidx, kz: what its children inherit from each cell; bits, h with the units that are on in all of
    it; failure: -1, or a unit that is noise).
    """
    P, levels, all_ids = net
    x, y, _, off, bits, h, mother, old, old_off, old_idx, old_z = store
    s, m = levels[level], levels[level + 1] - levels[level]
    ids, C, start = all_ids[s : s + m], len(h), old.shape[2]
    tiny, wide, last, failure = picked(eps, ids), padded(m), -1, -1
    base, z, low, high = np.empty((3, wide)), np.empty((3, wide)), np.empty(wide), np.empty(wide)
    mark, listed, on = np.empty(wide, np.uint8), np.empty(m, np.int64), np.empty(len(old_idx), np.uint8)
    M, bits, h = np.empty((C, 3, start + m)), bits.copy(), h.copy()
    koff, kidx, kz = np.zeros(C + 1, np.int64), np.empty(C * m, np.int64), np.empty((C * m, 3))
    for c in range(C):
        p = mother[c]
        first, end = old_off[p], old_off[p + 1]
        if p != last:
            assemble(P, s, wide, old, p, base)
            last = p
        switched(bits, c, all_ids, old_idx, first, end, on)
        raised(P, s, wide, base, old_idx, old_z, first, end, on, z)
        extremes(z, wide, x, y, off[c], off[c + 1], low, high)
        k, flat = classify(low, high, tiny, m, listed, mark)
        failure = noisy(z, m, low, high, tiny, strict, ids) if flat > 0 else -1
        if failure >= 0:
            break
        inherit(M, c, old, p, old_idx, old_z, first, end, on, z, mark, m)
        listing(koff, kidx, kz, c, start, listed, k, z)
        signed(bits, h, c, mark, m, ids)
    return M, koff, kidx[: koff[C]].copy(), kz[: koff[C]].copy(), bits, h, failure


@kernel
def longest(off):
    """The length of the longest list."""
    most = off[0]
    for c in range(len(off) - 1):
        most = max(most, off[c + 1] - off[c])
    return most


@kernel
def doubtful(eps, strict, unit):
    """From where on a value that counts as zero is doubtful; nowhere for the units of maxima."""
    doubt = np.empty(len(unit))
    for j in range(len(unit)):
        doubt[j] = DOUBT * eps[j] if strict[unit[j]] != TIED else np.inf
    return doubt


@entry
def advance(net, level, store, eps, strict, bundles, nb):
    """Cut all cells of a store by one level. Returns (store, bundles, nb, failure), the latter as of explore."""
    x, y, e, off = store[:4]
    M, koff, kidx, kz, bits, h, failure = met(net, level, store, eps, strict)
    unit = picked(net[2], kidx)
    wanted = len(h) + 2 * len(kidx) + 16  # a line through a cell makes one more or two
    c, count = 0 * level, 0 * nb  # a literal 0 would have everything compiled twice
    cells = blank(wanted, 5 * wanted, bits.shape[1])
    if failure < 0:
        parents, work = (x, y, e, off, bits, h), scratch(longest(koff))
        tiny = picked(eps, unit)
        lines = (koff, kz, unit, tiny, doubtful(tiny, strict, unit))
        c, count, nb, missing = cut(c, count, nb, parents, lines, work, cells, bundles)
        while missing in (CELLS, BUNDLES):
            if missing == CELLS:
                cells = roomy(cells)
            else:
                bundles = grown(bundles, 2 * len(bundles) + MAX_SIDES)
            c, count, nb, missing = cut(c, count, nb, parents, lines, work, cells, bundles)
        failure = -1 if missing == NOTHING else (-2 if missing == SIDES else -4)
    return (*trimmed(cells, count), M, koff, kidx, kz), bundles, nb, failure


@kernel
def trimmed(cells, count):
    """The growing cells without the room that was not needed."""
    x, y, e, off, bits, h, mother = cells
    corners = off[count]
    return x[:corners], y[:corners], e[:corners], off[: count + 1], bits[:count], h[:count], mother[:count]


@kernel
def enlarged(size, width):
    """Room for entries of `width` bytes: for twice as many, or at once for many more, as growing leaves gaps behind."""
    return 2 * size if 2 * size * width < MILD else max(2 * size, ROOM // width)


@kernel
def emit(out, net, store):
    """Append finished cells and their output maps (O, 3)."""
    x, y, e, off, bits, h, maps, count = out
    P, ids = net[0], net[2]
    sx, sy, se, soff, sbits, sh, mother, M, koff, kidx, kz = store
    start, C, width, last = off[count], len(sh), maps.shape[1], -1
    if start + len(sx) > len(x):
        size = enlarged(start + len(sx), 20)
        x, y, e = grown(x, size), grown(y, size), grown(e, size)
    if count + C > len(h):
        size = enlarged(count + C, 24 * maps.shape[1] + 8 * bits.shape[1])
        off, bits, h, maps = grown(off, size + 1), grown(bits, size), grown(h, size), grown(maps, size)
    for v in range(len(sx)):
        x[start + v], y[start + v], e[start + v] = sx[v], sy[v], se[v]
    n, wide = len(ids), padded(width) if width > 8 else width  # a few outputs are faster one by one
    base, z, on = np.empty((3, wide)), np.empty((3, wide)), np.empty(len(kidx), np.uint8)
    for c in range(C):
        off[count + c + 1], h[count + c] = start + soff[c + 1], sh[c]
        for w in range(bits.shape[1]):
            bits[count + c, w] = sbits[c, w]
        p = mother[c]
        if p != last:
            assemble(P, n, wide, M, p, base)
            last = p
        switched(sbits, c, ids, kidx, koff[p], koff[p + 1], on)
        raised(P, n, wide, base, kidx, kz, koff[p], koff[p + 1], on, z)
        for i in range(width):
            maps[count + c, i, 0], maps[count + c, i, 1], maps[count + c, i, 2] = z[0, i], z[1, i], z[2, i]
    return x, y, e, off, bits, h, maps, count + C


@entry
def explore(net, level, store, eps, strict, halt, limit, leaf, culled, shrunk):
    """All cells of a store, cut by all units from `level` on.

    halt: (1,), set from another thread to end the search. Returns ((x, y, e, off, bits, h, maps), bundles, failure).
    failure: -1, a unit that is zero up to rounding only, -2 for a cell with too many sides, -3 for more than `limit`
    cells or a halt, -4 for a corner so close to a line that it is doubtful whether it lies on it.
    """
    width = net[0].shape[1] - len(net[2]) - LANES
    x, y, e, off, bits, h, _ = blank(64, 320, store[4].shape[1])
    bundles = np.empty((0, 2), np.int32)
    nb, failure = len(bundles), -1  # a literal 0 would have everything compiled twice
    out = (x, y, e, off, bits, h, np.empty((64, width, 3)), nb)
    last = len(net[1]) - 1
    stack = [(net, level, store, np.inf)]
    while len(stack) > 0:
        net, level, store, area = stack.pop()
        while level < last and net[1][level + 1] == net[1][level]:
            level += 1
        if level == last:
            out = emit(out, net, store)
            if out[7] > limit or halt[0]:
                failure = -3
                break
            continue
        box = box_of(store[0], store[1])
        now, cells = (box[1] - box[0]) * (box[3] - box[2]), len(store[5])
        if cells >= culled and now * shrunk < area:
            net, store = cull(net, level, store, box, eps)
            stack.append((net, level, store, now))
        elif cells > leaf:
            order, middle = halved(store[0], store[1], store[3], box)
            stack.append((net, level, gather(store, order[middle:]), area))
            stack.append((net, level, gather(store, order[:middle]), area))
        else:
            new, bundles, nb, failure = advance(net, level, store, eps, strict, bundles, nb)
            if failure != -1:
                break
            stack.append((net, level + 1, new, area))
    x, y, e, off, bits, h, maps, count = out
    corners = off[count]
    found = (x[:corners], y[:corners], e[:corners], off[: count + 1], bits[:count], h[:count], maps[:count])
    return found, bundles[:nb], failure
