"""Compiled: the units of a net that cannot switch in a group of cells vanish or are folded into the others.

A group lies in a box. Units before some level are known exactly: on in all its cells, off in all, or neither. Units
from there on are bounded over the box, each relu(z_k) that can switch enclosed by lambda z_k + mu / 2 +- mu / 2.
"""

import numpy as np

from maxaffine.geometry.kernels import kernel, kernel_fast

OFF, ON, OPEN = 0, 1, 2
SOUND = 1e3  # times what counts as zero: bounds are widened by it, far above their own rounding


@kernel_fast
def bounded(P, n, first, eps, box, state):
    """Bound unit after unit over the box (s0, s1, t0, t1); fills state from unit `first` on."""
    cs, ct, rs, rt = (box[0] + box[1]) / 2, (box[2] + box[3]) / 2, (box[1] - box[0]) / 2, (box[3] - box[2]) / 2
    lin, err = P[:3, :n].copy(), np.zeros(n)
    for k in range(n):
        one, s, t = lin[0, k], lin[1, k], lin[2, k]
        middle, reach = one + s * cs + t * ct, abs(s) * rs + abs(t) * rt + err[k] + SOUND * eps[k]
        low, high = middle - reach, middle + reach
        if k >= first:
            state[k] = ON if low > 0 else (OFF if high < 0 else OPEN)
        if state[k] == OFF:
            continue
        slope, half = 1.0, 0.0
        if state[k] == OPEN:
            low, high = min(low, -1e-300), max(high, 1e-300)
            slope = high / (high - low)
            half = -low * slope / 2
        one, s, t, spread = slope * one + half, slope * s, slope * t, slope * err[k] + half
        for q in range(np.uint64(k + 1), np.uint64(n)):
            w = P[3 + k, q]
            lin[0, q] += w * one
            lin[1, q] += w * s
            lin[2, q] += w * t
            err[q] += abs(w) * spread


@kernel
def those(state, n, wanted):
    """Which of the first n units are in that state."""
    found, count = np.empty(n, np.int64), 0
    for k in range(n):
        if state[k] == wanted:
            found[count] = k
            count += 1
    return found[:count]


@kernel_fast
def folded(P, n, state):
    """Units that are on are substituted into all others, then they and those that are off are left out.

    Returns (the new matrix, the units that stay).
    """
    kept, solid = those(state, n, OPEN), those(state, n, ON)
    after, k = np.empty(len(solid), np.int64), 0  # columns from there on may depend on the unit
    for i in range(len(solid)):
        while k < len(kept) and kept[k] < solid[i]:
            k += 1
        after[i] = k
    rows = np.zeros((len(solid), len(kept) + P.shape[1] - n))
    for i in range(len(solid) - 1, -1, -1):
        substituted(P, 3 + solid[i], n, kept, after[i], solid, i + 1, after, rows, rows, i)
    new, later = np.zeros((3 + len(kept), rows.shape[1])), 0
    for r in range(len(new)):
        row, start = (r, 0) if r < 3 else (3 + kept[r - 3], r - 2)
        while r >= 3 and later < len(solid) and solid[later] < kept[r - 3]:
            later += 1
        substituted(P, row, n, kept, start, solid, later, after, rows, new, r)
    return new, kept


@kernel_fast
def substituted(P, r, n, kept, start, solid, later, after, rows, new, target):
    """Row r of P over the kept columns from `start` on, with the units solid[later:] replaced by their rows."""
    count, width = np.uint64(len(kept)), np.uint64(new.shape[1])
    for q in range(np.uint64(start), count):
        new[target, q] = P[r, np.uint64(kept[q])]
    for q in range(width - count):
        new[target, count + q] = P[r, np.uint64(n) + q]
    for i in range(later, len(solid)):
        w = P[r, solid[i]]
        if w != 0.0:
            for q in range(np.uint64(after[i]), width):
                new[target, q] += w * rows[i, q]


@kernel
def relevel(levels, kept):
    """First kept unit of each level."""
    new, k = np.empty(len(levels), np.int64), 0
    for i in range(len(levels)):
        while k < len(kept) and kept[k] < levels[i]:
            k += 1
        new[i] = k
    return new
