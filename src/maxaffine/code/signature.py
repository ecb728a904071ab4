"""What the codes of one network share: its spline operators and the shape of its inputs."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from functools import cached_property

from maxaffine.types import Shape


@dataclass(frozen=True)
class Units:
    """One spline operator as a code sees it: its name, its kind, its number of pieces R and the shape of its units."""

    name: str
    kind: str
    pieces: int
    shape: Shape


@dataclass(frozen=True)
class Signature:
    """The operators in the order in which they run, and the shape of one input.

    >>> signature = Signature((Units("1", "relu", 2, (8,)),), (4,))
    >>> len(signature), signature[0].kind, len(signature.digest())
    (1, 'relu', 32)
    """

    units: tuple[Units, ...]
    in_shape: Shape

    def __len__(self) -> int:
        return len(self.units)

    def __iter__(self) -> Iterator[Units]:
        return iter(self.units)

    def __getitem__(self, place: int) -> Units:
        return self.units[place]

    def digest(self) -> str:
        """32 hexadecimal digits: BLAKE2b of names, kinds, pieces, units and the shape of an input."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        return hashlib.blake2b(json.dumps(astuple(self)).encode(), digest_size=16).hexdigest()
