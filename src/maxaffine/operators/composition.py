"""Sums and compositions of MASOs that are again one MASO (Theorem 2 of Mad Max)."""

import torch
from torch import Tensor

from maxaffine.arguments import sized
from maxaffine.errors import InputError, MemoryBudgetError
from maxaffine.operators.maso import MASO, from_pieces, pieces, without_repeats

MEMORY = 2**30  # bytes; an explicit MASO is for small operators


def compose(outer: MASO, inner: MASO, *, memory: int = MEMORY) -> MASO:
    """outer(inner(x)) as one explicit MASO.

    Pieces of output k are all (r; r_1 ... r_J): slope sum_j A2[k, r, j] A1[j, r_j], offset
    B2[k, r] + sum_j A2[k, r, j] B1[j, r_j], over the units j with A2[k, r, j] != 0; j = 1 varies slowest.
    max and a sum change places only under a non-negative weight, so A2[k, r, j] >= 0 is required wherever
    inner unit j has more than one piece (an affine unit may be taken with any sign).

    Raises:
        InputError: the sizes do not fit, or a negative outer slope (named) meets a unit that is not affine.
        MemoryBudgetError: the parameters would need more than `memory` bytes.

    >>> from maxaffine.operators.layers import dense, relu
    >>> compose(relu(1), dense(torch.tensor([[2.0]]), torch.tensor([1.0]))).A.tolist()
    [[[0.0], [2.0]]]

    Source: Balestriero and Baraniuk, 2018, arXiv 1805.06576, Theorem 2.
    """
    check_composition(outer, inner)
    inner_pieces = [pieces(inner, j) for j in range(inner.K)]
    counts = torch.tensor([len(offsets) for _, offsets in inner_pieces], device=outer.A.device)
    if counts.max() == 1:
        return MASO(outer.A @ inner.A[:, 0], outer.B + outer.A @ inner.B[:, 0])
    combinations = torch.exp2((outer.A != 0).double() @ counts.double().log2()).sum(dim=1).max().item()
    require_memory(combinations * outer.K * inner.D * outer.A.element_size(), outer.K, combinations, inner.D, memory)
    return from_pieces([combined(outer.A[k], outer.B[k], inner_pieces) for k in range(outer.K)])


def combined(slopes: Tensor, offsets: Tensor, inner: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """All pieces of one composed unit with outer slopes (R, J) and offsets (R,): (R', D) and (R',)."""
    parts = []
    for row, offset in zip(slopes, offsets, strict=True):
        a, b = inner[0][0].new_zeros(1, inner[0][0].shape[1]), offset.reshape(1)
        for j in row.nonzero()[:, 0].tolist():
            a = (a[:, None] + row[j] * inner[j][0]).flatten(0, 1)
            b = (b[:, None] + row[j] * inner[j][1]).flatten()
        parts.append((a, b))
    return torch.cat([a for a, _ in parts]), torch.cat([b for _, b in parts])


def layer(linear: MASO, *operators: MASO, memory: int = MEMORY) -> MASO:
    """A whole layer, linear then activation [then pooling], as one MASO with every repeated piece left out.

    linear + activation: A[k, r] = W^T A_s[k, r], B[k, r] = B_s[k, r] + <A_s[k, r], b>.
    linear + ReLU + max-pooling: R = 1 + #R_k; with leaky ReLU or absolute value instead: R = 2 #R_k.

    Raises:
        InputError, MemoryBudgetError: as `compose`.

    >>> from maxaffine.operators.layers import dense, max_pool, relu
    >>> layer(dense(torch.eye(4)), relu(4), max_pool((1, 4), 2)).R
    3
    """
    for operator in operators:
        linear = without_repeats(compose(operator, linear, memory=memory))
    return linear


def add(first: MASO, second: MASO, *, memory: int = MEMORY) -> MASO:
    """The sum of two MASOs as one MASO, pieces A1[k, r] + A2[k, s] for all (r, s), s fastest.

    The residual block s(C z + b) + C_skip z + b_skip is add(layer(dense(C, b), s), dense(C_skip, b_skip)).

    Raises:
        InputError: K or D differ.
        MemoryBudgetError: the parameters would need more than `memory` bytes.
    """
    if (first.K, first.D) != (second.K, second.D):
        given = f"(K, D) is {(first.K, first.D)} and {(second.K, second.D)}"
        raise InputError(f"add: {given}: only operators between the same spaces have a sum")
    same_numbers("add", first, second)
    R = first.R * second.R
    require_memory(float(first.K * R * first.D * first.A.element_size()), first.K, R, first.D, memory)
    A = first.A[:, :, None] + second.A[:, None]
    return MASO(A.flatten(1, 2), (first.B[:, :, None] + second.B[:, None]).flatten(1))


def check_composition(outer: MASO, inner: MASO) -> None:
    """The condition of Theorem 2, unit by unit."""
    if outer.D != inner.K:
        raise InputError(f"compose: the outer operator reads {outer.D} values, the inner one gives {inner.K}")
    same_numbers("compose", outer, inner)
    bent = (inner.first_copy != 0).any(dim=1)
    if (broken := ((outer.A < 0) & bent).nonzero()).numel():
        k, r, j = broken[0].tolist()
        slope = f"outer slope A[{k}, {r}, {j}] = {outer.A[k, r, j].item():g} is negative"
        raise InputError(
            f"compose: {slope} and meets unit {j} of the inner operator, which is not affine: "
            "the result need not be convex, keep the two operators apart"
        )


def same_numbers(what: str, first: MASO, second: MASO) -> None:
    """Refuse two operators of different dtypes or on different devices."""
    given = [f"{maso.A.dtype} on {maso.A.device}" for maso in (first, second)]
    if given[0] != given[1]:
        raise InputError(f"{what}: one operator is {given[0]}, the other {given[1]}: convert one with .to(...)")


def require_memory(size: float, K: int, R: float, D: int, memory: int) -> None:
    """Refuse to build K x R x D parameters beyond the budget."""
    if size > memory:
        raise MemoryBudgetError(
            f"explicit MASO: K={K}, R={R:.6g}, D={D} would need {sized(size)}, the budget is "
            f"{sized(memory)}: keep the operators apart or raise memory="
        )
