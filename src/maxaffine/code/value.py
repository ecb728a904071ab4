"""The codes of N signals as a value: rows can be taken, compared, packed, named and saved."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path

import torch
from torch import Tensor

from maxaffine.arguments import path_of, require
from maxaffine.code.packing import pack
from maxaffine.code.signature import Signature
from maxaffine.code.weights import Weights
from maxaffine.errors import InputError
from maxaffine.types import flat


@dataclass(frozen=True, eq=False)
class Code:
    """The codes of N signals; code[name] is (N, *units), uint8 (int32 where R > 256).

    >>> import torch, maxaffine as ma
    >>> net = torch.nn.Sequential(torch.nn.Linear(1, 2), torch.nn.ReLU())
    >>> _ = net[0].weight.data.fill_(1.0), net[0].bias.data.copy_(torch.tensor([0.0, -1.0]))
    >>> code = ma.Spline(net, torch.zeros(1, 1)).code(torch.tensor([[0.5], [2.0], [3.0]]))
    >>> code["1"].tolist(), (code == code[1]).tolist(), len(code)
    ([[1, 0], [1, 1], [1, 1]], [False, True, True], 3)
    """

    signature: Signature
    values: tuple[Tensor, ...]
    count: int
    made_by: Weights | None = None

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, key: str | int | slice | Tensor) -> "Tensor | Code":
        if isinstance(key, str):
            return self.values[index_of(self, key)]
        if isinstance(key, Integral):
            key = int(key)
            if not -self.count <= key < self.count:
                raise IndexError(f"code {key} of {self.count}")
            key = slice(key, key + 1 or None)
        if isinstance(key, Tensor):
            key = key.cpu()  # which an index of a tensor may be wherever that lies
        rows = torch.arange(self.count)[key]
        return Code(self.signature, tuple(v[key] for v in self.values), len(rows), self.made_by)

    def __eq__(self, other: object) -> Tensor:
        """(N,) bool on the device of this code: which signals share all their pieces.

        A code of length 1 is compared with every row; the other code may lie on another device.
        """
        if not isinstance(other, Code):
            return NotImplemented
        same_signature(self, other)
        count = rows_of(self, other)
        equal = torch.ones(count, dtype=torch.bool, device=self.values[0].device if self.values else None)
        for a, b in zip(self.values, other.values, strict=True):
            equal &= flat(a == b.to(a.device)).all(1)
        return equal

    __hash__ = None  # type: ignore[assignment]

    @property
    def structure(self) -> str:
        """32 hexadecimal digits, equal for networks with the same operators, units and input shape."""
        return self.signature.digest()

    @property
    def weights(self) -> str | None:
        """32 hexadecimal digits of the weights that made the code (see `Weights`); None where no network did.

        Raises InputError when the network was trained on since, so that its weights of then are gone.
        """
        return None if self.made_by is None else self.made_by.digest()

    def packed(self) -> Tensor:
        """(N, bytes) uint8 for storage: 1 bit a binary unit, else ceil(log2 R) bits, each operator from a new byte."""
        parts = [pack(flat(value), units.pieces) for units, value in zip(self.signature, self.values, strict=True)]
        return torch.cat(parts, 1) if parts else torch.zeros(self.count, 0, dtype=torch.uint8, device="cpu")

    def ids(self) -> list[bytes]:
        """16 bytes a signal, equal exactly for equal codes: the name of its region (BLAKE2b of the packed code)."""
        rows, key = self.packed().cpu().numpy(), self.structure.encode()
        return [hashlib.blake2b(row.tobytes(), digest_size=16, key=key).digest() for row in rows]

    def save(self, path: str | Path) -> None:
        """Write the packed codes with both fingerprints to a .safetensors or .parquet file, completely or not at all.

        Raises FileFormatError for another ending or a place that cannot be written; see `weights`.
        """
        from maxaffine.code.files import Contents, save

        save(Contents(self.signature, self.values, self.count, self.weights), path_of(path))

    @staticmethod
    def load(path: str | Path) -> "Code":
        """Read what `save` wrote. Raises FileFormatError for anything else."""
        from maxaffine.code.files import load

        signature, values, count, weights = load(path_of(path))
        return Code(signature, values, count, None if weights is None else Weights((), weights))


def concatenate(codes: Sequence[Code]) -> Code:
    """The codes of several batches as one. Raises InputError when they are not of one network."""
    if not codes:
        raise InputError("no codes to concatenate; give at least one")
    first = codes[0]
    for other in codes[1:]:
        same_signature(first, other)
    values = tuple(torch.cat([c.values[i] for c in codes]) for i in range(len(first.values)))
    makers = {None if c.made_by is None else id(c.made_by): c.made_by for c in codes}
    if len(makers) > 1 and len({c.weights for c in codes}) > 1:
        raise InputError("the codes were made by different weights; concatenate codes of one network")
    return Code(first.signature, values, sum(c.count for c in codes), first.made_by)


def index_of(code: Code, name: str) -> int:
    """Place of an operator in the signature. Raises InputError listing the names."""
    names = [units.name for units in code.signature]
    if name not in names:
        raise InputError(f"no spline operator is called {name!r}; the operators are {names}")
    return names.index(name)


def rows_of(p: Code, q: Code) -> int:
    """How many rows two codes have when compared row by row; one of length 1 is compared with every row, or none."""
    count = len(q) if len(p) == 1 else len(p)
    if len(q) not in (1, count):
        raise InputError(
            f"codes of {len(p)} and {len(q)} signals cannot be compared row by row; maxaffine.pairwise_distance "
            "compares all pairs"
        )
    return count


def same_signature(p: Code, q: Code) -> None:
    """Raise InputError unless both codes have the same operators, kinds, pieces, units and shape of input."""
    for name, code in (("p", p), ("q", q)):
        require(code, Code, name, "a Code, as spline.code(x) returns")
    if p.signature == q.signature:
        return
    for a, b in zip(p.signature, q.signature, strict=False):
        if a != b:
            raise InputError(f"the codes differ in structure: {a} against {b}")
    if len(p.signature) != len(q.signature):
        raise InputError(f"the codes have {len(p.signature)} and {len(q.signature)} operators")
    shapes = (p.signature.in_shape, q.signature.in_shape)
    raise InputError(f"the codes are of inputs of shapes {shapes[0]} and {shapes[1]}")
