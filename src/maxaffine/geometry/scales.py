"""The scale of a unit: how large its wall is at random inputs around the slice, whatever it is on the slice."""

from dataclasses import replace

import torch
from torch import Tensor

from maxaffine.geometry.line_network import Network
from maxaffine.program.plan import Step

ZERO = 1e-12  # a wall that is, with its derivatives, below this share of its scale is zero
SMALL = 1e-6  # walls below this share of the operand's scale are judged by the scale of their own unit
NUDGE = 1e-10  # relative change of an input that turns rounding noise into other noise
PROBES = 8  # random inputs that tell the scale of a unit


def unit_scale(network: Network, step: Step, x: Tensor, nudge: Tensor) -> Tensor:
    """(units,): the largest wall of each unit at the inputs x (n, *in); nudge: random directions of their size.

    A unit whose weights are tiny is tiny there too, one that vanishes on the slice only is not. Where a nudge of the
    input changes a wall out of proportion it is rounding noise everywhere, and the operand's scale serves.
    """
    here, moved = (network.at(step, z, torch.zeros_like(z)) for z in (x, x + NUDGE * nudge))
    walls = network.walls(here, here.values, False)
    change = network.walls(replace(moved, code=here.code), moved.values, False) - walls
    real = walls.isfinite()
    largest, shift = (torch.where(real, w.abs(), 0).flatten(0, 1).amax(0) for w in (walls, change))
    return torch.where(shift > SMALL * largest, network.scale(here, len(x)).max(), largest)
