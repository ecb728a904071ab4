"""Compiled convolutions against the definition, as torch computes it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.nn import functional as F

from maxaffine.geometry.convolving import convolve

Pair = tuple[int, int]
CASES: list[tuple[tuple[int, ...], tuple[int, ...], Pair, Pair, Pair]] = [
    # images, weights, stride, padding, dilation
    ((9, 3, 7, 8), (5, 3, 3, 3), (1, 1), (1, 1), (1, 1)),
    ((9, 3, 7, 8), (4, 3, 3, 3), (2, 2), (1, 1), (1, 1)),
    ((17, 2, 9, 11), (4, 2, 2, 5), (2, 3), (1, 2), (1, 1)),
    ((8, 1, 6, 5), (1, 1, 1, 2), (1, 1), (0, 1), (1, 1)),
    ((5, 2, 5, 5), (9, 2, 5, 5), (1, 1), (2, 2), (1, 1)),
    ((4, 3, 8, 8), (6, 3, 7, 7), (4, 4), (3, 3), (1, 1)),
    ((5, 2, 9, 9), (2, 2, 3, 3), (3, 4), (0, 0), (1, 1)),  # columns that no window meets
    ((5, 2, 9, 9), (2, 2, 3, 3), (1, 1), (0, 0), (2, 3)),
    ((5, 2, 5, 5), (8, 2, 1, 1), (2, 2), (0, 0), (1, 1)),
    ((1, 2, 5, 5), (8, 2, 3, 3), (1, 1), (1, 1), (1, 1)),
]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("threads", [1, 2])
def test_compiled_convolutions_are_convolutions(case: tuple, threads: int) -> None:
    images, weights, stride, padding, dilation = case
    generator = torch.Generator().manual_seed(0)
    x, w, b = (torch.randn(shape, generator=generator).double() for shape in (images, weights, weights[:1]))
    x = x.transpose(2, 3).contiguous().transpose(2, 3)  # in another order in memory
    with ThreadPoolExecutor(1) as pool:  # threads of torch are counted for each thread of Python
        pool.submit(torch.set_num_threads, threads).result()
        for bias in (b, None):
            found = pool.submit(convolve, x, w, bias, list(stride), list(padding), list(dilation)).result()
            wanted = F.conv2d(x, w, bias, stride, padding, dilation)
            assert found.shape == wanted.shape and found.is_contiguous()
            assert (found - wanted).abs().max() < 1e-13 * w[0].numel() * x.abs().max() * w.abs().max()


def test_groups_and_float32_are_left_to_torch() -> None:
    x, w = torch.randn(4, 4, 6, 6), torch.randn(6, 2, 3, 3)
    for wide in (x.double(), x):
        found = convolve(wide, w.to(wide.dtype), None, 1, 0, 1, 2)
        assert bool((found == F.conv2d(wide, w.to(wide.dtype), groups=2)).all())
