"""Compiled: the units of a net that cannot switch in a group of cells vanish or are folded into the others.

A group lies in a box. Units before `level` are known exactly: on in all its cells, off in all, or neither. Units from
`level` on are bounded over the box, each relu(z_k) that can switch enclosed by lambda z_k + mu / 2 +- mu / 2.
"""

import numpy as np

from maxaffine.geometry.kernels import kernel, kernel_fast

OFF, ON, OPEN = 0, 1, 2
SOUND = 1e3  # times what counts as zero: bounds are widened by it, far above their own rounding


@kernel
def known(M, state):
    """State of the units so far: off (or on) in all cells of the group, or open."""
    for k in range(M.shape[1]):
        on = 0
        for c in range(M.shape[0]):
            on += M[c, k, 0] != 0.0 or M[c, k, 1] != 0.0 or M[c, k, 2] != 0.0
        state[k] = OFF if on == 0 else (ON if on == M.shape[0] else OPEN)


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
        row = P[3 + k]
        for q in range(k + 1, n):
            w = row[q]
            lin[0, q] += w * one
            lin[1, q] += w * s
            lin[2, q] += w * t
            err[q] += abs(w) * spread


@kernel_fast
def folded(P, n, state):
    """Units that are on are substituted into all later ones, then they and those that are off are left out."""
    live = np.flatnonzero(state[:n] != OFF)
    count, width = len(live), len(live) + P.shape[1] - n
    Q = np.empty((3 + count, width))
    for r in range(3 + count):
        source, target = P[r if r < 3 else 3 + live[r - 3]], Q[r]
        for q in range(count):
            target[q] = source[live[q]]
        for q in range(count, width):
            target[q] = source[n + q - count]
    for k in range(count):
        if state[live[k]] != ON:
            continue
        row = Q[3 + k]
        for r in range(3 + k):
            w = Q[r, k]
            if w != 0.0 and (r < 3 or state[live[r - 3]] == OPEN):
                target = Q[r]
                for q in range(k + 1, width):
                    target[q] += w * row[q]
    return compressed(Q, live, state)


@kernel
def compressed(Q, live, state):
    """Rows and columns of the units that are open, and which they are."""
    count, outputs = len(live), Q.shape[1] - len(live)
    kept = np.flatnonzero(state[live] == OPEN)
    new = np.empty((3 + len(kept), len(kept) + outputs))
    for r in range(3 + len(kept)):
        source, target = Q[r if r < 3 else 3 + kept[r - 3]], new[r]
        for q in range(len(kept)):
            target[q] = source[kept[q]]
        for q in range(outputs):
            target[len(kept) + q] = source[count + q]
    return new, live[kept]


@kernel
def relevel(levels, kept):
    """First kept unit of each level."""
    new, k = np.empty(len(levels), np.int64), 0
    for i in range(len(levels)):
        while k < len(kept) and kept[k] < levels[i]:
            k += 1
        new[i] = k
    return new
