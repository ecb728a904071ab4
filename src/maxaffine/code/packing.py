"""Codes as bits: 1 bit a unit with two pieces, else ceil(log2 R) bits, most significant first; for storage.

The Hamming distance of packed codes means nothing where R > 2.
"""

from math import prod

import numpy as np
import torch
from torch import Tensor

from maxaffine.code.signature import Units


def bits_of(pieces: int) -> int:
    """Bits a unit with that many pieces takes."""
    return max(1, (pieces - 1).bit_length())


def bytes_of(units: Units) -> int:
    """Bytes that the packed code of one operator takes.

    >>> bytes_of(Units("pool", "max_pool2d", 4, (3, 3)))
    3
    """
    return -(-prod(units.shape) * bits_of(units.pieces) // 8)


def pack(code: Tensor, pieces: int) -> Tensor:
    """(N, K) pieces -> (N, bytes) uint8, padded with zeros to whole bytes."""
    width = bits_of(pieces)
    shifts = torch.arange(width - 1, -1, -1, dtype=code.dtype, device=code.device)
    bits = code if width == 1 else ((code[..., None] >> shifts) & 1).flatten(1)
    if code.device.type == "cpu":
        return torch.from_numpy(np.packbits(bits.numpy().astype(np.uint8, copy=False), axis=1))
    bits = torch.nn.functional.pad(bits.to(torch.uint8), (0, -bits.shape[1] % 8)).unflatten(1, (-1, 8))
    weights = torch.tensor([128, 64, 32, 16, 8, 4, 2, 1], dtype=torch.uint8, device=code.device)
    return (bits * weights).sum(2, dtype=torch.int32).to(torch.uint8)


def unpack(packed: Tensor, units: Units) -> Tensor:
    """(N, bytes) uint8 -> (N, *units): the inverse of `pack`.

    >>> unpack(pack(torch.tensor([[3, 0, 2]]), 4), Units("pool", "max_pool2d", 4, (3,))).tolist()
    [[3, 0, 2]]
    """
    width, count = bits_of(units.pieces), prod(units.shape)
    shifts = torch.arange(7, -1, -1, dtype=torch.uint8, device=packed.device)
    bits = ((packed[..., None] >> shifts) & 1).flatten(1)[:, : count * width]
    kind = torch.uint8 if units.pieces <= 256 else torch.int32
    if width > 1:
        powers = 2 ** torch.arange(width - 1, -1, -1, dtype=torch.int32, device=packed.device)
        bits = (bits.unflatten(1, (count, width)).int() * powers).sum(2, dtype=torch.int32)
    return bits.to(kind).reshape(len(packed), *units.shape)
