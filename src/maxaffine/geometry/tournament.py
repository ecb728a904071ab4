"""A maximum over windows of candidates as ReLU units: those that can win meet in pairs, max(a, b) = a + relu(b - a)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from maxaffine.geometry.relunet import TOURNAMENT, Units


@dataclass(frozen=True)
class Entries:
    """Those still in the tournament, by window and place: their rows (3 + u, n) and who stands for them.

    side: a unit (>= 0) or candidate r (-1 - r).
    """

    rows: Tensor
    window: Tensor
    side: Tensor

    def __getitem__(self, kept: Tensor) -> "Entries":
        return Entries(self.rows[:, kept], self.window[kept], self.side[kept])


def play(units: Units, operator: int, rows: Tensor, index: Tensor, inside: Tensor) -> Tensor:
    """The maximum of rows[:, index[w, r]] over the places r inside window w, as rows (3 + u', W).

    Neighbours meet first, so of two entries the right one has the higher places and must win strictly, as ties go to
    the lowest index.
    """
    entries, first = _contenders(units, rows, index, inside), len(units.last)
    while True:
        seat = torch.arange(len(entries.window)) - torch.searchsorted(entries.window, entries.window)
        if not bool((seat % 2 == 1).any()):
            break
        entries = _meet(units, operator, entries, (seat % 2 == 1).nonzero(as_tuple=True)[0])[seat % 2 == 0]
    units.base.append((-1 - entries.side).clamp(min=0))
    open_ = (entries.side >= 0).nonzero(as_tuple=True)[0]
    units.roots.append(torch.stack([torch.full_like(open_, operator), open_, entries.side[open_]], 1))
    for i in range(first, len(units.last)):
        units.last[i] = entries.side[units.meaning[i][1]]
    return entries.rows


def _contenders(units: Units, rows: Tensor, index: Tensor, inside: Tensor) -> Entries:
    """The candidates that may win somewhere in the domain."""
    low, high = units.enclosure.bounds(rows)
    lows = torch.where(inside, low[index], -torch.inf)
    can = inside & (high[index] >= lows.amax(1, keepdim=True))
    window, place = can.nonzero(as_tuple=True)
    champion = index.gather(1, lows.argmax(1)[:, None])[window, 0]
    entry = index[window, place]
    rivals = (can.sum(1)[window] > 1).nonzero(as_tuple=True)[0]
    beaten = units.enclosure.bounds(rows[:, entry[rivals]] - rows[:, champion[rivals]])[1] < 0
    kept = torch.ones_like(window, dtype=torch.bool)
    kept[rivals[beaten]] = False
    return Entries(rows[:, entry[kept]], window[kept], -1 - place[kept])


def _meet(units: Units, operator: int, entries: Entries, right: Tensor) -> Entries:
    """Each right entry meets its left neighbour; the winner, or a + relu(b - a), is written to the left's seat."""
    left = right - 1
    difference, floor = units.difference(entries.rows[:, left], entries.rows[:, right])
    low, high = units.enclosure.bounds(difference)
    wins, open_ = low > 0, (low <= 0) & (high > 0) & (difference != 0).any(0)
    rows, side = entries.rows.clone(), entries.side.clone()
    rows[:, left[wins]], side[left[wins]] = rows[:, right[wins]], side[right[wins]]
    seats, others = left[open_], right[open_]
    sides = (side[seats], side[others])
    numbers = units.add(difference[:, open_], operator, entries.window[seats], sides, TOURNAMENT, floor[open_])
    grown = rows.new_zeros(3 + units.count, rows.shape[1])
    grown[: len(rows)] = rows
    grown[3 + numbers, seats] = 1.0
    side[seats] = numbers
    return Entries(grown, entries.window, side)
