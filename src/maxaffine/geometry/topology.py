"""Compiled: from the cells as separate polygons to shared vertices, edges and neighbours, by integer keys alone.

Every cell knows the exclusive or h of the hashes of its units that are on, every side the units that vanish along it:
the one that cut there first, and others that coincide with it (a "bundle"). A convex cell has one side per line, so the
sides of two cells that first unit u cut, and whose units that are on agree but for those that vanish along the side,
are two halves of one edge. They find each other in a hash table, whatever their coordinates were rounded to.
"""

import numpy as np

from maxaffine.geometry.kernels import BUNDLE, counted, entry, hashed, kernel

OUTSIDE, LOST = -1, -2


@kernel
def owners(off):
    """Cell and following half-edge of every half-edge."""
    cell, after = np.empty(off[-1], np.int32), np.empty(off[-1], np.int32)
    for c in range(len(off) - 1):
        for i in range(off[c], off[c + 1]):
            cell[i] = c
            after[i] = i + 1 if i + 1 < off[c + 1] else off[c]
    return cell, after


@kernel
def primary(label, bundles):
    """The unit that cut along a side first."""
    while label >= BUNDLE:
        label = bundles[label - BUNDLE, 0]
    return label


@kernel
def keys(e, cell, bits, h, bundles):
    """For every half-edge the hash of its cell without the units that vanish along it: both halves have the same."""
    key = np.empty(len(e), np.uint64)
    for i in range(len(e)):
        c, label, last = cell[i], e[i], False
        key[i] = h[c]
        while label >= 0 and not last:
            last = label < BUNDLE
            unit = label if last else bundles[label - BUNDLE, 1]
            if (bits[c, unit >> 6] >> np.uint64(unit & 63)) & np.uint64(1):
                key[i] ^= hashed(unit)
            if not last:
                label = bundles[label - BUNDLE, 0]
    return key


@kernel
def twins(e, cell, bits, h, bundles):
    """The other half of every half-edge: OUTSIDE on the domain's border, LOST where there is none or more than one."""
    key, size = keys(e, cell, bits, h, bundles), 16
    while size < 2 * len(e):
        size *= 2
    table, twin = np.empty(size, np.int32), np.empty(len(e), np.int32)
    for at in range(size):
        table[at] = -1
    for i in range(len(e)):
        twin[i] = OUTSIDE if e[i] < 0 else LOST
        if e[i] < 0:
            continue
        unit = primary(e[i], bundles)
        mixed = (key[i] ^ (np.uint64(unit + 1) * np.uint64(0x9E3779B97F4A7C15))) * np.uint64(0xD6E8FEB86659FD93)
        at = np.int64((mixed >> np.uint64(32)) & np.uint64(size - 1))
        while table[at] >= 0:
            j = table[at]
            if key[j] == key[i] and primary(e[j], bundles) == unit:
                twin[i], twin[j] = j, (i if twin[j] == LOST else LOST)
                break
            at = (at + 1) & (size - 1)
        if table[at] < 0:
            table[at] = i
    return twin


@kernel
def root_of(parent, i):
    """Representative of i, with path halving."""
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@kernel
def joined(parent, i, j):
    """Put i and j into one class, the smaller number represents it."""
    a, b = root_of(parent, i), root_of(parent, j)
    if a < b:
        parent[b] = a
    else:
        parent[a] = b


@kernel
def numbered(parent):
    """Class numbers 0, 1, ... in the order of their representatives."""
    number, count = np.empty(len(parent), np.int32), 0
    for i in range(len(parent)):
        if parent[i] == i:
            number[i] = count
            count += 1
        else:
            number[i] = number[root_of(parent, i)]
    return number, count


@kernel
def corners_of(after, twin):
    """Vertex number of the origin of every half-edge, and how many there are."""
    parent = counted(len(after))
    for i in range(len(after)):
        j = twin[i]
        if j > i:
            joined(parent, i, after[j])
            joined(parent, after[i], j)
    return numbered(parent)


@kernel
def winner(bits, c, unit, left, right):
    """Who wins the tournament whose last unit is given: -1 - candidate."""
    while unit >= 0:
        on = (bits[c, unit >> 6] >> np.uint64(unit & 63)) & np.uint64(1)
        unit = right[unit] if on else left[unit]
    return unit


@entry
def winners(bits, last, left, right):
    """(F, T) candidates that win the tournaments with those last units."""
    found = np.empty((len(bits), len(last)), np.int64)
    for c in range(len(bits)):
        for i in range(len(last)):
            found[c, i] = -1 - winner(bits, c, last[i], left, right)
    return found


@kernel
def changes(bits, a, b, last, left, right, units):
    """Fill `units` with those that differ between cells a and b; a tournament counts once, if its winner differs."""
    count = 0
    for w in range(bits.shape[1]):
        rest = bits[a, w] ^ bits[b, w]
        while rest:
            low = rest & (~rest + np.uint64(1))
            k = 64 * w
            while (low >> np.uint64(k - 64 * w)) != np.uint64(1):
                k += 1
            rest ^= low
            final = last[k]
            seen = False
            for i in range(count):
                seen = seen or units[i] == final
            if not seen and (final == k or winner(bits, a, final, left, right) != winner(bits, b, final, left, right)):
                if count < len(units):
                    units[count] = final
                count += 1
    return count


@kernel
def inner(cell, twin, bits, last, left, right):
    """Which half-edges separate two cells of one code: both halves of walls inside a tournament."""
    hidden, units = np.zeros(len(cell), np.bool_), np.empty(64, np.int64)
    for i in range(len(cell)):
        j = twin[i]
        if j > i and changes(bits, cell[i], cell[j], last, left, right, units) == 0:
            hidden[i] = hidden[j] = True
    return hidden
