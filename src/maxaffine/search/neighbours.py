"""What a search finds: rows by their ids, nearest first."""

from typing import NamedTuple

from torch import Tensor


class Neighbours(NamedTuple):
    """Eq. 15 distances (float64) and row ids (int64) of the same shape, by distance, ties by id."""

    distances: Tensor
    ids: Tensor
