"""Convolutions of many images in float64 on the CPU, where the library's own are slow (im2col, image by image).

Eight images lie side by side in the innermost axis, so that every row of a channel is one long vector whatever the
images' size; three taps of a kernel row meet four output channels at a time, all in registers.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from math import ceil

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from maxaffine.geometry.kernels import entry_fast, inlined, kernel
from maxaffine.operators.convolution import geometry
from maxaffine.program.frozen import affine_links
from maxaffine.program.links import AffineLink
from maxaffine.program.plan import Plan, Step

CONVOLUTION = "aten.conv2d.default"
IMAGES = 8  # side by side
TAPS, CHANNELS = 3, 4  # at a time
COPIED = 64  # at a time where the channels do not come first
FEW = 4  # fewer images leave too many lanes empty


def fast_links(plan: Plan, constants: list[object]) -> Iterator[AffineLink | Step]:
    """The links of a plan, batch norms folded, whose convolutions are `convolve`."""
    for link in affine_links(plan, constants):
        if isinstance(link, AffineLink) and link.step.node.op == CONVOLUTION:
            yield replace(link, step=replace(link.step, function=convolve))
        else:
            yield link


def convolve(x: Tensor, *arguments: Tensor | int | list[int] | None) -> Tensor:
    """What aten.conv2d makes of images (n, C, H, W) and these arguments.

    >>> x, w = torch.arange(48.0).double().reshape(2, 2, 3, 4), torch.ones(5, 2, 2, 3).double()
    >>> bool((convolve(x, w, None, [2, 1], 1) == F.conv2d(x, w, None, [2, 1], 1)).all())
    True
    """
    weight, stride, padding, dilation, _, groups = geometry([x, *arguments], 2, False)
    bias = arguments[1] if len(arguments) > 1 else None
    plain = x.dtype == torch.float64 and x.device.type == "cpu" and groups == 1 and not x.requires_grad
    if not plain or len(x) < FEW or dilation != [1, 1] or weight.shape[3] <= stride[1]:
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups)  # type: ignore[arg-type]
    tall, wide = (
        (size + 2 * p - d * (k - 1) - 1) // s + 1
        for size, p, d, k, s in zip(x.shape[2:], padding, dilation, weight.shape[2:], stride, strict=True)
    )
    if min(tall, wide) < 1:
        return F.conv2d(x, weight, bias, stride, padding, dilation)  # type: ignore[arg-type]
    out = np.empty((len(x), len(weight), tall, wide))
    taps, shifts, phase = _taps(weight, wide, stride[1])
    images, steps, around = x.detach().numpy(), tuple(stride), tuple(padding)
    start = np.zeros(CHANNELS * len(taps))
    start[: len(weight)] = 0 if bias is None else bias.detach()  # type: ignore[union-attr]

    def some(first: int, last: int) -> None:
        for k in range(first, last, COPIED):
            part = slice(k, min(k + COPIED, last))
            _convolve(np.ascontiguousarray(images[part]), taps, shifts, phase, steps, around, start, out[part])

    workers = min(torch.get_num_threads(), ceil(len(x) / IMAGES))
    if workers == 1:
        some(0, len(x))
    else:
        bounds = [min(len(x), IMAGES * (ceil(len(x) / IMAGES) * k // workers)) for k in range(workers + 1)]
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(some, bounds[:-1], bounds[1:]))
    return torch.from_numpy(out)


def _taps(weight: Tensor, wide: int, stride: int) -> tuple[np.ndarray, np.ndarray, int]:
    """The weights as the kernel reads them (O / 4, C, kernel rows, T, 3, 4), zeros filled in; where in a row each of
    the T threes of taps finds its first column; and the columns that a phase holds.

    Column k s + r of the padded image is number k of phase r, where s is the stride: tap j meets at output q what is
    number q + j // s of phase j % s. Neighbouring outputs read neighbouring numbers, and so do taps s apart.
    """
    outputs, inputs, rows, count = weight.shape
    threes = [(r, k) for r in range(stride) for k in range(0, ceil((count - r) / stride), TAPS)]
    filled = weight.new_zeros(CHANNELS * ceil(outputs / CHANNELS), inputs, rows, len(threes), TAPS)
    for t, (r, k) in enumerate(threes):
        mine = weight[..., r + k * stride :: stride][..., :TAPS].detach()
        filled[:outputs, :, :, t, : mine.shape[-1]] = mine
    phase = wide + max(k for _, k in threes) + TAPS - 1
    shifts = np.array([IMAGES * (r * phase + k) for r, k in threes], np.uint64)
    return filled.unflatten(0, (-1, CHANNELS)).permute(0, 2, 3, 4, 5, 1).contiguous().numpy(), shifts, phase


@kernel
def _side_by_side(images, padding, stride, phase, rows):
    """Lay up to eight images into the rows (C, H + padding, stride phase 8)."""
    n, inputs, height, width = images.shape
    place = np.empty(width, np.int64)
    for q in range(width):
        at = (q + padding[1]) // stride
        place[q] = ((q + padding[1]) % stride * phase + at) * 8 if at < phase else -1
    while width > 0 and place[width - 1] < 0:  # columns behind the last that a tap meets
        width -= 1
    for c in range(inputs):
        for y in range(height):
            row = rows[c, y + padding[0]]
            for k in range(n):
                line = images[k, c, y]
                for q in range(width):
                    row[place[q] + k] = line[q]


@kernel
def _apart(sums, o, y, wide, out):
    """Store the sums of a channel as a row of each of the images."""
    for k in range(len(out)):
        line = out[k, o, y]
        for q in range(wide):
            line[q] = sums[q * 8 + k]


@inlined
def _add(rows, at, weights, k, s0, s1, s2, s3, wide):
    """Add what three taps make of the row there to the sums of four channels."""
    a0, a1, a2, a3 = weights[k], weights[k + 1], weights[k + 2], weights[k + 3]
    b0, b1, b2, b3 = weights[k + 4], weights[k + 5], weights[k + 6], weights[k + 7]
    c0, c1, c2, c3 = weights[k + 8], weights[k + 9], weights[k + 10], weights[k + 11]
    for q in range(np.uint64(wide * 8)):
        u, v, t = rows[at + q], rows[at + q + np.uint64(8)], rows[at + q + np.uint64(16)]
        s0[q] += a0 * u + b0 * v + c0 * t
        s1[q] += a1 * u + b1 * v + c1 * t
        s2[q] += a2 * u + b2 * v + c2 * t
        s3[q] += a3 * u + b3 * v + c3 * t


@entry_fast
def _convolve(images, taps, shifts, phase, stride, padding, start, out):
    """Write the convolution of images (n, C, H, W) to out (n, O, h, w): see _taps."""
    n, inputs, height, _ = images.shape
    outputs, tall, wide = out.shape[1], out.shape[2], out.shape[3]
    rows = np.zeros((inputs, height + 2 * padding[0], stride[1] * phase * 8))
    flat, weights, tower, length = rows.reshape(-1), taps.reshape(-1), rows.shape[1], rows.shape[2]
    s0, s1, s2, s3 = np.empty(wide * 8), np.empty(wide * 8), np.empty(wide * 8), np.empty(wide * 8)
    for first in range(0, n, 8):
        part = out[first : first + 8]
        _side_by_side(images[first : first + 8], padding, stride[1], phase, rows)
        for o in range(len(taps)):
            for y in range(tall):
                s0[:], s1[:], s2[:], s3[:] = start[4 * o], start[4 * o + 1], start[4 * o + 2], start[4 * o + 3]
                k = o * (weights.size // len(taps))
                for c in range(inputs):
                    for i in range(taps.shape[2]):
                        row = np.uint64((c * tower + y * stride[0] + i) * length)
                        for shift in shifts:
                            _add(flat, row + shift, weights, k, s0, s1, s2, s3, wide)
                            k += 12
                _apart(s0, 4 * o, y, wide, part)
                if 4 * o + 1 < outputs:
                    _apart(s1, 4 * o + 1, y, wide, part)
                if 4 * o + 2 < outputs:
                    _apart(s2, 4 * o + 2, y, wide, part)
                if 4 * o + 3 < outputs:
                    _apart(s3, 4 * o + 3, y, wide, part)
