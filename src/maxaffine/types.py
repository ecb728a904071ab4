"""The version, and the few type names shared by every floor of the library."""

from collections.abc import Sequence
from math import prod
from typing import Literal, TypeAlias

import torch

__version__ = "0.1.0"

Shape: TypeAlias = tuple[int, ...]
Scalar: TypeAlias = float | int
Level: TypeAlias = Scalar | torch.Tensor
"""A knot, slope or offset: one number for all units, or a tensor that broadcasts over them."""

Norm: TypeAlias = Literal[1, 2] | float
Names: TypeAlias = str | Sequence[str]


def flat(rows: torch.Tensor) -> torch.Tensor:
    """(N, prod(shape)) of (N, *shape); shape may be (), where torch's flatten(1) knows no axis.

    >>> flat(torch.zeros(3)).shape, flat(torch.zeros(3, 2, 2)).shape
    (torch.Size([3, 1]), torch.Size([3, 4]))
    """
    return rows.reshape(len(rows), prod(rows.shape[1:]))
