"""The explicit max-affine spline operator: S[A, B](x)_k = max_r (<A[k, r], x> + B[k, r])."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from maxaffine.arguments import require
from maxaffine.errors import InputError

FLOATS = (torch.float32, torch.float64)


@dataclass(frozen=True, eq=False)
class MASO:
    """K independent maxima of R affine functions on R^D; a max-affine spline function (MAS) is K = 1.

    S[A, B](x)_k = max_r (<A[k, r], x> + B[k, r]) = A[x] x + B[x] = sum_r T[k, r] (<A[k, r], x> + B[k, r]).
    A unit with fewer than R pieces repeats one of its rows (see `from_pieces`): a repeat changes nothing.

    Args:
        A: slopes, (K, R, D), float32 or float64.
        B: offsets, (K, R), same dtype and device.

    Raises:
        InputError: shapes that do not fit, a dtype that is not float32/float64, NaN or infinity.

    >>> relu = MASO(torch.tensor([[[0.0], [1.0]]]), torch.zeros(1, 2))
    >>> relu(torch.tensor([[-2.0], [3.0]])).tolist(), relu.code(torch.tensor([[-2.0], [3.0]])).tolist()
    ([[0.0], [3.0]], [[0], [1]])

    Source: Balestriero and Baraniuk, 2018, arXiv 1805.06576; Magnani and Boyd, 2009 (max-affine functions).
    """

    A: Tensor
    B: Tensor

    def __post_init__(self) -> None:
        for name, value in (("A", self.A), ("B", self.B)):
            require(value, Tensor, name, "a tensor: A of shape (K, R, D), B of shape (K, R)")
        if self.A.dim() != 3 or self.B.shape != self.A.shape[:2] or 0 in self.A.shape[:2]:
            given = f"A {tuple(self.A.shape)} and B {tuple(self.B.shape)}"
            raise InputError(f"MASO: {given} do not fit: give A as (K, R, D) and B as (K, R) with K, R >= 1")
        if self.A.dtype not in FLOATS or (self.A.dtype, self.A.device) != (self.B.dtype, self.B.device):
            given = f"A is {self.A.dtype} on {self.A.device}, B is {self.B.dtype} on {self.B.device}"
            raise InputError(f"MASO: {given}: give both as float32 or both as float64 on one device")
        if not (self.A.isfinite().all() and self.B.isfinite().all()):
            raise InputError(
                "MASO: A or B holds NaN or infinity; drop such pieces and repeat a row instead (from_pieces)"
            )

    @property
    def K(self) -> int:
        """Number of outputs (units)."""
        return self.A.shape[0]

    @property
    def R(self) -> int:
        """Number of pieces of each unit, repeated ones included."""
        return self.A.shape[1]

    @property
    def D(self) -> int:
        """Dimension of the input."""
        return self.A.shape[2]

    def to(self, target: torch.dtype | torch.device | str) -> "MASO":
        """A copy in another dtype (float32, float64) or on another device."""
        return MASO(self.A.to(target), self.B.to(target))

    def __call__(self, x: Tensor) -> Tensor:
        """Values (N, K) at the inputs x (N, D)."""
        return self.candidates(x).amax(dim=2)

    def candidates(self, x: Tensor) -> Tensor:
        """All R affine values (N, K, R) of every unit at x (N, D), before the maximum."""
        check_input(self, x)
        return F.linear(x, self.A.flatten(0, 1), self.B.flatten()).unflatten(1, (self.K, self.R))

    def code(self, x: Tensor) -> Tensor:
        """Selected piece (N, K), int64: the lowest index of the largest candidate."""
        best = self.candidates(x).argmax(dim=2)
        # A matrix product may round two equal rows differently, so the winner is mapped to its first copy.
        return self.first_copy.expand(len(x), -1, -1).gather(2, best[:, :, None])[:, :, 0]

    def selected(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The affine map of each input's cell: A[x] (N, K, D) and B[x] (N, K)."""
        units, code = torch.arange(self.K, device=x.device), self.code(x)
        return self.A[units, code], self.B[units, code]

    def one_hot(self, x: Tensor) -> Tensor:
        """The vector-quantisation matrix T (N, K, R) in x's dtype: one 1 in each row, at the code."""
        return F.one_hot(self.code(x), self.R).to(x.dtype)

    @cached_property
    def first_copy(self) -> Tensor:
        """(K, R) int64: for each piece the first piece of the same unit with equal slope and offset."""
        unit = torch.arange(self.K, device=self.A.device).repeat_interleave(self.R)
        rows = torch.cat(
            [unit[:, None].to(self.A), self.A.detach().flatten(0, 1), self.B.detach().reshape(-1, 1)], dim=1
        )
        _, group = torch.unique(rows, dim=0, return_inverse=True)
        piece = torch.arange(self.R, device=self.A.device).repeat(self.K)
        first = torch.full_like(piece, self.R).scatter_reduce(0, group, piece, "amin")
        return first[group].reshape(self.K, self.R)


def check_input(maso: MASO, x: Tensor) -> None:
    """Refuse an input that is not a finite, non-empty (N, D) tensor of the operator's dtype and device."""
    if x.dim() != 2 or x.shape[1] != maso.D or len(x) == 0:
        raise InputError(f"MASO: the input is {tuple(x.shape)}: give (N, {maso.D}) with N >= 1 (x.flatten(1))")
    if (x.dtype, x.device) != (maso.A.dtype, maso.A.device):
        given = f"the input is {x.dtype} on {x.device}, the operator {maso.A.dtype} on {maso.A.device}"
        raise InputError(f"MASO: {given}: convert one of them with .to(...)")
    if not x.isfinite().all():
        raise InputError(f"MASO: the input {tuple(x.shape)} holds NaN or infinity: clean it first")


def from_pieces(units: Sequence[tuple[Tensor, Tensor]]) -> MASO:
    """The MASO whose unit k has the pieces units[k] = (slopes (R_k, D), offsets (R_k,)).

    Shorter units are filled up by repeating their first row, which adds no piece (-inf would make 0 * inf).

    Raises:
        InputError: no unit, or a unit without a piece.

    >>> from_pieces([(torch.eye(2), torch.zeros(2)), (torch.ones(1, 2), torch.ones(1))]).A.tolist()
    [[[1.0, 0.0], [0.0, 1.0]], [[1.0, 1.0], [1.0, 1.0]]]
    """
    counts = [len(offsets) for _, offsets in units]
    if not counts or min(counts) == 0:
        raise InputError(f"MASO: the units have {counts} pieces: every unit needs at least one")
    rows = [[*range(count), *[0] * (max(counts) - count)] for count in counts]
    A = torch.stack([slopes[row] for (slopes, _), row in zip(units, rows, strict=True)])
    B = torch.stack([offsets[row] for (_, offsets), row in zip(units, rows, strict=True)])
    return MASO(A, B)


def pieces(maso: MASO, unit: int) -> tuple[Tensor, Tensor]:
    """The different pieces of one unit in their order: slopes (R_k, D) and offsets (R_k,)."""
    kept = maso.first_copy[unit] == torch.arange(maso.R, device=maso.A.device)
    return maso.A[unit, kept], maso.B[unit, kept]


def without_repeats(maso: MASO) -> MASO:
    """The same operator with every repeated piece left out (what padding needs is repeated at the end).

    >>> without_repeats(MASO(torch.ones(1, 3, 2), torch.zeros(1, 3))).R
    1
    """
    return from_pieces([pieces(maso, k) for k in range(maso.K)])


def soft_code(maso: MASO, x: Tensor, beta: float) -> Tensor:
    """Soft vector quantisation: softmax over the pieces of beta / (1 - beta) (<A, x> + B), (N, K, R).

    The maximiser of beta <t, A x + B> + (1 - beta) H(t) over the simplex. beta -> 1 is the one-hot T,
    beta = 1/2 turns ReLU into the swish x sigmoid(x), beta = 0 weighs all pieces alike.

    Raises:
        InputError: beta outside [0, 1).

    Source: Balestriero and Baraniuk, From Hard to Soft, 2019, arXiv 1810.09274.
    """
    if not 0 <= beta < 1:
        raise InputError(f"soft_code: beta={beta} is outside [0, 1): for beta = 1 use MASO.one_hot")
    return torch.softmax(beta / (1 - beta) * maso.candidates(x), dim=2)


def soft_value(maso: MASO, x: Tensor, beta: float) -> Tensor:
    """The soft operator sum_r T_beta[k, r] (<A[k, r], x> + B[k, r]), (N, K), with T_beta = soft_code."""
    return (soft_code(maso, x, beta) * maso.candidates(x)).sum(dim=2)
