"""The version, and the few type names and helpers shared by every floor of the library."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
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


def on_cpu() -> AbstractContextManager:
    """New tensors on the CPU for a while, whatever `torch.set_default_device` said; free where it said nothing.

    >>> with torch.device("meta"), on_cpu():
    ...     torch.zeros(2).device.type
    'cpu'
    """
    return nullcontext() if torch.get_default_device().type == "cpu" else torch.device("cpu")


def flat(rows: torch.Tensor) -> torch.Tensor:
    """(N, prod(shape)) of (N, *shape); shape may be (), where torch's flatten(1) knows no axis.

    >>> flat(torch.zeros(3)).shape, flat(torch.zeros(3, 2, 2)).shape
    (torch.Size([3, 1]), torch.Size([3, 4]))
    """
    return rows.reshape(len(rows), prod(rows.shape[1:]))
