"""Compiled: the arrays of a partition from half-edges: cells of one code merged, straight corners left out."""

import numpy as np

from maxaffine.geometry.kernels import BUNDLE, absent, counted, entry, grown, kernel
from maxaffine.geometry.topology import changes, corners_of, inner, joined, numbered, owners, twins


@kernel
def fitted(array, count):
    """Its first rows, copied only where there are more."""
    return array if count == len(array) else array[:count].copy()


@kernel
def merged(cell, twin, hidden, cells):
    """Number of the merged cell of each cell, and how many there are."""
    parent = counted(cells)
    for i in range(len(cell)):
        if hidden[i] and twin[i] > i:
            joined(parent, cell[i], cell[twin[i]])
    return numbered(parent)


@kernel
def stepped(after, twin, hidden):
    """Following half-edge with the hidden ones walked around."""
    new = after.copy()
    for i in range(len(after)):
        if not hidden[i]:
            j = after[i]
            while hidden[j]:
                j = after[twin[j]]
            new[i] = j
    return new


@kernel
def straight(e, cell, group, after, twin, hidden, corner, count):
    """Which vertices only continue one edge: two edges meet there, between the same two cells or on one side."""
    degree = np.zeros(count, np.int64)
    for i in range(len(e)):
        if not hidden[i]:
            degree[corner[i]] += 1
            if twin[i] < 0:
                degree[corner[after[i]]] += 1
    found = np.zeros(count, np.bool_)
    for i in range(len(e)):
        j = after[i]
        if hidden[i] or degree[corner[j]] != 2:
            continue
        if twin[i] < 0 or twin[j] < 0:
            found[corner[j]] = twin[i] < 0 and twin[j] < 0 and e[i] == e[j]
        else:
            found[corner[j]] = group[cell[twin[i]]] == group[cell[twin[j]]]
    return found


@kernel
def compact(corner, x, y, dropped, count):
    """Vertices (V, 2) without the dropped ones, and their new numbers (-1: dropped)."""
    number, kept = absent(count), 0
    points = np.empty((count, 2))
    for v in range(count):
        if not dropped[v]:
            number[v] = kept
            kept += 1
    for i in range(len(corner) - 1, -1, -1):
        v = number[corner[i]]
        if v >= 0:
            points[v, 0], points[v, 1] = x[i], y[i]
    return fitted(points, kept), number


@kernel
def firsts(cell, group, groups, hidden, corner, number):
    """For every merged cell a half-edge that begins at a kept vertex, and one of its unmerged cells."""
    start, member = absent(groups), absent(groups)
    for i in range(len(cell)):
        g = group[cell[i]]
        if start[g] < 0 and not hidden[i] and number[corner[i]] >= 0:
            start[g], member[g] = i, cell[i]
    return start, member


@kernel
def loops(start, cell, group, after, twin, corner, number):
    """Cells as cycles of vertices, and every edge once: from the cell with the lower number, or the only one.

    Returns offsets, indices, edges (E, 2), neighbours (E, 2) and the half-edge that each edge was read from.
    """
    groups, most = len(start), len(cell)
    for i in range(len(cell)):
        most += twin[i] < 0
    most //= 2  # edges, or fewer where some half-edges are left out
    offsets, indices = np.zeros(groups + 1, np.int64), np.empty(len(cell), np.int64)
    edges, neighbours = np.empty((most, 2), np.int64), np.empty((most, 2), np.int64)
    source, at, count = np.empty(most, np.int32), 0, 0
    for g in range(groups):
        i = start[g]
        while True:
            first, j = i, after[i]
            while number[corner[j]] < 0:
                j = after[j]
            a, b = number[corner[first]], number[corner[j]]
            indices[at] = a
            at += 1
            other = -1 if twin[first] < 0 else group[cell[twin[first]]]
            if other < 0 or g < other:
                edges[count, 0], edges[count, 1] = a, b
                neighbours[count, 0], neighbours[count, 1] = g, other
                source[count] = first
                count += 1
            i = j
            if i == start[g]:
                break
        offsets[g + 1] = at
    return offsets, fitted(indices, at), fitted(edges, count), fitted(neighbours, count), source[:count]


@kernel
def edge_changes(source, e, cell, twin, bits, last, left, right):
    """(offsets, units): the reduced units that change across each edge; of a tournament its last unit."""
    offsets, units = np.zeros(len(source) + 1, np.int64), np.empty(len(source) + 16, np.int64)
    some, at = np.empty(1 << 12, np.int64), 0
    for k in range(len(source)):
        i = source[k]
        if twin[i] >= 0:
            if e[i] < BUNDLE and e[twin[i]] < BUNDLE and last[e[i]] == e[i]:
                some[0], count = e[i], 1
            else:
                count = changes(bits, cell[i], cell[twin[i]], last, left, right, some)
            if at + count > len(units):
                units = grown(units, 2 * (at + count))
            for u in range(count):
                units[at + u] = some[u]
            at += count
        offsets[k + 1] = at
    return offsets, fitted(units, at)


@entry
def measured(vertices, offsets, indices):
    """Area of each cell, and the mean of its corners."""
    cells = len(offsets) - 1
    areas, centres = np.empty(cells), np.empty((cells, 2))
    for c in range(cells):
        a, b = offsets[c], offsets[c + 1]
        X, Y = vertices[indices[a], 0], vertices[indices[a], 1]
        area = sx = sy = 0.0
        for i in range(a, b):
            v, w = indices[i], indices[i + 1 if i + 1 < b else a]
            x, y = vertices[v, 0] - X, vertices[v, 1] - Y
            area += x * (vertices[w, 1] - Y) - y * (vertices[w, 0] - X)
            sx, sy = sx + x, sy + y
        areas[c], centres[c, 0], centres[c, 1] = area / 2, X + sx / (b - a), Y + sy / (b - a)
    return areas, centres


@entry
def build(soup, bundles, last, left, right, merging):
    """The whole mesh, or the number of half-edges that found no partner (then the arrays are empty)."""
    x, y, e, off, bits, h = soup
    cell, after = owners(off)
    twin = twins(e, cell, bits, h, bundles)
    lost = 0
    for i in range(len(twin)):
        lost += twin[i] == -2 or (twin[i] >= 0 and twin[twin[i]] != i)
    nothing = np.empty((0, 2), np.int64)
    if lost > 0:
        empty = np.empty(0, np.int64)
        return lost, np.empty((0, 2)), empty, empty, nothing, nothing, empty, empty, absent(0)
    corner, count = corners_of(after, twin)
    hidden, dropped = np.zeros(len(e), np.bool_), np.zeros(count, np.bool_)
    group, groups = counted(len(off) - 1), len(off) - 1
    if merging:
        hidden = inner(cell, twin, bits, last, left, right)
        group, groups = merged(cell, twin, hidden, len(off) - 1)
        after = stepped(after, twin, hidden)
        dropped = straight(e, cell, group, after, twin, hidden, corner, count)
        seen = np.zeros(count, np.bool_)  # edges begin there; the others are inside merged cells
        for i in range(len(e)):
            seen[corner[i]] = seen[corner[i]] or not hidden[i]
        for v in range(count):
            dropped[v] = dropped[v] or not seen[v]
    vertices, number = compact(corner, x, y, dropped, count)
    start, member = firsts(cell, group, groups, hidden, corner, number)
    offsets, indices, edges, neighbours, source = loops(start, cell, group, after, twin, corner, number)
    where, units = edge_changes(source, e, cell, twin, bits, last, left, right)
    return lost, vertices, offsets, indices, edges, neighbours, where, units, member
