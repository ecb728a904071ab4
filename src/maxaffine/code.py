"""The code of a signal: which piece of every spline operator is active. It names the region of the input space.

A network is a hierarchical vector quantiser (Balestriero & Baraniuk 2018, arXiv 1805.06576, section 5): the code is the
codeword, equal codes mean the same affine map, and the share of differing units is a distance between signals.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from maxaffine.errors import InputError
from maxaffine.types import Names, Shape


@dataclass(frozen=True)
class Units:
    """One spline operator as a code sees it: its name, its number of pieces R and the shape of its units."""

    name: str
    pieces: int
    shape: Shape


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

    signature: tuple[Units, ...]
    values: tuple[Tensor, ...]
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, key: str | int | slice | Tensor) -> "Tensor | Code":
        if isinstance(key, str):
            return self.values[index_of(self, key)]
        if isinstance(key, int):
            if not -self.count <= key < self.count:
                raise IndexError(f"code {key} of {self.count}")
            key = slice(key, key + 1 or None)
        rows = torch.arange(self.count)[key]
        return Code(self.signature, tuple(v[key] for v in self.values), len(rows))

    def __eq__(self, other: object) -> Tensor:
        """(N,) bool: which signals share all their pieces; a code of length 1 is compared with every row."""
        if not isinstance(other, Code):
            return NotImplemented
        same_signature(self, other)
        count = max(self.count, other.count)
        if {self.count, other.count} - {1, count}:
            raise InputError(f"codes of {self.count} and {other.count} signals cannot be compared row by row")
        equal = torch.ones(count, dtype=torch.bool, device=self.values[0].device if self.values else None)
        for a, b in zip(self.values, other.values, strict=True):
            equal &= _flat(a == b).all(1)
        return equal

    __hash__ = None  # type: ignore[assignment]

    def packed(self) -> Tensor:
        """(N, bytes) uint8 for storage: 1 bit a binary unit, else ceil(log2 R) bits, each operator from a new byte."""
        parts = [_pack(_flat(value), units.pieces) for units, value in zip(self.signature, self.values, strict=True)]
        return torch.cat(parts, 1) if parts else torch.zeros(self.count, 0, dtype=torch.uint8)

    def ids(self) -> list[bytes]:
        """16 bytes a signal, equal exactly for equal codes: the name of its region (BLAKE2b of the packed code)."""
        head = repr(self.signature).encode()
        rows = self.packed().cpu().numpy()
        return [hashlib.blake2b(row.tobytes(), digest_size=16, key=_short(head)).digest() for row in rows]


def _flat(values: Tensor) -> Tensor:
    return values.reshape(values.shape[0], -1)


def _short(head: bytes) -> bytes:
    return hashlib.blake2b(head, digest_size=32).digest()


def _pack(code: Tensor, pieces: int) -> Tensor:
    """Most significant bit first, padded with zeros to whole bytes."""
    width = max(1, (pieces - 1).bit_length())
    shifts = torch.arange(width - 1, -1, -1, device=code.device)
    bits = code.bool() if width == 1 else (((code.int()[..., None] >> shifts) & 1).flatten(1)).bool()
    bits = torch.nn.functional.pad(bits.to(torch.uint8), (0, -bits.shape[1] % 8)).unflatten(1, (-1, 8))
    weights = torch.tensor([128, 64, 32, 16, 8, 4, 2, 1], dtype=torch.uint8, device=code.device)
    return (bits * weights).sum(2, dtype=torch.int32).to(torch.uint8)


def concatenate(codes: Sequence[Code]) -> Code:
    """The codes of several batches as one. Raises InputError when they are not of one network."""
    first = codes[0]
    for other in codes[1:]:
        same_signature(first, other)
    values = tuple(torch.cat([c.values[i] for c in codes]) for i in range(len(first.values)))
    return Code(first.signature, values, sum(c.count for c in codes))


def index_of(code: Code, name: str) -> int:
    """Place of an operator in the signature. Raises InputError listing the names."""
    names = [units.name for units in code.signature]
    if name not in names:
        raise InputError(f"no spline operator is called {name!r}; the operators are {names}")
    return names.index(name)


def same_signature(p: Code, q: Code) -> None:
    """Raise InputError unless both codes have the same operators, pieces and units."""
    if p.signature == q.signature:
        return
    for a, b in zip(p.signature, q.signature, strict=False):
        if a != b:
            raise InputError(f"the codes differ in structure: {a} against {b}")
    raise InputError(f"the codes have {len(p.signature)} and {len(q.signature)} operators")


def distance(
    p: Code,
    q: Code,
    operators: Names | None = None,
    weights: Mapping[str, float] | Sequence[float] | None = None,
) -> Tensor:
    """Eq. 15: the fraction of units whose piece differs, row by row; (N,), float64, 0 to 1.

        d(p, q) = 1 - (1/D) sum_k 1{p_k = q_k}      over the D units of the operators asked for

    Several operators: all units count alike, or sum_l w_l d_l / sum_l w_l with one weight an operator. A code of
    length 1 is compared with every row. Raises InputError when the structures differ.
    Source: Balestriero & Baraniuk 2018, arXiv 1805.06576, section 5.

    >>> import torch, maxaffine as ma
    >>> spline = ma.Spline(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.ReLU()), torch.zeros(1, 4))
    >>> code = spline.code(torch.tensor([[1.0, 1, 1, 1], [1, 1, 1, -1]]))
    >>> ma.distance(code, code[0]).tolist()
    [0.0, 0.25]
    """
    same_signature(p, q)
    total: Tensor | float = 0.0
    for i, weight in _weighted(p, operators, weights):
        total = total + weight * _flat(p.values[i] != q.values[i]).double().mean(1)
    return torch.as_tensor(total)


def pairwise_distance(
    p: Code,
    q: Code,
    operators: Names | None = None,
    weights: Mapping[str, float] | Sequence[float] | None = None,
) -> Tensor:
    """Eq. 15 for every pair of rows: (N, M), float64; see `distance`."""
    same_signature(p, q)
    total = torch.zeros(len(p), len(q), dtype=torch.float64)
    for i, weight in _weighted(p, operators, weights):
        a, b = _flat(p.values[i]), _flat(q.values[i])
        total += weight * (1 - _agreements(a, b, p.signature[i].pieces).cpu().double() / a.shape[1])
    return total


def _agreements(a: Tensor, b: Tensor, pieces: int) -> Tensor:
    """Number of equal units of every pair, as a sum over pieces of products of indicators (exact: counts < 2^24)."""
    if a.shape[1] >= 2**24:
        raise InputError(f"{a.shape[1]} units are too many for exact counts; take the operators in parts")
    if pieces == 2:
        x, y = a.float() * 2 - 1, b.float() * 2 - 1
        return (x @ y.T + a.shape[1]) / 2
    total = torch.zeros(len(a), len(b), device=a.device)
    for r in range(pieces):
        total += (a == r).float() @ (b == r).float().T
    return total


def _weighted(
    code: Code, operators: Names | None, weights: Mapping[str, float] | Sequence[float] | None
) -> Iterator[tuple[int, float]]:
    names = (
        [u.name for u in code.signature]
        if operators is None
        else [operators]
        if isinstance(operators, str)
        else list(operators)
    )
    places = [index_of(code, name) for name in names]
    if not places:
        raise InputError("a distance needs at least one spline operator")
    units = [max(1, code.values[i][0:1].numel()) if len(code) else 1 for i in places]
    if weights is None:
        values = [float(u) for u in units]
    else:
        values = [float(weights[n]) for n in names] if isinstance(weights, Mapping) else [float(w) for w in weights]
    if len(values) != len(places) or min(values) < 0 or sum(values) <= 0:
        raise InputError(f"{len(places)} operators need as many weights >= 0 with a positive sum, got {values}")
    return iter([(i, w / sum(values)) for i, w in zip(places, values, strict=True)])
