"""The version, and the few type names shared by every floor of the library."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch

__version__ = "0.1.0"

Shape: TypeAlias = tuple[int, ...]
Scalar: TypeAlias = float | int
Level: TypeAlias = Scalar | torch.Tensor
"""A knot, slope or offset: one number for all units, or a tensor that broadcasts over them."""

Norm: TypeAlias = Literal[1, 2] | float
Names: TypeAlias = str | Sequence[str]
