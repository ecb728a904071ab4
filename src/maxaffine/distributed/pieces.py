"""Compiled: which pieces of cells a chunk of work leaves open at its border, and how pieces make up whole cells.

A chunk is what one worker cuts at a time. A maximum over several candidates is cut as a tournament, so that a cell of
the partition may come as several convex pieces, in one chunk or in several.
"""

import numpy as np

from maxaffine.geometry.kernels import BUNDLE, entry, hashed
from maxaffine.geometry.mesh import merged, stepped
from maxaffine.geometry.topology import LOST, inner, owners, twins, winner


@entry
def bordering(soup, bundles, last, left, right, merging):
    """Find the pieces whose cell has a side that is shared with another chunk.

    Returns (border (F,) bool, whole, links, torn): whole counts the cells that lie in this chunk alone, links the sides
    of border pieces whose other half is no border piece, torn the sides whose other half belongs to a third side.
    """
    e, off, bits, h = soup
    cell, _ = owners(off)
    twin = twins(e, cell, bits, h, bundles)
    group, groups = np.arange(len(h), dtype=np.int32), len(h)
    if merging:
        hidden = inner(cell, twin, bits, last, left, right)
        group, groups = merged(cell, twin, hidden, len(h))
    opened, border = np.zeros(groups, np.bool_), np.zeros(len(h), np.bool_)
    for i in range(len(e)):
        if twin[i] == LOST:
            opened[group[cell[i]]] = True
    for c in range(len(h)):
        border[c] = opened[group[c]]
    links = torn = 0
    for i in range(len(e)):
        j = twin[i]
        if j >= 0:
            torn += twin[j] != i
            links += border[cell[i]] and not border[cell[j]]
    return border, groups - opened.sum(), links, torn


@entry
def unmatched(e, off, bits, h, bundles):
    """The number of sides inside the domain without another half."""
    cell, _ = owners(off)
    twin = twins(e, cell, bits, h, bundles)
    lost = 0
    for i in range(len(e)):
        lost += twin[i] == LOST or (twin[i] >= 0 and twin[twin[i]] != i)
    return lost


@entry
def named(bits, h, inside, finals, left, right):
    """(F,) a hash of the code: of tournaments only the winner counts, so that all pieces of a cell have one name.

    inside: (U,) units of tournaments. finals: (T,) last units of those that are open.
    """
    names, units = h.copy(), len(inside)
    for c in range(len(h)):
        for k in range(units):
            if inside[k] and (bits[c, k >> 6] >> np.uint64(k & 63)) & np.uint64(1):
                names[c] ^= hashed(k)
        for t in range(len(finals)):
            place = -1 - winner(bits, c, finals[t], left, right)
            names[c] ^= hashed(units + t + len(finals) * place)
    return names


@entry
def beyond(bits, c, unit, last, left, right):
    """Who wins on the other side of a side of piece c where that unit changes."""
    one = np.uint64(1) << np.uint64(unit & 63)
    bits[c, unit >> 6] ^= one
    found = winner(bits, c, last[unit], left, right)
    bits[c, unit >> 6] ^= one
    return found


@entry
def straight_on(i, j, e, cell, group, twin, bits, last, left, right):
    """Whether side j only continues side i: one wall with one cell behind it, or one side of the domain.

    Where several units vanish on a side and the other half is in another chunk, nobody knows which of them change.
    """
    if twin[i] >= 0 and twin[j] >= 0:
        return group[cell[twin[i]]] == group[cell[twin[j]]]
    if twin[i] >= 0 or twin[j] >= 0 or max(e[i], e[j]) >= BUNDLE:
        return False
    if min(e[i], e[j]) < 0:
        return e[i] == e[j]
    there = beyond(bits, cell[i], e[i], last, left, right)
    return last[e[i]] == last[e[j]] and there == beyond(bits, cell[j], e[j], last, left, right)


@entry
def outlines(soup, bundles, last, left, right):
    """Pieces as whole cells: (offsets, sides, member, group).

    The outline of cell g are the half-edges sides[offsets[g]:offsets[g + 1]], counter-clockwise; member: one of its
    pieces; group: (F,) the cell of each piece.
    """
    e, off, bits, h = soup
    cell, after = owners(off)
    twin = twins(e, cell, bits, h, bundles)
    hidden = inner(cell, twin, bits, last, left, right)
    group, groups = merged(cell, twin, hidden, len(h))
    after = stepped(after, twin, hidden)
    kept = np.ones(len(e), np.bool_)
    start, member = np.full(groups, -1, np.int64), np.empty(groups, np.int64)
    for i in range(len(e)):
        if not hidden[i]:
            j = after[i]
            kept[j] = not straight_on(i, j, e, cell, group, twin, bits, last, left, right)
            if start[group[cell[i]]] < 0:
                start[group[cell[i]]] = i
                member[group[cell[i]]] = cell[i]
    offsets, sides, at = np.zeros(groups + 1, np.int64), np.empty(len(e), np.int64), 0
    for g in range(groups):
        i = start[g]
        while True:
            if kept[i]:
                sides[at] = i
                at += 1
            i = after[i]
            if i == start[g]:
                break
        offsets[g + 1] = at
    return offsets, sides[:at].copy(), member, group
