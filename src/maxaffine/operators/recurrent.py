"""Recurrent layers: the cell is one MASO, the unrolled layer a product of its selected slopes."""

from dataclasses import dataclass

import torch
from torch import Tensor

from maxaffine.errors import InputError
from maxaffine.operators.composition import layer
from maxaffine.operators.layers import dense
from maxaffine.operators.maso import MASO


def recurrent_cell(weight_input: Tensor, weight_hidden: Tensor, bias: Tensor | None, activation: MASO) -> MASO:
    """The cell h_t = s(W x_t + W_r h_{t-1} + b) as one MASO of the joined input [x_t; h_{t-1}].

    A[k, r] = [W, W_r]^T A_s[k, r], B[k, r] = B_s[k, r] + <A_s[k, r], b>.

    Source: Wang, Balestriero and Baraniuk, ICLR 2019, Proposition 1.
    """
    return layer(dense(torch.cat([weight_input, weight_hidden], dim=1), bias), activation)


@dataclass(frozen=True, eq=False)
class Unrolled:
    """The affine map of an unrolled recurrent layer, one for each of N sequences of T steps.

    h_T = sum_t inputs[:, t] x_t + state h_0 + offset.
    inputs: (N, T, H, D).  state: (N, H, H).  offset: (N, H).  hidden: (N, T, H), all states.
    """

    inputs: Tensor
    state: Tensor
    offset: Tensor
    hidden: Tensor

    def __call__(self, x: Tensor, start: Tensor) -> Tensor:
        """The frozen map at the sequences x (N, T, D) and start states (N, H): (N, H)."""
        return (
            torch.einsum("nthd,ntd->nh", self.inputs, x) + torch.einsum("nij,nj->ni", self.state, start) + self.offset
        )


def unroll(cell: MASO, x: Tensor, start: Tensor) -> Unrolled:
    """Run a recurrent cell over x (N, T, D) from start (N, H) and give the affine map of the last state.

    h_T = sum_t P_{t:T} A_t (W x_t + b) + P_{0:T} h_0  with  P_{t:T} = prod_{s=T}^{t+1} A_s W_r.

    Raises:
        InputError: the cell does not take [x_t; h_{t-1}] to h_t.

    Source: Wang, Balestriero and Baraniuk, ICLR 2019, Theorem 1.
    """
    if x.dim() != 3 or x.shape[1] == 0 or start.shape != (len(x), cell.K) or x.shape[2] + cell.K != cell.D:
        given = f"x {tuple(x.shape)}, start {tuple(start.shape)}, cell K={cell.K}, D={cell.D}"
        raise InputError(f"unroll: {given} do not fit: give x (N, T, D - K) with T >= 1 and start (N, K)")
    hidden, maps = [start], []
    for step in x.unbind(1):
        joined = torch.cat([step, hidden[-1]], dim=1)
        maps.append(cell.selected(joined))
        hidden.append(cell(joined))
    product = torch.eye(cell.K).to(x).expand(len(x), -1, -1)
    offset, inputs = x.new_zeros(len(x), cell.K), []
    for A, B in reversed(maps):
        offset = offset + torch.einsum("nij,nj->ni", product, B)
        inputs.append(product @ A[:, :, : x.shape[2]])
        product = product @ A[:, :, x.shape[2] :]
    return Unrolled(torch.stack(inputs[::-1], dim=1), product, offset, torch.stack(hidden[1:], dim=1))
